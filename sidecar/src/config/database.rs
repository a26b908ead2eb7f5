//! The Postgres database of `[store]`: its URL, parsed and checked.

use std::{fmt, path::PathBuf, str::FromStr};

use tokio_postgres::config::{Config as Client, Host};

use super::{
    Store,
    document::Document,
    network::{Certificates, read_ca},
};
use crate::secret::read_secret;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
const PORT: u16 = 5432;
const EXAMPLE: &str = "write a URL such as postgres://edgerunner@db.example.com/edgerunner";

/// How a connection over TCP is encrypted, with libpq's names and meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SslMode {
    Disable,
    /// Encrypted, but anyone could be the server.
    Require,
    /// The server has a certificate of a CA, whatever its name is.
    VerifyCa,
    VerifyFull,
}

/// The Postgres database that `store.url` names.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub url: DatabaseUrl,
    pub password_file: Option<PathBuf>,
    /// CA certificates to trust instead of the system's; none means the system's.
    pub ca: Certificates,
}

/// A URL without a password.
#[derive(Clone)]
pub(crate) struct DatabaseUrl {
    text: String,
    /// The settings of a connection to each host, in their order. Each has one host.
    pub hosts: Vec<Client>,
    pub ssl_mode: SslMode,
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// The error says what to write instead, and does not repeat the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(EXAMPLE.to_owned());
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut ssl_mode = SslMode::VerifyFull;
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "sslmode" => ssl_mode = value.parse()?,
                "sslrootcert" => {
                    return Err("remove sslrootcert, and set store.ca_file instead".to_owned());
                }
                "passfile" => {
                    return Err("remove passfile, and set store.password_file instead".to_owned());
                }
                // A standby cannot be written to, so it is never used.
                "target_session_attrs" if matches!(value, "any" | "read-write" | "primary") => {}
                "target_session_attrs" => {
                    return Err("write target_session_attrs=read-write, or leave it out: the \
                                store must be writable"
                        .to_owned());
                }
                "host" | "hostaddr" | "port" | "user" | "password" | "dbname" | "options"
                | "channel_binding" => others.push(parameter),
                _ => return Err(format!("remove `{name}`: this parameter is not supported")),
            }
        }
        let parsed: Client = format!("{base}?{}", others.join("&"))
            .parse()
            .map_err(|error| format!("{EXAMPLE} ({})", reason(&error)))?;
        if parsed.get_password().is_some() {
            return Err("remove the password, because this URL is printed, and write it into a \
                        file that store.password_file names"
                .to_owned());
        }
        if parsed.get_hosts().is_empty() {
            return Err(EXAMPLE.to_owned());
        }
        Ok(Self { text: text.to_owned(), hosts: split(&parsed)?, ssl_mode })
    }
}

impl FromStr for SslMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disable" => Ok(Self::Disable),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            // What is encrypted only if the server wants it, anyone in between can read.
            _ => {
                Err("write sslmode=verify-full (the default), verify-ca, require or disable"
                    .to_owned())
            }
        }
    }
}

/// The parser's reason, without what it was parsing.
fn reason(error: &tokio_postgres::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// The settings for each host by itself, because each is tried with a time limit of its own.
fn split(parsed: &Client) -> Result<Vec<Client>, String> {
    let (hosts, ports) = (parsed.get_hosts(), parsed.get_ports());
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err("write one port, or a port for each host".to_owned());
    }
    let addresses = parsed.get_hostaddrs();
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err("write a hostaddr for each host, or leave it out".to_owned());
    }
    let one = |(index, host): (usize, &Host)| {
        let mut client = Client::new();
        match host {
            Host::Tcp(name) => client.host(name),
            Host::Unix(directory) => client.host_path(directory),
        };
        if let Some(address) = addresses.get(index) {
            client.hostaddr(*address);
        }
        client.port(ports.get(index).or(ports.first()).copied().unwrap_or(PORT));
        if let Some(user) = parsed.get_user() {
            client.user(user);
        }
        if let Some(database) = parsed.get_dbname() {
            client.dbname(database);
        }
        if let Some(options) = parsed.get_options() {
            client.options(options);
        }
        client.channel_binding(parsed.get_channel_binding());
        client
    };
    Ok(hosts.iter().enumerate().map(one).collect())
}

impl Document {
    /// `None` unless `store.url` is set.
    pub(super) fn read_database(&mut self, store: &Store) -> Option<Database> {
        const URL: &str = "/store/url";
        let Some(text) = &store.url else {
            for (field, given) in [
                ("password_file", store.password_file.is_some()),
                ("ca_file", store.ca_file.is_some()),
            ] {
                if given {
                    let problem = "this is for Postgres: set store.url as well, or remove this";
                    self.error(&format!("/store/{field}"), problem);
                }
            }
            return None;
        };
        if self.get("/store/path").is_some() {
            self.prune(URL);
            self.error(URL, "store.path is set as well: remove one of the two");
        }
        let ca = store.ca_file.as_deref().map_or(Ok(Certificates::new()), read_ca);
        let ca = ca.unwrap_or_else(|problem| {
            self.error("/store/ca_file", problem);
            Certificates::new()
        });
        let password = store.password_file.as_deref().map(read_secret);
        if let Some(Err(problem)) = password {
            self.error("/store/password_file", problem);
        }
        let url = text.parse().inspect_err(|problem: &String| {
            // It may have a password, which no message may repeat.
            self.prune(URL);
            self.error(URL, problem.as_str());
        });
        Some(Database { url: url.ok()?, password_file: store.password_file.clone(), ca })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigErrors};

    fn url(text: &str) -> DatabaseUrl {
        text.parse().unwrap()
    }

    fn problem(text: &str) -> String {
        text.parse::<DatabaseUrl>().unwrap_err()
    }

    #[test]
    fn each_host_has_its_port_and_everything_else_of_the_url() {
        let text = "postgres://me@one,two:7000/jobs?sslmode=verify-ca&target_session_attrs=any";
        let parsed = url(text);
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parsed.ssl_mode, SslMode::VerifyCa);
        let [one, two] = &parsed.hosts[..] else { panic!("{:?}", parsed.hosts) };
        assert_eq!(one.get_hosts(), [Host::Tcp("one".into())]);
        assert_eq!((one.get_ports(), two.get_ports()), (&[5432][..], &[7000][..]));
        assert_eq!((two.get_user(), two.get_dbname()), (Some("me"), Some("jobs")));
    }

    #[test]
    fn a_unix_socket_is_a_directory() {
        for text in
            ["postgres://%2Frun%2Fpostgresql/jobs", "postgresql:///jobs?host=/run/postgresql"]
        {
            assert_eq!(url(text).hosts[0].get_hosts(), [Host::Unix("/run/postgresql".into())]);
        }
    }

    #[test]
    fn a_url_that_is_not_usable_is_an_error_that_says_what_to_write() {
        for (text, expected) in [
            ("mysql://db/jobs", "write a URL such as postgres://"),
            ("db.example.com", "write a URL such as postgres://"),
            ("postgres:///jobs", "write a URL such as postgres://"),
            ("postgres://me@db:port/jobs", "write a URL such as postgres://"),
            ("postgres://me@db/jobs?connect_timeout=9", "remove `connect_timeout`"),
            ("postgres://me@db/jobs?sslmode=prefer", "write sslmode=verify-full"),
            ("postgres://me@db/jobs?sslrootcert=/ca.pem", "store.ca_file"),
            ("postgres://me@db/jobs?passfile=/pw", "store.password_file"),
            ("postgres://me@db/jobs?target_session_attrs=standby", "read-write"),
            ("postgres://a:1,b:2,c/jobs?port=1,2", "port"),
        ] {
            assert!(problem(text).contains(expected), "{text}: {}", problem(text));
        }
    }

    #[test]
    fn a_store_is_in_one_database() {
        fn variables(given: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
            let find = |name: &str| given.iter().find(|(known, _)| *known == name);
            Config::load(None, &|name| find(name).map(|(_, value)| (*value).to_owned()))
        }
        let url = ("STORE_URL", "postgres://db/jobs");
        assert!(variables(&[url]).unwrap().database.is_some());
        let printed = variables(&[url, ("STORE_PATH", "/tmp/x")]).unwrap_err().to_string();
        assert_eq!(printed.trim(), "STORE_URL: store.path is set as well: remove one of the two");
        let printed = variables(&[("STORE_CA_FILE", "/ca.pem")]).unwrap_err().to_string();
        assert!(printed.contains("set store.url as well"), "{printed}");
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_printed() {
        for url in ["postgres://me:hunter2@db/jobs", "postgres://me@db/jobs?password=hunter2"] {
            let variable = |name: &str| (name == "STORE_URL").then(|| url.to_owned());
            let printed = Config::load(None, &variable).unwrap_err().to_string();
            assert!(printed.starts_with("STORE_URL: remove the password"), "{printed}");
            assert!(printed.contains("store.password_file"), "{printed}");
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }
}

//! The address of the Docker Engine, and the certificates for TLS.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::uri::Authority;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{
    document::Document,
    network::{PEM_BYTES_MAX, read_ca},
};
use crate::blocking::read_file;

const UNIX: &str = "unix://";
const TCP: &str = "tcp://";
const SSH: &str = "ssh://";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Docker's ports without and with TLS.
const PORTS: [u16; 2] = [2375, 2376];

const HOST: &str = "/docker/host";
const CERT_PATH: &str = "/docker/cert_path";
pub(super) const MANAGERS: &str = "/swarm/managers";
const SWARM_CERT_PATH: &str = "/swarm/cert_path";
const CONTEXT: &str = "DOCKER_CONTEXT";
/// Any value means yes. The first is as strict as the second here.
const TLS: [&str; 2] = ["DOCKER_TLS", "DOCKER_TLS_VERIFY"];
/// Variables of Docker's own commands that are no settings.
pub(super) const DOCKER_VARIABLES: [&str; 3] = [CONTEXT, TLS[0], TLS[1]];

/// Where the Docker Engine is.
#[derive(Clone, Debug)]
pub(crate) enum EngineAddress {
    Unix(PathBuf),
    Tcp {
        /// `HOST:PORT`.
        authority: String,
        /// Without it, the host is this machine.
        tls: Option<Arc<ClientConfig>>,
    },
}

impl Default for EngineAddress {
    fn default() -> Self {
        Self::Unix(DEFAULT_SOCKET.into())
    }
}

impl EngineAddress {
    /// Whether the Engine is on this machine, as far as the address shows.
    pub(crate) fn is_here(&self) -> bool {
        !matches!(self, Self::Tcp { tls: Some(_), .. })
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Tcp { authority, .. } => write!(f, "{TCP}{authority}"),
        }
    }
}

/// How to correct an address.
enum Problem {
    Address(String),
    Certificates(String),
}

impl Document {
    pub(super) fn read_engine(&mut self, env: &dyn Fn(&str) -> Option<String>) -> EngineAddress {
        let host: Option<String> = self.read(HOST);
        let directory: Option<PathBuf> = self.read(CERT_PATH);
        let directory = directory.or_else(|| certificates_of_user(env));
        let Some(host) = host else { return EngineAddress::default() };
        match address(&host, directory.as_deref(), "docker.cert_path (DOCKER_CERT_PATH)") {
            Ok(address) => return address,
            Err(Problem::Address(problem)) => self.error(HOST, problem),
            Err(Problem::Certificates(problem)) => self.error(CERT_PATH, problem),
        }
        EngineAddress::default()
    }

    /// The addresses of the Swarm's managers: without any, the Engine itself is one.
    pub(super) fn read_managers(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
        engine: &EngineAddress,
    ) -> Vec<EngineAddress> {
        let hosts: Vec<String> = self.read(MANAGERS);
        let own: Option<PathBuf> = self.read(SWARM_CERT_PATH);
        let directory = own.clone().or_else(|| self.read(CERT_PATH));
        let directory = directory.or_else(|| certificates_of_user(env));
        if hosts.is_empty() {
            return vec![engine.clone()];
        }
        let mut managers = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            match address(host, directory.as_deref(), "swarm.cert_path") {
                Ok(address) => managers.push(address),
                Err(Problem::Address(problem)) => {
                    self.error(&format!("{MANAGERS}/{index}"), problem);
                }
                Err(Problem::Certificates(problem)) => {
                    let setting = if own.is_some() { SWARM_CERT_PATH } else { CERT_PATH };
                    self.error(setting, problem);
                    break;
                }
            }
        }
        managers
    }

    /// Where Docker's own commands would use another Engine, or TLS.
    pub(super) fn check_docker_variables(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        if self.get(HOST).is_some() {
            return;
        }
        let tls = "TLS needs the Engine's address: set docker.host (DOCKER_HOST) to \
                   tcp://HOST:PORT; or remove this";
        if self.get(CERT_PATH).is_some() {
            self.error(CERT_PATH, tls);
        } else if let Some(name) = TLS.into_iter().find(|name| is_set(env, name)) {
            self.error_in(name.to_owned(), tls.to_owned());
        }
        if is_set(env, CONTEXT) && env(CONTEXT).as_deref() != Some("default") {
            let problem = "contexts are not read: set DOCKER_HOST to the address that `docker \
                           context inspect` prints and, for TLS, DOCKER_CERT_PATH; or unset this";
            self.error_in(CONTEXT.to_owned(), problem.to_owned());
        }
    }
}

/// Where Docker's own commands look if no directory is set.
fn certificates_of_user(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = || Path::new(&env("HOME").unwrap_or_default()).join(".docker");
    TLS.iter().any(|name| is_set(env, name)).then(home)
}

fn is_set(env: &dyn Fn(&str) -> Option<String>, name: &str) -> bool {
    env(name).is_some_and(|value| !value.is_empty())
}

/// `certificates`: a directory, without which there is no TLS.
/// `setting` is where to name the directory.
fn address(
    host: &str,
    certificates: Option<&Path>,
    setting: &str,
) -> Result<EngineAddress, Problem> {
    if let Some(path) = host.strip_prefix(UNIX).filter(|path| is_file_path(path)) {
        return Ok(EngineAddress::Unix(path.into()));
    }
    if host.starts_with(SSH) {
        let problem = format!("ssh:// is not supported: {}", forward_socket("USER@HOST"));
        return Err(Problem::Address(problem));
    }
    let authority = host.strip_prefix(TCP).map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let authority: Option<Authority> = authority.and_then(|text| text.parse().ok());
    let Some(authority) = authority.filter(is_host_and_port) else {
        let problem = "write unix:///path/to/docker.sock or tcp://HOST:PORT".to_owned();
        return Err(Problem::Address(problem));
    };
    let host = authority.host();
    let tls = match certificates {
        Some(directory) => Some(tls(directory).map_err(Problem::Certificates)?),
        None if is_loopback(host) => None,
        None => {
            let problem = format!(
                "without TLS, everyone on the network between could take over {host}: set \
                 {setting}; or {}",
                forward_socket(host),
            );
            return Err(Problem::Address(problem));
        }
    };
    let port = authority.port_u16().unwrap_or(PORTS[usize::from(tls.is_some())]);
    Ok(EngineAddress::Tcp { authority: format!("{host}:{port}"), tls })
}

fn forward_socket(host: &str) -> String {
    format!(
        "forward the Engine's socket with `ssh -NL /PATH/docker.sock:{DEFAULT_SOCKET} {host}`, \
         and write unix:///PATH/docker.sock"
    )
}

fn is_file_path(path: &str) -> bool {
    path.starts_with('/') && path.len() > 1
}

fn is_host_and_port(authority: &Authority) -> bool {
    let (text, host) = (authority.as_str(), authority.host());
    // Without a port, or with one that is a number.
    let port = text.len() == host.len() || authority.port_u16().is_some();
    !host.is_empty() && port && !text.contains('@')
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

/// Trusts `ca.pem` alone, as Docker's own commands do.
fn tls(directory: &Path) -> Result<Arc<ClientConfig>, String> {
    let [ca, certificate, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| directory.join(name));
    let unusable =
        |file: &Path, problem: &dyn fmt::Display| format!("{}: {problem}", file.display());
    let mut roots = RootCertStore::empty();
    let authorities = read_ca(&ca).map_err(|problem| unusable(&ca, &problem))?;
    roots.add_parsable_certificates(authorities);
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    // An Engine without `--tlsverify` asks for no certificate.
    if is_absent(&certificate) && is_absent(&key) {
        return Ok(Arc::new(config.with_no_client_auth()));
    }
    let read = |file: &Path| read_file(file, PEM_BYTES_MAX).map_err(|it| unusable(file, &it));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&certificate, &error))?;
    let secret =
        PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|error| unusable(&key, &error))?;
    let config = config.with_client_auth_cert(chain, secret);
    config.map(Arc::new).map_err(|error| unusable(&certificate, &error))
}

fn is_absent(file: &Path) -> bool {
    fs::metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn address_of(host: &str) -> String {
        match address(host, None, "docker.cert_path (DOCKER_CERT_PATH)") {
            Ok(address) => address.to_string(),
            Err(Problem::Address(problem)) => format!("{HOST}: {problem}"),
            Err(Problem::Certificates(problem)) => format!("{CERT_PATH}: {problem}"),
        }
    }

    #[test]
    fn an_engine_is_on_this_machine_or_behind_tls() {
        for (host, expected) in [
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://127.0.0.1", "tcp://127.0.0.1:2375"),
            ("tcp://[::1]:4243/", "tcp://[::1]:4243"),
            ("tcp://localhost:2375", "tcp://localhost:2375"),
        ] {
            assert_eq!(address_of(host), expected);
        }
        for host in ["tcp://10.0.0.1:2375", "tcp://docker", "tcp://127.0.0.1.example.com:2375"] {
            let problem = address_of(host);
            assert!(problem.contains("set docker.cert_path (DOCKER_CERT_PATH)"), "{problem}");
        }
        let problem = address_of("ssh://ci@build-1");
        assert!(problem.contains("ssh:// is not supported: forward"), "{problem}");
        assert!(problem.contains("/var/run/docker.sock USER@HOST`"), "{problem}");
        for host in [
            "unix://",
            "unix://run.sock",
            "unix:///",
            "tcp://",
            "tcp://:2375",
            "tcp://a:b",
            "tcp://u@127.0.0.1:1",
            "tcp://127.0.0.1:2375/x",
            "https://127.0.0.1",
            "npipe:////./x",
            "/run/docker.sock",
            "127.0.0.1:2375",
        ] {
            let problem = address_of(host);
            let expected = "write unix:///path/to/docker.sock or tcp://HOST:PORT";
            assert_eq!(problem, format!("/docker/host: {expected}"), "{host}");
        }
    }

    fn problems(variables: &[(&str, &str)]) -> String {
        let env = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let loaded = Config::load_to_serve(None, &env);
        loaded.map(drop).err().map(|errors| errors.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_context_is_refused_unless_the_address_overrides_it() {
        let token = ("GITHUB_TOKEN", "token");
        let refused = problems(&[token, ("DOCKER_CONTEXT", "build-1")]);
        assert!(refused.starts_with("DOCKER_CONTEXT: contexts are not read: set"), "{refused}");
        assert_eq!(problems(&[token, ("DOCKER_CONTEXT", "default")]), "");
        let host = ("DOCKER_HOST", "unix:///run/docker.sock");
        assert_eq!(problems(&[token, ("DOCKER_CONTEXT", "build-1"), host]), "");
    }

    #[test]
    fn tls_without_an_address_is_refused() {
        let token = ("GITHUB_TOKEN", "token");
        for variable in ["DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH"] {
            let refused = problems(&[token, (variable, "1")]);
            let expected = format!("{variable}: TLS needs the Engine's address: set docker.host");
            assert!(refused.starts_with(&expected), "{refused}");
            assert_eq!(problems(&[token, (variable, "")]), "");
            let host = ("DOCKER_HOST", "unix:///run/docker.sock");
            assert_eq!(problems(&[token, (variable, "1"), host]), "");
        }
    }

    #[test]
    fn files_for_tls_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let tls = || {
            let cert_path = directory.path().to_str().unwrap();
            let host = ("DOCKER_HOST", "tcp://docker.example.com");
            problems(&[("GITHUB_TOKEN", "token"), host, ("DOCKER_CERT_PATH", cert_path)])
        };
        let expect = |file: &str, problem: &str| {
            let expected = format!("DOCKER_CERT_PATH: {}: {problem}", path(file).display());
            let found = tls();
            assert!(found.starts_with(&expected), "{found}");
        };
        expect("ca.pem", "cannot read that file");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        fs::write(path("ca.pem"), &certificate).unwrap();
        assert_eq!(tls(), "");
        fs::write(path("cert.pem"), certificate).unwrap();
        expect("key.pem", "");
        fs::write(path("key.pem"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        expect("cert.pem", "");
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        assert_eq!(tls(), "");
    }
}

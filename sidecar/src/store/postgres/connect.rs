//! Connections to the server: its hosts, the password, time limits, and what each session needs.

use std::{error, fmt, io, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use secrecy::ExposeSecret as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, SimpleQueryMessage, Socket,
    config::{Host, SslMode as Encryption},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::{
    config::{Database, DatabaseUrl},
    secret::{ReadError, SecretFile},
    store::error::OpenError,
};

/// The schema that has all tables, so that a database may be shared.
pub(super) const SCHEMA: &str = "edgerunner";
const VERSION_MIN: u32 = 130_000;

/// For all hosts together, unless they are many.
const LIMIT: Duration = Duration::from_secs(4);
const HOST_LIMIT_MIN: Duration = Duration::from_secs(1);
/// After which the system gives up a connection whose other end does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What holds in every session, whatever the server, the database and the user have as defaults. A
/// sidecar that stops in the middle of a transaction must not hold up the others.
const SESSION: &str = "
SET search_path = edgerunner;
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
SET idle_in_transaction_session_timeout = '2s';
SET statement_timeout = '4s';
SET lock_timeout = '3s';
SET tcp_user_timeout = '5s';
SET tcp_keepalives_idle = '10s';
SELECT current_setting('server_version_num'), current_setting('server_version'),
    pg_is_in_recovery(), current_setting('transaction_read_only'),
    current_setting('server_encoding');
";

/// Connects to the server, again whenever it is called. Cheap to clone.
#[derive(Clone)]
pub(in crate::store) struct Connector(Arc<Inner>);

struct Inner {
    hosts: Vec<Config>,
    tls: Option<MakeRustlsConnect>,
    password: Option<SecretFile>,
}

/// Resolves with the reason when the connection has ended.
pub(super) type Lost = oneshot::Receiver<String>;

/// The payloads of notifications, if the session listens. Ends with the connection.
pub(super) type Notified = mpsc::UnboundedReceiver<String>;

/// Why there is no connection. The message says what to do about it.
#[derive(Debug)]
pub(in crate::store) struct ConnectError {
    message: String,
    is_passing: bool,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for ConnectError {}

impl ConnectError {
    /// The same error would come again.
    pub(super) fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: false }
    }

    pub(super) fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: true }
    }

    pub(in crate::store) fn about(self, url: &DatabaseUrl) -> OpenError {
        match self.is_passing {
            true => OpenError::unreachable(url, self.message),
            false => OpenError::new(url, self.message),
        }
    }
}

impl Connector {
    pub(super) fn new(Database { url, password_file, ca }: &Database) -> Result<Self, String> {
        let tls = tls::connector(url.ssl_mode, ca)?;
        let password = password_file.as_deref().map(SecretFile::new);
        Ok(Self(Arc::new(Inner { hosts: url.hosts.clone(), tls, password })))
    }

    /// Connects to the first host that can be written to, and reads the password file again.
    /// `purpose` is shown in the server's list of sessions. The connection lasts as long as the
    /// current runtime and the client. Takes 4 seconds at most, or 1 for each host.
    pub(in crate::store) async fn connect(&self, purpose: &str) -> Result<Client, ConnectError> {
        Ok(self.connect_any(purpose).await?.0)
    }

    /// As `connect`. Also returns when the connection ends, and why.
    pub(super) async fn connect_watched(
        &self,
        purpose: &str,
    ) -> Result<(Client, Lost), ConnectError> {
        let (client, lost, _) = self.connect_any(purpose).await?;
        Ok((client, lost))
    }

    /// A session that receives what sidecars notify each other of, until the client is dropped.
    pub(super) async fn listen(&self) -> Result<(Client, Notified), ConnectError> {
        let (client, _, notified) = self.connect_any("notifications").await?;
        let listening = client.batch_execute("LISTEN edgerunner").await;
        listening.map_err(|error| ConnectError::passing(describe(&error)))?;
        Ok((client, notified))
    }

    async fn connect_any(&self, purpose: &str) -> Result<(Client, Lost, Notified), ConnectError> {
        let Inner { hosts, tls, password } = &*self.0;
        let password = match password {
            Some(file) => Some(file.read().await.map_err(unreadable)?),
            None => None,
        };
        let count = u32::try_from(hosts.len()).unwrap_or(1);
        let limit = (LIMIT / count).max(HOST_LIMIT_MIN);
        let mut errors = Vec::new();
        for host in hosts {
            let mut host = host.clone();
            host.application_name(format!("edgerunner {purpose}").as_str());
            if let Some(password) = &password {
                host.password(password.expose_secret());
            }
            // On the heap, because it is large and everything that reads may connect.
            let connecting = Box::pin(connect_to(&mut host, tls.as_ref(), hosts.len() > 1));
            match timeout(limit, connecting).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => errors.push(error),
                Err(_) => {
                    let late = format!("{}: no answer within {limit:?}", name(&host));
                    errors.push(ConnectError::passing(late));
                }
            }
        }
        let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
        let is_passing = errors.iter().any(|error| error.is_passing);
        Err(ConnectError { message: messages.join("; "), is_passing })
    }
}

fn unreadable(error: ReadError) -> ConnectError {
    match error {
        ReadError::Late(problem) => {
            ConnectError::passing(format!("store.password_file: {problem}"))
        }
        ReadError::Unusable(problem) => {
            ConnectError::lasting(format!("store.password_file: {problem}"))
        }
    }
}

/// `HOST:PORT` or the directory of a socket.
fn name(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or_default();
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => format!("{host}:{port}"),
        Some(Host::Unix(directory)) => format!("{}/.s.PGSQL.{port}", directory.display()),
        None => String::new(),
    }
}

async fn connect_to(
    config: &mut Config,
    tls: Option<&MakeRustlsConnect>,
    has_others: bool,
) -> Result<(Client, Lost, Notified), ConnectError> {
    config
        .tcp_user_timeout(SILENCE_MAX)
        .keepalives_idle(SILENCE_MAX)
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(2);
    let is_socket = matches!(config.get_hosts(), [Host::Unix(_)]);
    let connected = match tls.filter(|_| !is_socket) {
        Some(tls) => {
            let connecting = config.ssl_mode(Encryption::Require).connect(tls.clone());
            connecting.await.map(|(client, connection)| (client, watch(connection)))
        }
        None => {
            let connecting = config.ssl_mode(Encryption::Disable).connect(NoTls);
            connecting.await.map(|(client, connection)| (client, watch(connection)))
        }
    };
    let failed = |error: &tokio_postgres::Error| {
        let ConnectError { message, is_passing } = connect_error(error, config);
        ConnectError { message: format!("{}: {message}", name(config)), is_passing }
    };
    let (client, (lost, notified)) = connected.map_err(|error| failed(&error))?;
    let answers = client.simple_query(SESSION).await.map_err(|error| failed(&error))?;
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let field = |index| row.and_then(|row| row.get(index)).unwrap_or_default();
    if field(0).parse().is_ok_and(|version: u32| version < VERSION_MIN) {
        let message =
            format!("{}: Postgres {} is too old: 13 or later is needed", name(config), field(1));
        return Err(ConnectError::lasting(message));
    }
    if field(2) == "t" {
        let message = format!(
            "{}: this server is a standby, which is read-only: write the primary's host in \
             store.url, or all hosts with commas between them",
            name(config)
        );
        // One of several may be promoted.
        return Err(ConnectError { message, is_passing: has_others });
    }
    if field(3) == "on" {
        let message = format!(
            "{}: this session is read-only: remove default_transaction_read_only from the server, \
             the database or the user",
            name(config)
        );
        return Err(ConnectError::lasting(message));
    }
    if field(4) != "UTF8" {
        let message = format!(
            "{}: this database has the encoding {}, which lacks characters: create one with \
             `createdb --template=template0 --encoding=UTF8 NAME`",
            name(config),
            field(4)
        );
        return Err(ConnectError::lasting(message));
    }
    Ok((client, lost, notified))
}

/// Runs a connection on the current runtime.
fn watch<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut connection: Connection<Socket, T>,
) -> (Lost, Notified) {
    let (ended, lost) = oneshot::channel();
    let (notify, notified) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(|context| connection.poll_message(context));
        let reason = loop {
            match messages.next().await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    // Most sessions do not listen, and nobody waits.
                    let _ = notify.send(notification.payload().to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break describe(&error),
                None => break "it was closed".to_owned(),
            }
        };
        // Most connections are not watched.
        let _ = ended.send(reason);
    });
    (lost, notified)
}

/// What is known about an error, in one line. `Display` leaves out what the server said.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let more = [said.detail(), said.hint()].into_iter().flatten();
        return more.fold(said.message().to_owned(), |text, more| format!("{text}; {more}"));
    }
    let mut text = error.to_string();
    let mut source = error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// An error of the network or of the system, not one of TLS.
fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut source = error::Error::source(error);
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return !cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        }
        source = cause.source();
    }
    false
}

/// Whether the same may succeed later: the server cannot be reached, is starting or has no room.
pub(super) fn is_passing(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => [
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
        ]
        .contains(code),
        None => error.is_closed() || is_io(error),
    }
}

fn connect_error(error: &tokio_postgres::Error, config: &Config) -> ConnectError {
    let text = describe(error);
    let user = config.get_user().unwrap_or("the user");
    let lasting = |advice: &str| ConnectError::lasting(format!("{text}: {advice}"));
    if is_passing(error) {
        return ConnectError::passing(text);
    }
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD) => {
            lasting("write the password into the file that store.password_file names")
        }
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) if text.contains("no encryption") => {
            lasting("the server wants TLS: remove sslmode=disable from store.url")
        }
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            lasting("check the user in store.url, and pg_hba.conf of the server")
        }
        Some(&SqlState::INVALID_CATALOG_NAME) => {
            lasting(&format!("create it with `createdb --owner={user} NAME`, or correct store.url"))
        }
        Some(_) => lasting("check store.url and the user's privileges"),
        None if text.contains("password missing") => {
            lasting("the server asks for a password: set store.password_file")
        }
        None if text.contains("does not support TLS") => lasting(
            "turn on TLS there (ssl = on), or write ?sslmode=disable in store.url if nobody else \
             is on the network in between",
        ),
        None if text.contains("certificate") => {
            lasting("check the host in store.url, and set store.ca_file to the CA's certificate")
        }
        None => lasting("check store.url"),
    }
}

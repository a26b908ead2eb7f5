//! The connection to the Docker Engine: opened for each request, so that an Engine that is away
//! is a failed request, whatever the reason, and nothing has to be set up again.

use std::{
    error::Error as StdError,
    fmt::Write as _,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, BollardRequest, Docker as Bollard, errors::Error as BollardError,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use hyperlocal::UnixConnector;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::CALL_LIMIT;
use crate::config::EngineAddress;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub(in crate::provider) struct Connection {
    pub bollard: Bollard,
    url: String,
    fetch: Fetch,
}

/// Sends a request without a body, and returns the status and the body of the response.
type Fetch = Arc<dyn Fn(String) -> Fetched + Send + Sync>;
type Fetched = BoxFuture<'static, Result<(StatusCode, Bytes), BollardError>>;

impl Connection {
    /// The response, whatever it contains.
    pub(super) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Value, BollardError> {
        Ok(serde_json::from_slice(&self.get_bytes(path, query).await?).unwrap_or_default())
    }

    /// The body of a successful response.
    pub(in crate::provider) async fn get_bytes(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Bytes, BollardError> {
        let mut url = format!("{}{path}", self.url);
        for (index, (name, value)) in query.iter().enumerate() {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            let separator = if index == 0 { '?' } else { '&' };
            let _ = write!(url, "{separator}{name}={value}");
        }
        let (status, body) = (self.fetch)(url).await?;
        if status.is_success() {
            return Ok(body);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        Err(BollardError::DockerResponseServerError { status_code: status.as_u16(), message })
    }
}

/// Sends nothing yet.
pub(in crate::provider) fn open(address: &EngineAddress) -> Connection {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_nodelay(true);
    match address {
        EngineAddress::Unix(path) => {
            let path = path.display().to_string();
            client(UnixConnector, address, &format!("unix://{}", hex::encode(path)))
        }
        EngineAddress::Tcp { authority, tls: None } => {
            client(tcp, address, &format!("http://{authority}"))
        }
        EngineAddress::Tcp { authority, tls: Some(tls) } => {
            tcp.enforce_http(false);
            let https = HttpsConnectorBuilder::new().with_tls_config((**tls).clone());
            let https = https.https_only().enable_http1().wrap_connector(tcp);
            client(https, address, &format!("https://{authority}"))
        }
    }
}

/// `url` is what `connector` expects.
fn client<C>(connector: C, address: &EngineAddress, url: &str) -> Connection
where
    C: Connect + Clone + Send + Sync + 'static,
{
    // A connection that is kept may have been closed by an Engine that was restarted.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let address = Arc::new(address.clone());
    let send = move |request: BollardRequest| {
        let address = Arc::clone(&address);
        client.request(request).map_err(move |error| failed(&address, &error))
    };
    let plain = send.clone();
    let fetch = move |url: String| {
        let request = Request::get(url).body(bollard::body_full(Bytes::new()));
        let response = request.map(&plain);
        async move {
            let (head, body) = response?.await?.into_parts();
            Ok((head.status, body.collect().await?.to_bytes()))
        }
        .boxed()
    };
    // Requests carry no API version, so that the daemon uses its own newest: old daemons
    // refuse newer versions, new ones older.
    let limit = CALL_LIMIT.as_secs();
    let bollard =
        Bollard::connect_with_custom_transport(send, Some(url), limit, API_DEFAULT_VERSION)
            .unwrap_or_else(|error| unreachable!("it only stores its arguments: {error}"));
    Connection { bollard, url: url.to_owned(), fetch: Arc::new(fetch) }
}

/// An error that says what to do.
fn failed(address: &EngineAddress, error: &hyper_util::client::legacy::Error) -> BollardError {
    let cause = innermost(error);
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    let text = match (address, kind) {
        _ if !error.is_connect() && !is_tls(address) => {
            format!("{cause}: Docker Engine ended the connection; check its log")
        }
        (EngineAddress::Unix(path), kind) => no_socket(path, kind, cause),
        (EngineAddress::Tcp { tls: None, .. }, _) => {
            format!("{cause}: start Docker Engine at {address}, or correct docker.host")
        }
        (EngineAddress::Tcp { tls: Some(_), .. }, _) => format!(
            "{cause}: start Docker Engine at {address} with TLS, or correct docker.host and the \
             files in docker.cert_path"
        ),
    };
    BollardError::IOError { err: io::Error::new(kind.unwrap_or(io::ErrorKind::Other), text) }
}

fn no_socket(path: &Path, kind: Option<io::ErrorKind>, cause: &(dyn StdError + 'static)) -> String {
    let shown = path.display();
    let metadata = fs::metadata(path).ok();
    match kind {
        Some(io::ErrorKind::NotFound) => {
            format!("no socket at {shown}: start Docker Engine, or correct docker.host")
        }
        Some(io::ErrorKind::PermissionDenied) => {
            let group = metadata.map(|it| format!(", id {}", it.gid())).unwrap_or_default();
            format!(
                "permission denied at {shown}: add this user to the group of that socket \
                 (docker{group}), then start edgerunner again"
            )
        }
        _ if metadata.is_some_and(|it| !it.file_type().is_socket()) => format!(
            "{shown} is not a socket: remove it, start Docker Engine, and mount its socket again \
             if edgerunner runs in a container"
        ),
        _ => format!("{cause} at {shown}: start Docker Engine"),
    }
}

fn is_tls(address: &EngineAddress) -> bool {
    matches!(address, EngineAddress::Tcp { tls: Some(_), .. })
}

/// The outer errors say little; the innermost names what failed.
pub(in crate::provider) fn innermost<'a>(
    error: &'a (dyn StdError + 'static),
) -> &'a (dyn StdError + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

#[cfg(test)]
mod tests;

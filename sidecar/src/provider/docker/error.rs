use bollard::errors::Error as Bollard;

/// Why a call failed, as far as the caller may decide on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    DaemonUnreachable,
    ImageMissing,
    PullFailed,
    /// A container of this installation has the name.
    NameTaken,
    NoSuchContainer,
    /// Docker understood and refuses; asking again changes nothing.
    Invalid,
    Other,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub cause: Cause,
    /// One line: the call, what came back, what to do.
    pub message: String,
}

impl Error {
    pub(super) fn new(cause: Cause, call: &str, what: impl std::fmt::Display) -> Self {
        let message = format!("Docker: {call}: {what}").replace(['\n', '\r'], " ");
        Self { cause, message }
    }

    pub(super) fn from_bollard(call: &str, error: &Bollard) -> Self {
        match error {
            Bollard::DockerResponseServerError { status_code, message } => {
                Self::from_answer(call, *status_code, message)
            }
            Bollard::UnsupportedURISchemeError { uri } => Self::new(
                Cause::Invalid,
                call,
                format_args!(
                    "`{uri}` is not supported: write unix:///path/to/docker.sock or tcp://host:port"
                ),
            ),
            Bollard::SocketNotFoundError(path) => Self::new(
                Cause::DaemonUnreachable,
                call,
                format_args!("no socket at {path}: start Docker Engine or set docker.host"),
            ),
            Bollard::RequestTimeoutError => Self::new(
                Cause::DaemonUnreachable,
                call,
                "no answer in time: Docker Engine hangs or is overloaded",
            ),
            Bollard::HyperLegacyError { .. }
            | Bollard::HyperResponseError { .. }
            | Bollard::IOError { .. } => Self::new(
                Cause::DaemonUnreachable,
                call,
                format_args!(
                    "{}: start Docker Engine, and let this user use its socket (group docker)",
                    innermost(error),
                ),
            ),
            other => Self::new(Cause::Other, call, innermost(other)),
        }
    }

    fn from_answer(call: &str, status: u16, message: &str) -> Self {
        let message = message.trim();
        let lower = message.to_ascii_lowercase();
        match status {
            404 if lower.contains("no such container") => {
                Self::new(Cause::NoSuchContainer, call, "the container is gone")
            }
            404 if lower.contains("image") => Self::new(
                Cause::ImageMissing,
                call,
                format_args!("{message}; pull it, or set pull_policy = \"missing\""),
            ),
            400 | 404 => Self::new(
                Cause::Invalid,
                call,
                format_args!("{message}; correct the pool's container settings"),
            ),
            _ => Self::new(Cause::Other, call, format_args!("{status} {message}")),
        }
    }
}

/// The wrappers' own texts say little; the innermost cause names what failed.
fn innermost(error: &Bollard) -> String {
    let error: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

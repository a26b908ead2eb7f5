//! Converts Docker's errors to errors of a provider.

use bollard::errors::Error as Bollard;

use super::connection::innermost;
use crate::provider::error::{Error, ErrorKind};

pub(super) fn error(kind: ErrorKind, call: &str, what: impl std::fmt::Display) -> Error {
    let message = format!("Docker: {call}: {what}").replace(['\n', '\r'], " ");
    Error { kind, message }
}

pub(super) fn from_bollard(call: &str, cause: &Bollard) -> Error {
    match cause {
        Bollard::DockerResponseServerError { status_code, message } => {
            from_response(call, *status_code, message)
        }
        Bollard::RequestTimeoutError => no_answer(call),
        Bollard::HyperLegacyError { .. }
        | Bollard::HyperResponseError { .. }
        | Bollard::IOError { .. } => error(ErrorKind::Unavailable, call, innermost(cause)),
        other => error(ErrorKind::Refused, call, innermost(other)),
    }
}

pub(super) fn no_answer(call: &str) -> Error {
    error(ErrorKind::Unavailable, call, "no answer in time: Docker Engine hangs or is overloaded")
}

fn from_response(call: &str, status: u16, message: &str) -> Error {
    let message = message.trim();
    let lower = message.to_ascii_lowercase();
    match status {
        404 if lower.contains("no such container") => {
            error(ErrorKind::Gone, call, "the container no longer exists")
        }
        404 if lower.contains("image") => error(
            ErrorKind::Image,
            call,
            format_args!("{message}; pull it, or set pull_policy = \"missing\""),
        ),
        400 if lower.contains("https server") => error(
            ErrorKind::Unavailable,
            call,
            "the Engine expects TLS: set docker.cert_path (DOCKER_CERT_PATH)",
        ),
        400 | 404 => error(
            ErrorKind::Refused,
            call,
            format_args!("{message}; correct the pool's container settings"),
        ),
        _ => error(ErrorKind::Refused, call, format_args!("{status} {message}")),
    }
}

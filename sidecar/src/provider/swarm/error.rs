//! Converts the errors of a Swarm's managers to errors of a provider.

use bollard::errors::Error as Bollard;

use crate::provider::{
    docker::connection::innermost,
    error::{Error, ErrorKind},
};

pub(super) fn error(kind: ErrorKind, call: &str, what: impl std::fmt::Display) -> Error {
    let message = format!("Docker Swarm: {call}: {what}").replace(['\n', '\r'], " ");
    Error { kind, message }
}

pub(super) fn no_answer(call: &str) -> Error {
    error(ErrorKind::Unavailable, call, "no answer in time: the manager hangs or has no quorum")
}

pub(super) fn from_bollard(call: &str, cause: &Bollard) -> Error {
    match cause {
        Bollard::DockerResponseServerError { status_code, message } => {
            from_response(call, *status_code, message.trim())
        }
        Bollard::RequestTimeoutError => no_answer(call),
        Bollard::HyperLegacyError { .. }
        | Bollard::HyperResponseError { .. }
        | Bollard::IOError { .. } => error(ErrorKind::Unavailable, call, innermost(cause)),
        other => error(ErrorKind::Refused, call, innermost(other)),
    }
}

fn from_response(call: &str, status: u16, message: &str) -> Error {
    // As moby and swarmkit word them.
    let lower = message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    if says(&["not a swarm manager", "not part of a swarm"]) {
        let what = format_args!(
            "{message} Name managers in swarm.managers; `docker swarm init` makes this machine one"
        );
        return error(ErrorKind::Unavailable, call, what);
    }
    let no_leader =
        ["does not have a leader", "raft:", "deadlineexceeded", "deadline exceeded", "unavailable"];
    if says(&no_leader) {
        let what =
            format_args!("{message}; more than half of the managers must run and reach each other");
        return error(ErrorKind::Unavailable, call, what);
    }
    match status {
        404 => error(ErrorKind::Gone, call, message),
        503 => error(ErrorKind::Unavailable, call, message),
        // Docker refuses what it cannot read, such as a constraint.
        400 if call.starts_with("create service") => {
            let what = format_args!("{message}; correct the pool's settings");
            error(ErrorKind::Refused, call, what)
        }
        _ => error(ErrorKind::Refused, call, format_args!("{status} {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whether_another_manager_may_answer() {
        for (status, message, expected) in [
            (
                503,
                "This node is not a swarm manager. Use \"docker swarm init\"…",
                ErrorKind::Unavailable,
            ),
            (
                500,
                "rpc error: code = Unknown desc = The swarm does not have a leader.",
                ErrorKind::Unavailable,
            ),
            (
                500,
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded",
                ErrorKind::Unavailable,
            ),
            (
                500,
                "rpc error: code = Unknown desc = raft: failed to process the request: node lost \
                 leader status",
                ErrorKind::Unavailable,
            ),
            (404, "service edge-1 not found", ErrorKind::Gone),
            (400, "rpc error: code = InvalidArgument desc = constraint", ErrorKind::Refused),
            (409, "rpc error: code = AlreadyExists", ErrorKind::Refused),
        ] {
            assert_eq!(
                from_response("create service", status, message).kind,
                expected,
                "{message}"
            );
        }
    }
}

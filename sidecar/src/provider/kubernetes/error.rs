//! Converts the errors of Kubernetes to errors of a provider.

use std::fmt::Display;

use kube::core::Status;

use crate::provider::{
    docker::connection::innermost,
    error::{Error, ErrorKind},
};

pub(super) fn error(kind: ErrorKind, call: &str, what: impl Display) -> Error {
    let message = format!("Kubernetes: {call}: {what}").replace(['\n', '\r'], " ");
    Error { kind, message }
}

pub(super) fn no_answer(call: &str) -> Error {
    error(ErrorKind::Unavailable, call, "the API server does not answer in time")
}

pub(super) fn from_kube(call: &str, cause: &kube::Error) -> Error {
    match cause {
        kube::Error::Api(status) => from_status(call, status),
        // Never with the response itself, which may hold secrets.
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => error(
            ErrorKind::Unavailable,
            call,
            "the response is none of Kubernetes: is there a proxy or another server at the address \
             of the API server?",
        ),
        other => error(ErrorKind::Unavailable, call, innermost(other)),
    }
}

/// Whether the namespace has a quota that is used up. It frees up when other pods end.
pub(super) fn is_quota(status: &Status) -> bool {
    status.code == 403 && status.message.contains("exceeded quota")
}

fn from_status(call: &str, status: &Status) -> Error {
    let message = status.message.trim();
    let (kind, advice) = match status.code {
        401 => (
            ErrorKind::Unavailable,
            "; the API server does not accept the credentials: check kubernetes.kubeconfig, or the \
             service account of the sidecar's pod",
        ),
        // As the authorizer words it; admission says other things with the same code.
        403 if message.contains("cannot") && message.contains("in API group") => (
            ErrorKind::Unavailable,
            "; apply packaging/kubernetes/runners.yaml, and run `edgerunner doctor`",
        ),
        403 if message.contains("is being terminated") => (ErrorKind::Unavailable, ""),
        404 if message.contains("namespaces") => {
            (ErrorKind::Unavailable, "; create it, or correct kubernetes.namespace")
        }
        404 | 410 => (ErrorKind::Gone, ""),
        400 | 403 | 422 if call.starts_with("create pod") => {
            (ErrorKind::Refused, "; correct the pool's settings or its pod_template")
        }
        429 | 500.. => (ErrorKind::Unavailable, ""),
        _ => (ErrorKind::Refused, ""),
    };
    let message = if message.is_empty() { &status.reason } else { message };
    error(kind, call, format_args!("{} {message}{advice}", status.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_about_the_pod_or_about_the_cluster() {
        for (code, message, expected) in [
            (401, "Unauthorized", ErrorKind::Unavailable),
            (
                403,
                "pods is forbidden: User \"system:serviceaccount:ci:edgerunner\" cannot create \
                 resource \"pods\" in API group \"\" in the namespace \"ci\"",
                ErrorKind::Unavailable,
            ),
            (
                403,
                "pods \"edge-1\" is forbidden: violates PodSecurity \"restricted:latest\": \
                 privileged (container \"dind\" must not set securityContext.privileged=true)",
                ErrorKind::Refused,
            ),
            (403, "admission webhook \"policy\" denied the request: no", ErrorKind::Refused),
            (404, "namespaces \"runners\" not found", ErrorKind::Unavailable),
            (404, "pods \"edge-1\" not found", ErrorKind::Gone),
            (422, "Pod \"edge-1\" is invalid: spec.volumes[0]", ErrorKind::Refused),
            (429, "too many requests", ErrorKind::Unavailable),
            (500, "etcdserver: leader changed", ErrorKind::Unavailable),
            (503, "apiserver is shutting down", ErrorKind::Unavailable),
        ] {
            let status = Status::failure(message, "").with_code(code).boxed();
            let found = from_kube("create pod edge-1", &kube::Error::Api(status));
            assert_eq!(found.kind, expected, "{message}");
            assert!(found.message.contains(message), "{}", found.message);
        }
    }

    #[test]
    fn a_response_that_cannot_be_read_is_not_shown() {
        let cause = serde_json::from_str::<u8>("\"s3cret\"").unwrap_err();
        let found = from_kube("read a secret", &kube::Error::SerdeError(cause));
        assert!(!found.message.contains("s3cret"), "{}", found.message);
    }
}

//! Authorization: who may make changes through the HTTP API.

use axum::http::{HeaderMap, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// `server.api_token`, if it is set.
#[derive(Clone)]
pub(crate) struct Authorization(Option<SecretString>);

impl Authorization {
    pub(crate) fn new(token: Option<SecretString>) -> Self {
        Self(token)
    }

    /// Checks that the request carries the token. The error is the status and the message to
    /// answer with.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let Some(token) = &self.0 else {
            let message = "the API is read-only: to allow changes, set server.api_token, \
                           SERVER_API_TOKEN or SERVER_API_TOKEN_FILE and restart the sidecar";
            return Err((StatusCode::FORBIDDEN, message));
        };
        let sent = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
            .map(|(_, token)| token);
        // In constant time, so that timing reveals nothing about the token.
        let matches = |sent: &[u8]| sent.ct_eq(token.expose_secret().as_bytes()).into();
        let message = match sent {
            Some(sent) if matches(sent) => return Ok(()),
            Some(_) => "the token is not the value of server.api_token",
            None => "send the header `Authorization: Bearer` with the value of server.api_token",
        };
        Err((StatusCode::UNAUTHORIZED, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_token_is_accepted() {
        let check = |token: Option<&str>, value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            }
            let checked = Authorization::new(token.map(Into::into)).check(&headers);
            checked.map_or_else(|(status, _)| status.as_u16(), |()| 200)
        };
        assert_eq!(check(Some("s3cret"), Some("Bearer s3cret")), 200);
        assert_eq!(check(Some("s3cret"), Some("bearer s3cret")), 200);
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "s3cret", "Basic s3cret", ""] {
            assert_eq!(check(Some("s3cret"), Some(wrong)), 401, "{wrong}");
        }
        assert_eq!(check(Some("s3cret"), None), 401);
        assert_eq!(check(None, Some("Bearer ")), 403);
    }
}

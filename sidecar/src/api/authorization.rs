//! Who may change something through the HTTP API.

use axum::http::{HeaderMap, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// `server.api_token`, if there is one.
#[derive(Clone)]
pub(crate) struct Authorization(Option<SecretString>);

impl Authorization {
    pub(crate) fn new(token: Option<SecretString>) -> Self {
        Self(token)
    }

    /// Whether the request bears the token; why not, if not.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let Some(token) = &self.0 else {
            let message = "nothing can be changed through the API: set server.api_token, \
                           SERVER_API_TOKEN or SERVER_API_TOKEN_FILE, and start the sidecar anew";
            return Err((StatusCode::FORBIDDEN, message));
        };
        let borne = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
            .map(|(_, token)| token);
        // In a time that does not tell how much of it is right.
        let right = |borne: &[u8]| borne.ct_eq(token.expose_secret().as_bytes()).into();
        match borne {
            Some(borne) if right(borne) => Ok(()),
            Some(_) => Err((StatusCode::UNAUTHORIZED, "that is not the value of server.api_token")),
            None => {
                Err((StatusCode::UNAUTHORIZED, "send `Authorization: Bearer` and server.api_token"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_let_in() {
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

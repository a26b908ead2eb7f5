//! The JSON Web Token with which a runner asks for an access token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
    RsaEncoding,
};
use serde::{Deserialize, Serialize};

use crate::keys::{KeyError, RsaParams};

const LIFETIME: SignedDuration = SignedDuration::from_mins(5);
/// How far the clocks of runner and server may differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The padding of the signature. Runners with `requireFipsCryptography` use PSS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Padding {
    Pkcs1,
    Pss,
}

#[derive(Deserialize, Serialize)]
struct Header {
    alg: String,
    typ: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    exp: i64,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the token cannot be signed")]
    Signature,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("the client assertion is not a JSON Web Token")]
    Malformed,
    #[error("`alg` must be RS256 or PS256")]
    Algorithm,
    #[error("the signature does not match the runner's key")]
    Signature,
    #[error("`iss` and `sub` must be the client id")]
    Client,
    #[error("`aud` must be the authorization URL, {0}")]
    Audience(String),
    #[error("`exp` is past or `nbf` is to come. Current server time is {0}")]
    Time(Timestamp),
}

pub(crate) fn sign(
    key: &RsaParams,
    padding: Padding,
    client_id: &str,
    audience: &str,
) -> Result<String, SignError> {
    let (alg, encoding): (_, &'static dyn RsaEncoding) = match padding {
        Padding::Pkcs1 => ("RS256", &RSA_PKCS1_SHA256),
        Padding::Pss => ("PS256", &RSA_PSS_SHA256),
    };
    let header = Header { alg: alg.to_owned(), typ: Some("JWT".to_owned()) };
    let now = Timestamp::now();
    let claims = Claims {
        iss: client_id.to_owned(),
        sub: client_id.to_owned(),
        aud: Audience::One(audience.to_owned()),
        jti: Some(uuid::Uuid::new_v4().to_string()),
        nbf: Some(now.as_second()),
        exp: (now + LIFETIME).as_second(),
    };
    let encode = |json: Vec<u8>| BASE64.encode(json);
    let message = format!(
        "{}.{}",
        encode(serde_json::to_vec(&header)?),
        encode(serde_json::to_vec(&claims)?)
    );
    let key = key.key_pair()?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .map_err(|_| SignError::Signature)?;
    Ok(format!("{message}.{}", BASE64.encode(signature)))
}

/// The client that the token claims to be from, which says whose key must have signed it.
pub(crate) fn client_of(token: &str) -> Option<String> {
    parts(token).ok().map(|(_, claims, _)| claims.iss)
}

pub(crate) fn verify(
    token: &str,
    key: &RsaParams,
    client_id: &str,
    audience: &str,
) -> Result<(), VerifyError> {
    let (header, claims, signature) = parts(token)?;
    if !["RS256", "PS256"].contains(&&*header.alg) {
        return Err(VerifyError::Algorithm);
    }
    let message = token.rsplit_once('.').map_or("", |(message, _)| message).as_bytes();
    // Older runners pad with PSS and say RS256.
    let signed = [&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256]
        .into_iter()
        .any(|algorithm| key.verify(algorithm, message, &signature).is_ok());
    if !signed {
        return Err(VerifyError::Signature);
    }
    if claims.iss != client_id || claims.sub != client_id {
        return Err(VerifyError::Client);
    }
    let meant = match &claims.aud {
        Audience::One(one) => one == audience,
        Audience::Several(several) => several.iter().any(|one| one == audience),
    };
    if !meant {
        return Err(VerifyError::Audience(audience.to_owned()));
    }
    let now = Timestamp::now();
    let begun = claims.nbf.is_none_or(|nbf| nbf <= (now + CLOCK_SKEW).as_second());
    if !begun || claims.exp < (now - CLOCK_SKEW).as_second() {
        return Err(VerifyError::Time(now));
    }
    Ok(())
}

fn parts(token: &str) -> Result<(Header, Claims, Vec<u8>), VerifyError> {
    let mut parts = token.split('.').map(|part| BASE64.decode(part));
    let mut next = || parts.next()?.ok();
    let (Some(header), Some(claims), Some(signature)) = (next(), next(), next()) else {
        return Err(VerifyError::Malformed);
    };
    let header = serde_json::from_slice(&header).map_err(|_| VerifyError::Malformed)?;
    let claims = serde_json::from_slice(&claims).map_err(|_| VerifyError::Malformed)?;
    Ok((header, claims, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key_for;

    const AUDIENCE: &str = "http://127.0.0.1:1/token";

    #[test]
    fn both_paddings_are_accepted() {
        for padding in [Padding::Pkcs1, Padding::Pss] {
            let token = sign(key_for(1), padding, "one", AUDIENCE).expect("a token");
            assert_eq!(client_of(&token).as_deref(), Some("one"));
            verify(&token, key_for(1), "one", AUDIENCE).expect("a valid token");
        }
    }

    #[test]
    fn a_token_of_somebody_else_or_for_somebody_else_is_rejected() {
        let token = sign(key_for(1), Padding::Pkcs1, "one", AUDIENCE).expect("a token");
        let rejected = |key, client, audience| {
            verify(&token, key_for(key), client, audience).expect_err("it is rejected")
        };
        assert!(matches!(rejected(2, "one", AUDIENCE), VerifyError::Signature));
        assert!(matches!(rejected(1, "two", AUDIENCE), VerifyError::Client));
        assert!(matches!(rejected(1, "one", "http://elsewhere"), VerifyError::Audience(_)));
        let (message, _) = token.rsplit_once('.').expect("three parts");
        let forged = format!("{message}.{}", BASE64.encode([0; 256]));
        assert!(verify(&forged, key_for(1), "one", AUDIENCE).is_err());
        assert!(matches!(verify("a.b", key_for(1), "one", AUDIENCE), Err(VerifyError::Malformed)));
    }
}

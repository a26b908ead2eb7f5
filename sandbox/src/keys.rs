//! RSA keys for runners. They are made for tests and public, so they protect nothing: making a key
//! for each runner would take seconds in a debug build.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::error::{KeyRejected, Unspecified};
use ring::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use serde::{Deserialize, Serialize};

static TEST_KEYS: LazyLock<Vec<RsaParams>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("test-keys.json")).expect("the file has valid keys")
});

/// A private key in the form of the file `.credentials_rsaparams`: big-endian integers in base64.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RsaParams {
    pub d: String,
    pub dp: String,
    pub dq: String,
    pub exponent: String,
    pub inverse_q: String,
    pub modulus: String,
    pub p: String,
    pub q: String,
}

/// One of the few keys; many runners share it.
pub(crate) fn key_for(runner: u64) -> &'static RsaParams {
    let count = u64::try_from(TEST_KEYS.len()).unwrap_or(1);
    &TEST_KEYS[usize::try_from(runner % count).unwrap_or_default()]
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the RSA parameters are not valid base64")]
    Base64(#[from] base64::DecodeError),
    #[error("the RSA parameters are no usable key: {0}")]
    Rejected(KeyRejected),
}

impl RsaParams {
    pub(crate) fn key_pair(&self) -> Result<KeyPair, KeyError> {
        let number = |text: &String| BASE64.decode(text);
        let components = KeyPairComponents {
            public_key: PublicKeyComponents {
                n: number(&self.modulus)?,
                e: number(&self.exponent)?,
            },
            d: number(&self.d)?,
            p: number(&self.p)?,
            q: number(&self.q)?,
            dP: number(&self.dp)?,
            dQ: number(&self.dq)?,
            qInv: number(&self.inverse_q)?,
        };
        KeyPair::from_components(&components).map_err(KeyError::Rejected)
    }

    pub(crate) fn verify(
        &self,
        algorithm: &'static ring::signature::RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Unspecified> {
        let number = |text: &String| BASE64.decode(text).map_err(|_| Unspecified);
        let key = PublicKeyComponents { n: number(&self.modulus)?, e: number(&self.exponent)? };
        key.verify(algorithm, message, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_valid_and_unlike_the_others() {
        for params in &*TEST_KEYS {
            let key = params.key_pair().expect("a usable key");
            assert_eq!(key.public().modulus_len(), 256);
        }
        let mut moduli: Vec<&String> = TEST_KEYS.iter().map(|params| &params.modulus).collect();
        moduli.sort();
        moduli.dedup();
        assert_eq!(moduli.len(), TEST_KEYS.len());
    }
}

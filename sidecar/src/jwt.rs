//! JSON Web Tokens signed with RS256 by ring, the crypto provider that TLS already links.

use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    crypto::{CryptoProvider, JwkUtils, JwtSigner},
    encode,
    errors::ErrorKind,
    signature::{Error, Signer},
};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

/// jsonwebtoken itself comes with aws-lc or with 40 crates of RustCrypto.
static RING: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match (algorithm, key_pair(key.inner())) {
        (Algorithm::RS256, Some(key)) => Ok(Box::new(RingSigner(key))),
        (Algorithm::RS256, None) => Err(ErrorKind::InvalidKeyFormat.into()),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    verifier_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    jwk_utils: JwkUtils::new_unimplemented(),
};

/// An RSA private key that signs tokens.
pub(crate) struct SigningKey(EncodingKey);

impl SigningKey {
    /// From a PEM of PKCS #1, as GitHub makes it, or PKCS #8. `None` if it holds no usable key.
    pub(crate) fn from_pem(pem: &SecretString) -> Option<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).ok()?;
        let key = key.secret_der();
        key_pair(key).map(|_| Self(EncodingKey::from_rsa_der(key)))
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> Option<SecretString> {
        // Only the first of these calls has an effect.
        let _ = RING.install_default();
        let token = encode(&Header::new(Algorithm::RS256), claims, &self.0);
        token.ok().map(SecretString::from)
    }
}

fn key_pair(der: &[u8]) -> Option<RsaKeyPair> {
    RsaKeyPair::from_der(der).or_else(|_| RsaKeyPair::from_pkcs8(der)).ok()
}

struct RingSigner(RsaKeyPair);

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| Error::new())?;
        Ok(signature)
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::{Value, json};

    use super::*;

    /// Made for tests alone, and the same key as PKCS #8.
    const PKCS_1: &str = include_str!("github/test-app.pem");
    const PKCS_8: &str = include_str!("github/test-app-pkcs8.pem");

    #[test]
    fn a_token_is_signed_with_either_form_of_the_key() {
        for pem in [PKCS_1, PKCS_8] {
            let key = SigningKey::from_pem(&pem.into()).unwrap();
            let token = key.sign(&json!({ "iss": "7" })).unwrap();
            let (message, signature) = token.expose_secret().rsplit_once('.').unwrap();
            let (header, claims) = message.split_once('.').unwrap();
            let read = |part| serde_json::from_slice::<Value>(&BASE64.decode(part).unwrap());
            assert_eq!(read(header).unwrap(), json!({ "typ": "JWT", "alg": "RS256" }));
            assert_eq!(read(claims).unwrap(), json!({ "iss": "7" }));

            let public = key_pair(key.0.inner()).unwrap();
            let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.public());
            let signature = BASE64.decode(signature).unwrap();
            public.verify(message.as_bytes(), &signature).unwrap();
        }
    }

    #[test]
    fn what_is_no_rsa_key_is_refused() {
        let public = "-----BEGIN PUBLIC KEY-----\nMAo=\n-----END PUBLIC KEY-----";
        for pem in ["", "ghp_token", &PKCS_1[..100], public] {
            assert!(SigningKey::from_pem(&pem.into()).is_none(), "{pem}");
        }
    }
}

//! The `X-Hub-Signature-256` header: its syntax, and HMAC-SHA256.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const PREFIX: &[u8] = b"sha256=";
const MAC_BYTES: usize = 32;

/// A well-formed value of the header, not verified yet.
pub(crate) struct Signature([u8; MAC_BYTES]);

impl Signature {
    /// Accepts exactly `sha256=` and 64 hex digits; SHA-1 is not supported.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let mut mac = [0; MAC_BYTES];
        hex::decode_to_slice(value.strip_prefix(PREFIX)?, &mut mac).ok()?;
        Some(Self(mac))
    }
}

/// A webhook secret, kept only as an HMAC that is already keyed with it: deliveries
/// skip the key schedule.
#[derive(Clone)]
pub(crate) struct Secret(Hmac<Sha256>);

impl Secret {
    /// `None` if the secret is empty: anyone could sign with it.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        Hmac::new_from_slice(key).ok().map(Self)
    }
}

// Not derived, so that the secret cannot be printed.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Hashes a body under every secret of a webhook in one pass. There is more than
/// one secret only during a rotation.
pub(crate) struct Verifier(Vec<Hmac<Sha256>>);

impl Verifier {
    pub(crate) fn new(secrets: &[Secret]) -> Self {
        Self(secrets.iter().map(|secret| secret.0.clone()).collect())
    }

    pub(crate) fn update(&mut self, chunk: &[u8]) {
        for mac in &mut self.0 {
            mac.update(chunk);
        }
    }

    /// Position of the secret that made the signature; `None` if no secret did. Comparisons
    /// take constant time, and every secret is compared even after a match.
    pub(crate) fn verify(self, signature: &Signature) -> Option<usize> {
        let mut position = None;
        for (index, mac) in self.0.into_iter().enumerate() {
            let matches = mac.verify_slice(&signature.0).is_ok();
            position = position.or(matches.then_some(index));
        }
        position
    }
}

/// Verifies the example in GitHub's documentation. Run at start, as compiled by Envoy, so that
/// a build that computes wrong hashes does not serve.
#[cfg(any(target_arch = "wasm32", test))]
pub(crate) fn self_test() -> bool {
    const VECTOR: &[u8] =
        b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let (Some(secret), Some(signature)) =
        (Secret::new(b"It's a Secret to Everybody"), Signature::parse(VECTOR))
    else {
        return false;
    };
    let mut verifier = Verifier::new(&[secret]);
    verifier.update(b"Hello, World!");
    verifier.verify(&signature).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn signed_by(key: &[u8], body: &[u8]) -> Signature {
        let mac = Secret::new(key).unwrap().0.chain_update(body);
        Signature(mac.finalize().into_bytes().into())
    }

    #[test]
    fn the_example_of_github_verifies() {
        assert!(self_test());
    }

    #[test]
    fn hex_digits_of_either_case_are_read() {
        for digits in [DIGITS.to_owned(), DIGITS.to_uppercase()] {
            let signature = Signature::parse(format!("sha256={digits}").as_bytes()).unwrap();
            assert_eq!(hex::encode(signature.0), DIGITS);
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let short = &DIGITS[1..];
        for value in [
            String::new(),
            "sha256=".to_owned(),
            DIGITS.to_owned(),
            format!("sha256={short}"),
            format!("sha256={short}g"),
            format!("sha256={DIGITS}0"),
            format!("sha256={DIGITS}00"),
            format!("sha256={DIGITS} "),
            format!("sha256= {DIGITS}"),
            format!("SHA256={DIGITS}"),
            format!("sha1={DIGITS}"),
            format!("sha1={}", &DIGITS[..40]),
            format!("sha256=sha256={DIGITS}"),
            format!("sha256={DIGITS},sha256={DIGITS}"),
            format!("sha256={short}\u{661}"),
        ] {
            assert!(Signature::parse(value.as_bytes()).is_none(), "{value}");
        }
        assert!(Signature::parse(&[b"sha256=".as_slice(), &[0xff; 64]].concat()).is_none());
    }

    #[test]
    fn each_secret_is_tried_and_its_position_returned() {
        let secrets = [b"new".as_slice(), b"old", b"oldest"].map(|key| Secret::new(key).unwrap());
        let verify = |key: &[u8]| {
            let mut verifier = Verifier::new(&secrets);
            verifier.update(b"bo");
            verifier.update(b"dy");
            verifier.verify(&signed_by(key, b"body"))
        };
        assert_eq!(verify(b"new"), Some(0));
        assert_eq!(verify(b"old"), Some(1));
        assert_eq!(verify(b"oldest"), Some(2));
        assert_eq!(verify(b"other"), None);
    }

    #[test]
    fn one_flipped_bit_is_refused() {
        let secret = Secret::new(b"key").unwrap();
        for bit in 0..MAC_BYTES * 8 {
            let mut signature = signed_by(b"key", b"body");
            signature.0[bit / 8] ^= 1 << (bit % 8);
            let mut verifier = Verifier::new(std::slice::from_ref(&secret));
            verifier.update(b"body");
            assert_eq!(verifier.verify(&signature), None, "bit {bit}");
        }
    }

    #[test]
    fn an_empty_secret_is_rejected() {
        assert!(Secret::new(b"").is_none());
    }

    #[test]
    fn debug_output_does_not_contain_the_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2").unwrap()), "Secret(..)");
    }
}

//! `X-Hub-Signature-256`: its syntax and the HMAC-SHA256 behind it.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const PREFIX: &[u8] = b"sha256=";
const MAC_BYTES: usize = 32;

/// A well-formed value of the header. Says nothing about being right.
pub struct Signature([u8; MAC_BYTES]);

impl Signature {
    /// Exactly `sha256=` and 64 hex digits. SHA-1 has no way in.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut mac = [0; MAC_BYTES];
        hex::decode_to_slice(value.strip_prefix(PREFIX)?, &mut mac).ok()?;
        Some(Self(mac))
    }
}

/// A webhook secret, kept only as an HMAC already keyed with it, so that a
/// delivery does not pay for the key schedule.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// `None` for an empty secret: anyone could sign with it.
    pub fn new(key: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        Hmac::new_from_slice(key).ok().map(Self)
    }
}

// By hand, so that no derive can ever print what it holds.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Hashes one body under every secret of a hook at once, so that no part of
/// the body is needed twice. More than one secret is the exception: rotation.
pub struct Verifier(Vec<Hmac<Sha256>>);

impl Verifier {
    pub fn new(secrets: &[Secret]) -> Self {
        Self(secrets.iter().map(|secret| secret.0.clone()).collect())
    }

    pub fn update(&mut self, chunk: &[u8]) {
        for mac in &mut self.0 {
            mac.update(chunk);
        }
    }

    /// Position of the secret that made the signature. Each comparison takes
    /// constant time, and every secret is compared whichever one fits.
    pub fn verify(self, signature: &Signature) -> Option<usize> {
        let mut position = None;
        for (index, mac) in self.0.into_iter().enumerate() {
            let fits = mac.verify_slice(&signature.0).is_ok();
            position = position.or(fits.then_some(index));
        }
        position
    }
}

/// Verifies the example that GitHub publishes. A build whose hash is wrong
/// must not start, and Envoy compiles the hot code while it runs.
pub fn self_test() -> bool {
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
    fn githubs_vector_verifies() {
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
    fn each_secret_is_tried_and_its_position_told() {
        let secrets = [b"new".as_slice(), b"old", b"oldest"].map(|key| Secret::new(key).unwrap());
        let verdict = |key: &[u8]| {
            let mut verifier = Verifier::new(&secrets);
            verifier.update(b"bo");
            verifier.update(b"dy");
            verifier.verify(&signed_by(key, b"body"))
        };
        assert_eq!(verdict(b"new"), Some(0));
        assert_eq!(verdict(b"old"), Some(1));
        assert_eq!(verdict(b"oldest"), Some(2));
        assert_eq!(verdict(b"other"), None);
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
    fn an_empty_secret_is_none() {
        assert!(Secret::new(b"").is_none());
    }

    #[test]
    fn debug_prints_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2").unwrap()), "Secret(..)");
    }
}

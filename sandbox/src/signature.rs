//! HMAC signatures of webhooks.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// The value of `x-hub-signature`.
pub(crate) fn sha1(secret: &str, body: &[u8]) -> String {
    format!("sha1={}", hex_mac::<Hmac<Sha1>>(secret, body))
}

/// The value of `x-hub-signature-256`.
pub(crate) fn sha256(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hex_mac::<Hmac<Sha256>>(secret, body))
}

fn hex_mac<M: Mac + KeyInit>(secret: &str, body: &[u8]) -> String {
    let mut mac =
        <M as KeyInit>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

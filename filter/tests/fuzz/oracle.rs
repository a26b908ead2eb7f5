//! Expected results, computed without the filter.

use edgerunner_proto::v1::{JobEvent, Visibility};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::request::{BODY_MAX, Request};

pub(crate) const SECRETS: [&str; 2] = ["current", "previous"];

pub(crate) fn hmac(secret: &str, body: &[u8]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
    mac.finalize().into_bytes().into()
}

/// Whether the value is well-formed; says nothing about its correctness.
pub(crate) fn is_signature(value: &[u8]) -> bool {
    value.len() == 71
        && value.starts_with(b"sha256=")
        && value[7..].iter().all(u8::is_ascii_hexdigit)
}

pub(crate) fn signed_by(value: &[u8], body: &[u8]) -> Option<&'static str> {
    SECRETS.into_iter().find(|secret| {
        let expected = format!("sha256={}", hex::encode(hmac(secret, body)));
        is_signature(value) && value.to_ascii_lowercase() == expected.as_bytes()
    })
}

/// Whether a strict receiver would accept this request as genuine.
pub(crate) fn accepts(request: &Request) -> bool {
    let once = |name: &str| {
        let mut values = request.headers.iter().filter(|(key, _)| key.to_lowercase() == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value.as_slice()),
            _ => None,
        }
    };
    let is_name = |value: &[u8], others: &[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || others.contains(byte);
        (1..=64).contains(&value.len()) && value.iter().all(allowed)
    };
    let path = once(":path").unwrap_or_default();
    let path = path.split(|byte| b"?#".contains(byte)).next().unwrap_or_default();
    let media_type = once("content-type").map(|value| {
        let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
        value[..end].trim_ascii().to_ascii_lowercase()
    });
    let length_allowed =
        match request.headers.iter().any(|(key, _)| key.to_lowercase() == "content-length") {
            false => true,
            true => once("content-length")
                .and_then(|value| std::str::from_utf8(value).ok())
                .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|value| value.parse::<usize>().ok())
                .is_some_and(|length| length <= BODY_MAX),
        };
    let hosts = request.headers.iter().filter(|(key, _)| key.to_lowercase() == ":authority");
    let hosts: Vec<_> = hosts.flat_map(|(_, value)| value.split(|byte| *byte == b',')).collect();
    hosts.len() <= 1
        && once(":method") == Some(b"POST")
        && (path == b"/webhooks/github" || path == b"/webhooks/github/")
        && once("x-hub-signature-256")
            .is_some_and(|value| signed_by(value, &request.body).is_some())
        && once("x-github-event").is_some_and(|value| is_name(value, b"-_."))
        && once("x-github-delivery").is_some_and(|value| is_name(value, b"-"))
        && matches!(
            media_type.as_deref(),
            Some(b"application/json" | b"application/x-www-form-urlencoded")
        )
        && length_allowed
        && request.body.len() <= BODY_MAX
}

/// Panics unless the event has the payload's values, the payload is unambiguous (valid UTF-8 and
/// JSON, without repeated keys), and its names lead nowhere else in a path.
pub(crate) fn assert_matches(payload: &[u8], event: &JobEvent) {
    assert!(std::str::from_utf8(payload).is_ok(), "{event:?}");
    for part in event.repository.split('/').chain([&*event.organization, &event.enterprise]) {
        let safe = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        assert!(part.chars().all(safe) && part != "." && part != "..", "{event:?}");
    }
    assert_eq!(event.repository.matches('/').count(), 1, "{event:?}");
    let Ok(value) = serde_json::from_slice::<Value>(payload) else {
        // This parser limits depth and numbers, which the filter does not do in fields
        // that it skips.
        return;
    };
    let job = event.job.as_ref().unwrap();
    let expected = &value["workflow_job"];
    assert_eq!(expected["id"].as_u64(), Some(job.id));
    assert_eq!(expected["run_id"].as_u64().unwrap_or_default(), job.run_id);
    assert_eq!(expected["name"].as_str().unwrap_or_default(), job.name);
    assert_eq!(value["repository"]["full_name"].as_str(), Some(event.repository.as_str()));
    if matches!(event.visibility(), Visibility::Private | Visibility::Internal) {
        let repository = &value["repository"];
        assert_ne!(repository["private"], false);
        assert_ne!(repository["visibility"], "public");
    }
    let labels = expected["labels"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(
        labels.iter().map(Value::as_str).eq(job.labels.iter().map(|label| Some(label.as_str())))
    );
    let action = ["", "queued", "in_progress", "completed"][event.action as usize];
    assert_eq!(value["action"].as_str(), Some(action));
    assert_eq!(keys(payload, "action"), 1, "{}", String::from_utf8_lossy(payload));
}

/// Number of times that the key appears in the outermost object.
fn keys(payload: &[u8], key: &str) -> usize {
    struct Count<'a>(&'a str);
    impl<'de> serde::de::Visitor<'de> for Count<'_> {
        type Value = usize;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while let Some(key) = map.next_key::<String>()? {
                count += usize::from(key == self.0);
                map.next_value::<serde::de::IgnoredAny>()?;
            }
            Ok(count)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(payload);
    serde::Deserializer::deserialize_map(&mut reader, Count(key)).unwrap()
}

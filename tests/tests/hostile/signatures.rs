//! All kinds of signatures, with all ways to send a body.

use bytes::Bytes;
use edgerunner_tests::{SECRET, Webhook, hmac_sha1, hmac_sha256, raw};

use crate::case::{Case, Frame2, genuine, http1};

const ACCEPTED: &str = "202 accepted";
const MISSING: &str = "401 signature_missing";
const MISMATCH: &str = "401 signature_mismatch";
const MALFORMED: &str = "400 signature_malformed";
const HEADER: &str = "400 header_malformed";

type Change = fn(Webhook, &str) -> Webhook;

pub(crate) fn cases() -> Vec<Case> {
    const NAME: &str = "x-hub-signature-256";
    let changes: &[(&str, Change, &str)] = &[
        ("genuine", |w, _| w, ACCEPTED),
        (
            "upper-case digits",
            |w, d| w.header(NAME, format!("sha256={}", d.to_uppercase())),
            ACCEPTED,
        ),
        ("no signature", |w, _| w.without(NAME), MISSING),
        ("an empty signature", |w, _| w.header(NAME, ""), MALFORMED),
        ("another secret", |w, _| w.signed_with("another secret"), MISMATCH),
        ("no secret", |w, _| w.signed_with(""), MISMATCH),
        ("the secret and a line feed", |w, _| w.signed_with(&format!("{SECRET}\n")), MISMATCH),
        ("digits alone", |w, d| w.header(NAME, d), MALFORMED),
        ("one digit less", |w, d| w.header(NAME, format!("sha256={}", &d[1..])), MALFORMED),
        ("one digit more", |w, d| w.header(NAME, format!("sha256={d}0")), MALFORMED),
        ("first half only", |w, d| w.header(NAME, format!("sha256={}", &d[..32])), MALFORMED),
        (
            "another letter case before them",
            |w, d| w.header(NAME, format!("SHA256={d}")),
            MALFORMED,
        ),
        ("a hyphen before them", |w, d| w.header(NAME, format!("sha-256={d}")), MALFORMED),
        ("a space within", |w, d| w.header(NAME, format!("sha256= {d}")), MALFORMED),
        ("quotes", |w, d| w.header(NAME, format!("\"sha256={d}\"")), MALFORMED),
        ("a comma and another", |w, d| w.header(NAME, format!("sha256={d},sha256={d}")), MALFORMED),
        (
            "a wrong one and a comma",
            |w, d| w.header(NAME, format!("sha256={},sha256={d}", "0".repeat(64))),
            MALFORMED,
        ),
        (
            "a letter beyond hexadecimal",
            |w, d| w.header(NAME, format!("sha256={}g", &d[1..])),
            MALFORMED,
        ),
        (
            "bytes beyond ASCII",
            |w, _| w.header(NAME, [b"sha256=".as_slice(), &[0xff; 64]].concat()),
            MALFORMED,
        ),
        ("UTF-8 digits", |w, d| w.header(NAME, format!("sha256={}\u{661}", &d[2..])), MALFORMED),
        ("twice the same", |w, d| w.and_header(NAME, format!("sha256={d}")), MALFORMED),
        (
            "a wrong one after it",
            |w, _| w.and_header(NAME, format!("sha256={}", "0".repeat(64))),
            MALFORMED,
        ),
        (
            "a wrong one before it",
            |w, d| {
                w.header(NAME, format!("sha256={}", "0".repeat(64)))
                    .and_header(NAME, format!("sha256={d}"))
            },
            MALFORMED,
        ),
        ("all zeros", |w, _| w.header(NAME, format!("sha256={}", "0".repeat(64))), MISMATCH),
        (
            "SHA-1 in its own field",
            |w, _| {
                let d = hmac_sha1(SECRET, &w.body);
                w.without(NAME).and_header("x-hub-signature", format!("sha1={d}"))
            },
            MISSING,
        ),
        (
            "SHA-1",
            |w, _| {
                let d = hmac_sha1(SECRET, &w.body);
                w.header(NAME, format!("sha1={d}"))
            },
            MALFORMED,
        ),
        (
            "SHA-1 in the length of SHA-256",
            |w, _| {
                let d = hmac_sha1(SECRET, &w.body);
                w.header(NAME, format!("sha256={d:0>64}"))
            },
            MISMATCH,
        ),
        (
            "that of no body",
            |w, _| w.header(NAME, format!("sha256={}", hmac_sha256(SECRET, b""))),
            MISMATCH,
        ),
        (
            "that of another body",
            |w, _| w.header(NAME, format!("sha256={}", hmac_sha256(SECRET, b"{}"))),
            MISMATCH,
        ),
        ("a first byte changed", |w, _| changed(w, 0), MISMATCH),
        (
            "a last byte changed",
            |w, _| {
                let last = w.body.len() - 1;
                changed(w, last)
            },
            MISMATCH,
        ),
        (
            "a line feed appended",
            |w, _| {
                let body = [&w.body, b"\n".as_slice()].concat();
                Webhook { body: body.into(), ..w }
            },
            MISMATCH,
        ),
        (
            "a byte missing",
            |w, _| {
                let body = w.body.slice(1..);
                Webhook { body, ..w }
            },
            MISMATCH,
        ),
        ("no body", |w, _| Webhook { body: Bytes::new(), ..w }, MISMATCH),
        (
            "twice the body",
            |w, _| {
                let body = [&w.body[..], &w.body].concat();
                Webhook { body: body.into(), ..w }
            },
            MISMATCH,
        ),
        (
            "1 MB appended",
            |w, _| {
                let body = [&w.body[..], &[b' '; 1_000_000]].concat();
                Webhook { body: body.into(), ..w }
            },
            MISMATCH,
        ),
        ("no event", |w, _| w.without("x-github-event"), HEADER),
        ("two events", |w, _| w.and_header("x-github-event", "ping"), HEADER),
        ("an event beyond ASCII", |w, _| w.header("x-github-event", b"workflow_job\xff"), HEADER),
        ("an event of 65 bytes", |w, _| w.header("x-github-event", "a".repeat(65)), HEADER),
        ("no GUID", |w, _| w.without("x-github-delivery"), HEADER),
        (
            "two GUIDs",
            |w, _| {
                let guid = w.guid();
                w.and_header("x-github-delivery", guid)
            },
            HEADER,
        ),
        ("a GUID with a quote", |w, _| w.header("x-github-delivery", "a\"b"), HEADER),
        ("a GUID beyond ASCII", |w, _| w.header("x-github-delivery", b"\x80"), HEADER),
        ("no content type", |w, _| w.without("content-type"), "415 media_type"),
        (
            "two content types",
            |w, _| w.and_header("content-type", "application/json"),
            "415 media_type",
        ),
        (
            "content types listed",
            |w, _| w.header("content-type", "application/json, text/plain"),
            "415 media_type",
        ),
        (
            "a content type beyond ASCII",
            |w, _| w.header("content-type", b"application/json\xa0"),
            "415 media_type",
        ),
        (
            "a content type with parameters",
            |w, _| w.header("content-type", "Application/JSON ; charset=utf-16"),
            ACCEPTED,
        ),
        (
            "a multipart form",
            |w, _| w.header("content-type", "multipart/form-data; boundary=x"),
            "415 media_type",
        ),
    ];
    changes
        .iter()
        .flat_map(|(name, change, may)| {
            let make = || {
                let webhook = genuine();
                let digits = hmac_sha256(SECRET, &webhook.body);
                change(webhook, &digits)
            };
            let may = &[*may];
            let (length, chunks, whole, cut, trailers) = (make(), make(), make(), make(), make());
            [
                Case::http1(format!("{name}, by length"), http1(&length), may).with(&length),
                Case::http1(format!("{name}, in chunks"), in_chunks(&chunks), may).with(&chunks),
                Case::http2(*name, &whole, may).with(&whole),
                Case::http2_body(format!("{name}, cut"), &cut, in_frames(&cut), may).with(&cut),
                Case::http2_body(
                    format!("{name}, with trailers"),
                    &trailers,
                    with_trailers(&trailers),
                    may,
                )
                .with(&trailers),
            ]
        })
        .collect()
}

fn changed(webhook: Webhook, at: usize) -> Webhook {
    let mut body = webhook.body.to_vec();
    body[at] ^= 1;
    Webhook { body: body.into(), ..webhook }
}

fn in_chunks(webhook: &Webhook) -> Vec<u8> {
    let head = webhook.clone().and_header("transfer-encoding", "chunked").head();
    let chunks = webhook.body.chunks(100).map(raw::chunk).chain([raw::chunk(b"")]);
    [head, b"\r\n".to_vec()].into_iter().chain(chunks).collect::<Vec<_>>().concat()
}

fn in_frames(webhook: &Webhook) -> Vec<Frame2> {
    let pieces = webhook.body.chunks(64).take(1_000).map(Bytes::copy_from_slice);
    let rest = webhook.body.slice((64 * 1_000).min(webhook.body.len())..);
    // Envoy permits few frames without content.
    pieces.chain((!rest.is_empty()).then_some(rest)).map(Frame2::Data).collect()
}

/// Trailers with a valid signature.
fn with_trailers(webhook: &Webhook) -> Vec<Frame2> {
    let signature = format!("sha256={}", hmac_sha256(SECRET, &webhook.body));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-hub-signature-256", signature.parse().expect("ASCII"));
    vec![Frame2::Data(webhook.body.clone()), Frame2::Trailers(trailers)]
}

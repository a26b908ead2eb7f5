//! HTTP/2, mostly frame by frame: cases that may reach the filter or that depend on the
//! configuration. Envoy's own parser is not tested here.

use std::time::Duration;

use edgerunner_tests::{SECRET, Webhook, hmac_sha256};

use crate::case::{Case, Step, genuine};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, RST_STREAM, SETTINGS, block,
    frame,
};

/// Envoy closes the stream, or the connection, and the filter does not respond.
const REFUSED: &[&str] = &["reset", "goaway", "400", "closed"];
const ACCEPTED: &[&str] = &["202"];

type Fields = Vec<(String, Vec<u8>)>;
type Change = fn(&mut Fields);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    fields(&mut cases);
    bodies(&mut cases);
    sequences(&mut cases);
    floods(&mut cases);
    slow(&mut cases);
    cases
}

fn head(webhook: &Webhook) -> Fields {
    let pseudo = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "hooks.test"),
        (":path", webhook.path.as_str()),
    ];
    let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    pseudo.into_iter().chain(webhook.headers.iter().cloned()).collect()
}

/// Two frames: head and body.
fn request(stream: u32, fields: &Fields, body: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &block(fields));
    [head, data(stream, END_STREAM, body)].concat()
}

fn data(stream: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut pieces = body.chunks(16_384).peekable();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { flags } else { 0 };
        bytes.extend(frame(DATA, flags, stream, piece));
    }
    if body.is_empty() {
        bytes = frame(DATA, flags, stream, &[]);
    }
    bytes
}

fn field(name: &str, value: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_ref().to_vec())
}

fn set(fields: &mut Fields, name: &str, value: impl AsRef<[u8]>) {
    for (other, old) in fields {
        if other == name {
            *old = value.as_ref().to_vec();
        }
    }
}

fn fields(cases: &mut Vec<Case>) {
    let changes: &[(&str, Change, &[&str])] = &[
        ("as they should be", |_| {}, ACCEPTED),
        (
            "with the signature's name in capitals",
            |f| f.push(field("X-Hub-Signature-256", "y")),
            REFUSED,
        ),
        (
            "without a scheme",
            |f| f.retain(|(name, _)| name != ":scheme"),
            &["reset", "goaway", "closed", "400", "202"],
        ),
        (
            "without an authority",
            |f| f.retain(|(name, _)| name != ":authority"),
            &["reset", "goaway", "closed", "400", "202"],
        ),
        (
            "with an empty path",
            |f| set(f, ":path", ""),
            &["reset", "goaway", "closed", "400", "404"],
        ),
        (
            "with a path of a star",
            |f| set(f, ":path", "*"),
            &["reset", "goaway", "closed", "400", "404"],
        ),
        (
            "with a path that has no slash",
            |f| set(f, ":path", "webhooks/github"),
            &["reset", "goaway", "closed", "400", "404"],
        ),
        (
            "with a path of a whole URL",
            |f| set(f, ":path", "http://hooks.test/webhooks/github"),
            &["reset", "goaway", "closed", "400", "404"],
        ),
        (
            "with a space in the path",
            |f| set(f, ":path", "/webhooks/github HTTP/1.1"),
            &["reset", "goaway", "closed", "400", "404"],
        ),
        (
            "with bytes beyond ASCII in the path",
            |f| set(f, ":path", b"/webhooks/github\xff"),
            &["reset", "goaway", "closed", "400", "404"],
        ),
        (
            "with a path of 40 KB",
            |f| set(f, ":path", format!("/webhooks/github?{}", "a".repeat(40_000))),
            &["reset", "goaway", "closed", "431", "400"],
        ),
        (
            "with an underscore in a name",
            |f| f.push(field("a_b", "x")),
            &["reset", "goaway", "closed", "400"],
        ),
        (
            "with spaces around a value",
            |f| f.push(field("x", " a ")),
            &["202", "reset", "goaway", "closed", "400"],
        ),
        (
            "with a space around the signature",
            |f| {
                let value = f
                    .iter()
                    .find(|(name, _)| name == "x-hub-signature-256")
                    .map(|(_, value)| value.clone());
                set(
                    f,
                    "x-hub-signature-256",
                    [b" ".as_slice(), &value.unwrap_or_default()].concat(),
                );
            },
            &["400", "202", "reset", "goaway", "closed"],
        ),
        ("with bytes beyond ASCII in a value", |f| f.push(field("x", b"\xff\x80")), ACCEPTED),
        ("with an encoding", |f| f.push(field("transfer-encoding", "chunked")), REFUSED),
        ("with a connection", |f| f.push(field("connection", "x-hub-signature-256")), REFUSED),
        ("with an upgrade", |f| f.push(field("upgrade", "websocket")), REFUSED),
        ("with te: trailers", |f| f.push(field("te", "trailers")), ACCEPTED),
        (
            "with te: gzip",
            |f| f.push(field("te", "gzip")),
            &["202", "reset", "goaway", "closed", "400"],
        ),
        (
            "with another host",
            |f| f.push(field("host", "other.test")),
            &["202", "reset", "goaway", "closed", "400"],
        ),
        (
            "with two hosts",
            |f| f.extend([field("host", "a"), field("host", "b")]),
            &["202", "reset", "goaway", "closed", "400"],
        ),
        (
            "with 1,000 cookies",
            |f| f.extend((0..1_000).map(|_| field("cookie", "a=b"))),
            &["202", "431", "reset", "goaway", "closed", "400"],
        ),
        (
            "with 60 more",
            |f| f.extend((0..60).map(|_| field("x", "y"))),
            &["431", "reset", "goaway", "closed", "400"],
        ),
        ("with a value of 16 KB", |f| f.push(field("x", "a".repeat(12_000))), ACCEPTED),
        (
            "with a method of CONNECT",
            |f| set(f, ":method", "CONNECT"),
            &["reset", "goaway", "closed", "400", "404", "403"],
        ),
        (
            "with a method of PRI",
            |f| set(f, ":method", "PRI"),
            &["405", "400", "reset", "goaway", "closed"],
        ),
        (
            "with an empty method",
            |f| set(f, ":method", ""),
            &["405", "400", "reset", "goaway", "closed"],
        ),
        (
            "with a method in small letters",
            |f| set(f, ":method", "post"),
            &["405", "400", "reset", "goaway", "closed"],
        ),
        (
            "with another scheme",
            |f| set(f, ":scheme", "ftp"),
            &["202", "400", "reset", "goaway", "closed"],
        ),
        (
            "with a length twice",
            |f| f.extend([field("content-length", "1"), field("content-length", "2")]),
            REFUSED,
        ),
        ("with a length that is too little", |f| f.push(field("content-length", "1")), REFUSED),
        ("with a length that is too much", |f| f.push(field("content-length", "10000")), REFUSED),
        ("with a length of zero", |f| f.push(field("content-length", "0")), REFUSED),
        (
            "with a length over the limit",
            |f| f.push(field("content-length", "26214401")),
            &["413", "reset", "goaway", "closed", "400"],
        ),
    ];
    for (name, change, may) in changes {
        let webhook = genuine();
        let mut fields = head(&webhook);
        change(&mut fields);
        let bytes = match block(&fields) {
            block if block.len() <= 16_384 => request(1, &fields, &webhook.body),
            block => [continued(1, &block), data(1, END_STREAM, &webhook.body)].concat(),
        };
        // Before the reset, the filter may have rejected the headers.
        let early = may.iter().filter(|may| **may == "reset").map(|_| "401, reset");
        let may: Vec<&str> = may.iter().copied().chain(early).collect();
        cases.push(Case::frames(format!("fields {name}"), bytes, &may).with(&webhook));
    }
}

/// Splits a block into as many frames as necessary.
fn continued(stream: u32, block: &[u8]) -> Vec<u8> {
    let count = block.chunks(16_384).len();
    let pieces = block.chunks(16_384).enumerate().map(|(index, piece)| {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let flags = if index + 1 == count { END_HEADERS } else { 0 };
        frame(kind, flags, stream, piece)
    });
    pieces.collect::<Vec<_>>().concat()
}

/// A request for another path.
fn get(stream: u32) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

fn bodies(cases: &mut Vec<Case>) {
    let body = |name: &str, make: fn(&Webhook) -> Vec<u8>, may: &[&str]| {
        let webhook = genuine();
        let head = frame(HEADERS, END_HEADERS, 1, &block(&head(&webhook)));
        let bytes = [head, make(&webhook)].concat();
        Case::frames(format!("body {name}"), bytes, may).with(&webhook)
    };
    fn trailers(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
        frame(HEADERS, flags | END_HEADERS, 1, &block(fields))
    }
    cases.extend([
        body(
            "of one byte each",
            |w| {
                let pieces = w.body.chunks(1).map(|piece| frame(DATA, 0, 1, piece));
                pieces.chain([frame(DATA, END_STREAM, 1, &[])]).collect::<Vec<_>>().concat()
            },
            ACCEPTED,
        ),
        body(
            "with padding",
            |w| {
                let padded = [&[200], &w.body[..], &[0; 200]].concat();
                frame(DATA, PADDED | END_STREAM, 1, &padded)
            },
            ACCEPTED,
        ),
        body(
            "of padding alone",
            |_| frame(DATA, PADDED | END_STREAM, 1, &[&[255], &[0; 255][..]].concat()),
            &["401"],
        ),
        body(
            "and more after its end",
            |w| [data(1, END_STREAM, &w.body), data(1, END_STREAM, b"more")].concat(),
            &["202", "reset", "goaway", "closed", "202, reset", "reset, 202", "202, goaway"],
        ),
        body(
            "and a reset after its end",
            |w| {
                let reset = frame(RST_STREAM, 0, 1, &8u32.to_be_bytes());
                [data(1, END_STREAM, &w.body), reset, get(3)].concat()
            },
            // The connection stays open.
            &["404", "202, 404", "404, 202"],
        ),
        body(
            "and a reset within",
            |w| {
                let reset = frame(RST_STREAM, 0, 1, &8u32.to_be_bytes());
                [data(1, 0, &w.body[..9]), reset, get(3)].concat()
            },
            &["404"],
        ),
        body(
            "with trailers",
            |w| [data(1, 0, &w.body), trailers(END_STREAM, &[("x", "\u{e9}")])].concat(),
            ACCEPTED,
        ),
        body(
            "with trailers that repeat the signature",
            |w| {
                let signature = format!("sha256={}", hmac_sha256(SECRET, &w.body));
                [data(1, 0, &w.body), trailers(END_STREAM, &[("x-hub-signature-256", &signature)])]
                    .concat()
            },
            ACCEPTED,
        ),
        body(
            "with trailers and no end",
            |w| [data(1, 0, &w.body), trailers(0, &[("x", "y")])].concat(),
            &["reset", "goaway", "400", "closed", "408"],
        ),
        body(
            "with an encoding in its trailers",
            |w| {
                [data(1, 0, &w.body), trailers(END_STREAM, &[("transfer-encoding", "chunked")])]
                    .concat()
            },
            &["202", "reset", "goaway", "closed", "400"],
        ),
        body(
            "with a length in its trailers",
            |w| [data(1, 0, &w.body), trailers(END_STREAM, &[("content-length", "1")])].concat(),
            &["202", "reset", "goaway", "closed", "400"],
        ),
        body(
            "after its trailers",
            |w| [trailers(END_STREAM, &[("x", "y")]), data(1, END_STREAM, &w.body)].concat(),
            &["401", "reset", "goaway", "closed", "401, reset", "401, goaway"],
        ),
        body(
            "twice its trailers",
            |w| {
                [
                    data(1, 0, &w.body),
                    trailers(END_STREAM, &[("x", "y")]),
                    trailers(END_STREAM, &[("x", "y")]),
                ]
                .concat()
            },
            &["202", "reset", "goaway", "closed", "202, reset", "reset, 202", "202, goaway"],
        ),
        body(
            "of 10,000 frames of nothing",
            |w| {
                let nothing = frame(DATA, 0, 1, &[]).repeat(10_000);
                [nothing, data(1, END_STREAM, &w.body)].concat()
            },
            &["202", "reset", "goaway", "400", "closed"],
        ),
        body(
            "beyond its window",
            |_| data(1, 0, &[b' '; 2_000_000]),
            &["reset", "goaway", "closed", "408", "401, reset"],
        ),
    ]);
}

fn sequences(cases: &mut Vec<Case>) {
    let good = |stream| {
        let webhook = genuine();
        (request(stream, &head(&webhook), &webhook.body), webhook)
    };
    cases.push(Case::frames(
        "a block that grows when it is read",
        bomb(),
        &["reset", "goaway", "closed", "431", "400", "closed"],
    ));
    let (requests, webhooks): (Vec<_>, Vec<_>) = (0..20).map(|index| good(2 * index + 1)).unzip();
    let mut case =
        Case::frames("20 requests in one go", requests.concat(), &[&["202"; 20].join(", ")]);
    case.genuine = webhooks;
    cases.push(case);
    // The streams' frames alternate.
    let (a, b) = (genuine(), genuine().signed_with("another secret"));
    let mut bytes = Vec::new();
    for (stream, webhook) in [(1, &a), (3, &b)] {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &block(&head(webhook))));
    }
    for (left, right) in a.body.chunks(10).zip(b.body.chunks(10)) {
        bytes.extend([data(1, 0, left), data(3, 0, right)].concat());
    }
    bytes.extend([data(3, END_STREAM, b""), data(1, END_STREAM, b"")].concat());
    let may = ["401, 202", "202, 401"];
    cases.push(Case::frames("two bodies by turns", bytes, &may).with(&a));
}

/// One long value in the table, with thousands of references.
fn bomb() -> Vec<u8> {
    let mut block = vec![0x40, 1, b'x', 127];
    // 4,000 bytes: 127 + 3,873.
    block.extend([0x80 | (3_873 % 128) as u8, (3_873 / 128) as u8]);
    block.extend([b'a'; 4_000]);
    block.extend([0xbe; 12_000]);
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

fn floods(cases: &mut Vec<Case>) {
    let webhook = genuine();
    let fields = block(&head(&webhook));
    let open_and_reset: Vec<u8> = (0..2_000_u32)
        .flat_map(|index| {
            let stream = 2 * index + 1;
            [
                frame(HEADERS, END_HEADERS, stream, &fields),
                frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
            ]
        })
        .flatten()
        .collect();
    let endless = [
        frame(HEADERS, 0, 1, &fields),
        frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(20_000),
    ];
    cases.extend([
        Case::frames("streams opened and reset, 2,000", open_and_reset, &["goaway", "closed"]),
        Case::frames("continuations without an end", endless.concat(), REFUSED),
    ]);
}

fn slow(cases: &mut Vec<Case>) {
    let wait = |ms| Step::Wait(Duration::from_millis(ms));
    let webhook = genuine();
    let head_frame = |webhook: &Webhook| frame(HEADERS, END_HEADERS, 1, &block(&head(webhook)));
    let half = webhook.body.len() / 2;
    let (first, second) = webhook.body.split_at(half);
    cases.push(
        Case::frames_steps(
            "half a body, a second, and the rest",
            vec![
                Step::Send([head_frame(&webhook), data(1, 0, first)].concat()),
                wait(1_000),
                Step::Send(data(1, END_STREAM, second)),
            ],
            ACCEPTED,
        )
        .with(&webhook),
    );
    let webhook = genuine();
    let late = &["408", "reset", "408, reset"];
    cases.push(Case::frames("headers and no body", head_frame(&webhook), late));
    let bytes = [head_frame(&webhook), data(1, 0, &webhook.body[..9])].concat();
    cases.push(Case::frames("half a body and nothing more", bytes.clone(), late));
    cases.push(Case::frames_steps(
        "half a body, and no more to come",
        vec![Step::Send(bytes), wait(100), Step::Shut],
        &["closed", "408", "reset", "goaway", "closed", "408, reset"],
    ));
    let drip = std::iter::repeat_with(|| [Step::Send(data(1, 0, b" ")), wait(100)]);
    let steps = std::iter::once(Step::Send(head_frame(&webhook)));
    let steps = steps.chain(drip.take(50).flatten()).collect();
    cases.push(Case::frames_steps("a body, a byte every 100 ms", steps, late));
    // Half of a block; the rest never comes.
    let half_block = frame(HEADERS, 0, 1, &block(&head(&webhook)));
    let may = &["408", "reset", "goaway", "closed", "408, reset"];
    cases.push(Case::frames("headers without an end", half_block, may));
    // A response that cannot be sent: our window is closed.
    let closed_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let webhook = genuine();
    let request = request(1, &head(&webhook), &webhook.body);
    let may = &["202, reset", "202"];
    cases.push(
        Case::frames("a window that never opens", [closed_window, request].concat(), may)
            .with(&webhook),
    );
}

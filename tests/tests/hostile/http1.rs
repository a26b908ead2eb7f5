//! HTTP/1.1, byte by byte: cases that may reach the filter or that depend on the
//! configuration. Envoy's own parser is not tested here.

use std::time::Duration;

use edgerunner_tests::{SECRET, Webhook, hmac_sha256, raw};

use crate::case::{Case, Step, genuine, http1, with_length};

/// Envoy cannot parse the request.
const BAD: &[&str] = &["400"];
const ACCEPTED: &[&str] = &["202 accepted"];
/// The standard allows a receiver to be lenient.
const LENIENT: &[&str] = &["202 accepted", "400"];
const HOSTS: &[&str] = &["400", "400 header_malformed"];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    lengths(&mut cases);
    encodings(&mut cases);
    chunks(&mut cases);
    request_lines(&mut cases);
    targets(&mut cases);
    methods(&mut cases);
    fields(&mut cases);
    trailers(&mut cases);
    pipelines(&mut cases);
    slow(&mut cases);
    others(&mut cases);
    cases
}

/// A genuine delivery with further lines in its head, and other bytes after it.
fn request(webhook: &Webhook, lines: impl AsRef<[u8]>, rest: impl AsRef<[u8]>) -> Vec<u8> {
    [&webhook.head(), lines.as_ref(), b"\r\n\r\n".as_slice(), rest.as_ref()].concat()
}

/// One chunk and the end.
fn chunked(body: &[u8]) -> Vec<u8> {
    [raw::chunk(body), raw::chunk(b"")].concat()
}

/// A genuine delivery with a text replaced.
fn replaced(webhook: &Webhook, from: &str, to: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = http1(webhook);
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("no {from:?}"));
    [&bytes[..at], to.as_ref(), &bytes[at + from.len()..]].concat()
}

fn lengths(cases: &mut Vec<Case>) {
    let length = |name: &str, lines: fn(usize) -> String, may: &[&str]| {
        let webhook = genuine();
        let lines = lines(webhook.body.len());
        Case::http1(format!("length {name}"), request(&webhook, lines, &webhook.body), may)
            .with(&webhook)
    };
    cases.extend([
        length("as it should be", |n| format!("content-length: {n}"), ACCEPTED),
        length(
            "with leading zeros",
            |n| format!("content-length: 000{n}"),
            &["202 accepted", "400"],
        ),
        length("twice, the same", |n| format!("content-length: {n}\r\ncontent-length: {n}"), BAD),
        length(
            "twice, the second less",
            |n| format!("content-length: {n}\r\ncontent-length: 1"),
            BAD,
        ),
        length(
            "twice, the first less",
            |n| format!("content-length: 1\r\ncontent-length: {n}"),
            BAD,
        ),
        length("listed twice", |n| format!("content-length: {n}, {n}"), BAD),
        length("listed, differing", |n| format!("content-length: {n},1"), BAD),
        length(
            "of 64 bits",
            |_| "content-length: 18446744073709551615".to_owned(),
            &["413 too_large", "400"],
        ),
        length("folded", |n| format!("content-length:\r\n {n}"), LENIENT),
        length("with a space before the colon", |n| format!("content-length : {n}"), BAD),
        length("with an underscore", |n| format!("content-length: {n}\r\ncontent_length: 1"), BAD),
        length(
            "missing",
            |_| "x-nothing: 0".to_owned(),
            &["401 signature_mismatch, 400", "401 signature_mismatch"],
        ),
        length(
            "zero",
            |_| "content-length: 0".to_owned(),
            &["401 signature_mismatch, 400", "401 signature_mismatch"],
        ),
        length(
            "of one byte less",
            |n| format!("content-length: {}", n - 1),
            &["401 signature_mismatch, 400", "401 signature_mismatch"],
        ),
        length("of one byte more", |n| format!("content-length: {}", n + 1), &["408"]),
    ]);
}

fn encodings(cases: &mut Vec<Case>) {
    // The body can be read as chunks, and its length fits as well.
    let both = |name: &str, lines: &str, may: &[&str]| {
        let webhook = genuine();
        let rest = chunked(&webhook.body);
        let lines = lines.replace("{n}", &rest.len().to_string());
        let lines = lines.replace("{inner}", &webhook.body.len().to_string());
        Case::http1(format!("encoding {name}"), request(&webhook, lines, rest), may)
    };
    for (name, lines) in [
        ("and length", "transfer-encoding: chunked\r\ncontent-length: {n}"),
        ("after length", "content-length: {n}\r\ntransfer-encoding: chunked"),
        ("and a length of zero", "transfer-encoding: chunked\r\ncontent-length: 0"),
        ("and the length within", "transfer-encoding: chunked\r\ncontent-length: {inner}"),
        ("in capitals and length", "Transfer-Encoding: CHUNKED\r\nContent-Length: {n}"),
        ("after a space and length", "transfer-encoding : chunked\r\ncontent-length: {n}"),
        ("after a tab and length", "transfer-encoding\t: chunked\r\ncontent-length: {n}"),
        ("after a folded line and length", "transfer-encoding:\r\n chunked\r\ncontent-length: {n}"),
        ("with an underscore and length", "transfer_encoding: chunked\r\ncontent-length: {n}"),
        (
            "after another field's line feed",
            "x: y\ntransfer-encoding: chunked\r\ncontent-length: {n}",
        ),
        ("followed by a carriage return", "transfer-encoding: chunked\r\r\ncontent-length: {n}"),
        ("with a vertical tab", "transfer-encoding: \x0bchunked\r\ncontent-length: {n}"),
        ("with a zero byte", "transfer-encoding: chunked\0\r\ncontent-length: {n}"),
        ("identity and length", "transfer-encoding: identity\r\ncontent-length: {n}"),
        ("unknown and length", "transfer-encoding: xchunked\r\ncontent-length: {n}"),
        ("empty and length", "transfer-encoding:\r\ncontent-length: {n}"),
    ] {
        cases.push(both(name, lines, &["400", "501"]));
    }
    let lines = "x: y\rtransfer-encoding: chunked\r\ncontent-length: {n}";
    let may = ["400", "401 signature_mismatch"];
    cases.push(both("after a carriage return", lines, &may));
    let webhook = genuine();
    let bytes = request(&webhook, "transfer-encoding: Chunked", chunked(&webhook.body));
    cases.push(Case::http1("encoding in other letters", bytes, ACCEPTED).with(&webhook));
    // A second request is hidden in what may be the first one's body.
    let hidden = http1(&genuine().signed_with("another secret"));
    for (name, lines) in [
        (
            "by length",
            format!("content-length: {}\r\ntransfer-encoding: chunked", 5 + hidden.len()),
        ),
        ("by encoding", "content-length: 3\r\ntransfer-encoding: chunked".to_owned()),
        ("by an unknown encoding", "content-length: 5\r\ntransfer-encoding: xchunked".to_owned()),
    ] {
        let bytes = request(&genuine(), lines, [b"0\r\n\r\n".as_slice(), &hidden].concat());
        cases.push(Case::http1(format!("a request hidden {name}"), bytes, &["400", "501"]));
    }
}

fn chunks(cases: &mut Vec<Case>) {
    let chunks = |name: &str, make: fn(&[u8]) -> Vec<u8>, may: &[&str]| {
        let webhook = genuine();
        let bytes = request(&webhook, "transfer-encoding: chunked", make(&webhook.body));
        Case::http1(format!("chunks {name}"), bytes, may).with(&webhook)
    };
    fn sized(size: &str, body: &[u8]) -> Vec<u8> {
        [size.as_bytes(), b"\r\n", body, b"\r\n0\r\n\r\n"].concat()
    }
    cases.extend([
        chunks("as they should be", chunked, ACCEPTED),
        chunks(
            "of one byte each",
            |body| {
                body.chunks(1).map(raw::chunk).chain([raw::chunk(b"")]).collect::<Vec<_>>().concat()
            },
            ACCEPTED,
        ),
        chunks("sized in capitals", |body| sized(&format!("{:X}", body.len()), body), ACCEPTED),
        chunks("sized with zeros", |body| sized(&format!("{:08x}", body.len()), body), ACCEPTED),
        chunks(
            "with an extension",
            |body| sized(&format!("{:x};a=b", body.len()), body),
            &["202 accepted", "400"],
        ),
        chunks(
            "with a quoted extension",
            |body| sized(&format!("{:x};a=\"b;\"", body.len()), body),
            &["202 accepted", "400"],
        ),
        chunks(
            "with a line feed in an extension",
            |body| sized(&format!("{:x};a\n", body.len()), body),
            BAD,
        ),
        chunks(
            "with an extension of 64 KiB",
            |body| sized(&format!("{:x};{}", body.len(), "a".repeat(1 << 16)), body),
            &["202 accepted", "400"],
        ),
        chunks(
            "sized with a trailing space",
            |body| sized(&format!("{:x} ", body.len()), body),
            &["202 accepted", "400"],
        ),
        chunks(
            "of a size of 64 bits",
            |body| sized("ffffffffffffffff", body),
            &["400", "408", "413 too_large"],
        ),
        chunks("without an end", raw::chunk, &["408"]),
        chunks(
            "whose end has no empty line",
            |body| [raw::chunk(body), b"0\r\n".to_vec()].concat(),
            &["408"],
        ),
        chunks(
            "and more after their end",
            |body| [chunked(body), b"garbage".to_vec()].concat(),
            &["202 accepted, 400", "202 accepted", "400"],
        ),
        chunks("of nothing", |_| raw::chunk(b""), &["401 signature_mismatch"]),
    ]);
}

fn request_lines(cases: &mut Vec<Case>) {
    for (line, may) in [
        ("POST /webhooks/github HTTP/1.0", &["426", "400", "202 accepted"] as &[&str]),
        ("POST /webhooks/github HTTP/0.9", &["400", "426"]),
        ("POST /webhooks/github HTTP/1.2", &["400", "426"]),
        ("POST /webhooks/github HTTP/2.0", &["400", "426", "505"]),
        ("POST /webhooks/github HTTP/1.1 ", LENIENT),
        ("POST /webhooks/github", &["400", "426"]),
        ("POST  /webhooks/github HTTP/1.1", LENIENT),
        ("POST\t/webhooks/github\tHTTP/1.1", LENIENT),
        ("POST /webhooks/github HTTP/1.1\r", LENIENT),
        ("POST /webhooks/github\u{e9} HTTP/1.1", &["400", "404 unknown_hook", "404"]),
        (
            "GET / HTTP/1.1\r\nx: y\r\n\r\nPOST /webhooks/github HTTP/1.1",
            &["404, 202 accepted", "400", "400, 202 accepted"],
        ),
    ] {
        let webhook = genuine();
        let bytes = replaced(&webhook, "POST /webhooks/github HTTP/1.1", line);
        cases.push(Case::http1(format!("request line {line:?}"), bytes, may).with(&webhook));
    }
    let webhook = genuine();
    let bytes = [b"\r\n\r\n".to_vec(), http1(&webhook)].concat();
    cases
        .push(Case::http1("empty lines before it", bytes, &["202 accepted", "400"]).with(&webhook));
    let webhook = genuine();
    let head = String::from_utf8(with_length(webhook.clone()).head()).expect("ASCII");
    let bytes = [head.replace("\r\n", "\n").as_bytes(), b"\n", &webhook.body].concat();
    cases.push(Case::http1("lines ended by line feeds", bytes, LENIENT).with(&webhook));
    cases.push(Case::http1("a line of 40 KB", [b'a'; 40_000], &["400", "431"]));
}

fn targets(cases: &mut Vec<Case>) {
    let ours: &[&str] = &["202 accepted"];
    for (target, may) in [
        ("/webhooks/github/", ours),
        ("/webhooks/github?a=b", ours),
        ("/webhooks/github?", ours),
        ("/webhooks/github#fragment", &["202 accepted", "400"]),
        ("//webhooks/github", ours),
        ("/webhooks//github", ours),
        ("/./webhooks/github", ours),
        ("/x/../webhooks/github", ours),
        ("/../webhooks/github", &["202 accepted", "400"]),
        ("/%77ebhooks/github", ours),
        ("/webhooks%2fgithub", BAD),
        ("/webhooks%2Fgithub", BAD),
        ("/webhooks%5cgithub", BAD),
        ("/webhooks\\github", &["202 accepted", "400"]),
        ("/webhooks/github%00", BAD),
        ("/webhooks/github%20", &["404", "404 unknown_hook"]),
        ("/webhooks/github%3f", &["404", "404 unknown_hook"]),
        ("/webhooks/github%ff", &["404", "404 unknown_hook"]),
        ("/webhooks/github%2e%2e", &["404", "404 unknown_hook"]),
        ("/webhooks/github%zz", &["400", "404", "404 unknown_hook"]),
        ("/webhooks/github;a=b", &["404", "404 unknown_hook"]),
        ("/WEBHOOKS/GITHUB", &["404"]),
        ("/webhooks/github/x", &["404 unknown_hook"]),
        ("/webhooks/github/../github", ours),
        ("/webhooks/github/%2e%2e/github", ours),
        ("/webhooks/github//", &["404 unknown_hook", "202 accepted"]),
        ("/webhooks/github/x/y", &["404 unknown_hook"]),
        ("webhooks/github", &["400", "404"]),
        ("*", &["400", "404"]),
        ("http://other.test/webhooks/github", ours),
        ("https://hooks.test/webhooks/github", &["202 accepted", "403"]),
        ("http://hooks.test", &["404"]),
        ("ftp://hooks.test/webhooks/github", &["400", "202 accepted"]),
        ("hooks.test:80", &["400", "404"]),
    ] {
        let webhook = genuine().path(target);
        cases.push(Case::http1(format!("target {target}"), http1(&webhook), may).with(&webhook));
    }
    let webhook = genuine().path(&format!("/webhooks/github?{}", "a".repeat(40_000)));
    cases.push(Case::http1("target of 40 KB", http1(&webhook), &["431", "414", "400"]));
    let webhook = genuine().path(&format!("/webhooks/github/{}", "a/".repeat(8_000)));
    cases.push(Case::http1("target of 8,000 segments", http1(&webhook), &["404 unknown_hook"]));
}

fn methods(cases: &mut Vec<Case>) {
    for (method, may) in [
        ("GET", &["405 method_not_allowed"] as &[&str]),
        ("PUT", &["405 method_not_allowed"]),
        ("DELETE", &["405 method_not_allowed"]),
        ("OPTIONS", &["405 method_not_allowed"]),
        ("PATCH", &["405 method_not_allowed"]),
        ("TRACE", &["405 method_not_allowed", "400"]),
        ("HEAD", &["405 method_not_allowed"]),
        ("CONNECT", &["400", "404", "403"]),
        ("PRI", &["400", "405 method_not_allowed"]),
        ("post", &["400", "405 method_not_allowed"]),
        ("POSTS", &["400", "405 method_not_allowed"]),
    ] {
        let webhook = genuine();
        let bytes = replaced(&webhook, "POST ", format!("{method} "));
        cases.push(Case::http1(format!("method {method:?}"), bytes, may));
    }
}

fn fields(cases: &mut Vec<Case>) {
    let digits = |webhook: &Webhook| hmac_sha256(SECRET, &webhook.body);
    let line = |name: &str, line: &[u8], may: &[&str]| {
        let webhook = genuine();
        let bytes = replaced(&webhook, "user-agent: GitHub-Hookshot/edb0a01", line);
        Case::http1(format!("field {name}"), bytes, may).with(&webhook)
    };
    cases.extend([
        line("with bytes beyond ASCII", b"x: \xff\xfe\x80", ACCEPTED),
        line("with UTF-8", "x: \u{e9}\u{1f600}".as_bytes(), ACCEPTED),
        line("with a carriage return", b"x: a\rb", LENIENT),
        line("with a control character", b"x: a\x01b", &["400", "202 accepted"]),
        line("with DEL", b"x: a\x7fb", &["400", "202 accepted"]),
        line("with a tab", b"x: a\tb", ACCEPTED),
        line("without a value", b"x:", ACCEPTED),
        line("folded", b"x: a\r\n b", &["400", "202 accepted"]),
        line("folded by a tab", b"x: a\r\n\tb", &["400", "202 accepted"]),
        line("with an underscore", b"x_y: z", BAD),
        line("that names another host", b"host: other.test", HOSTS),
        line("of 16 KB", format!("x: {}", "a".repeat(16_000)).as_bytes(), ACCEPTED),
        line("of 40 KB", format!("x: {}", "a".repeat(40_000)).as_bytes(), &["431", "400"]),
        line("with a name of 40 KB", format!("{}: x", "a".repeat(40_000)).as_bytes(), &["431", "400"]),
        line("60 times", ["x: y"; 60].join("\r\n").as_bytes(), &["431", "400"]),
        line("40 times", ["x: y"; 40].join("\r\n").as_bytes(), ACCEPTED),
        line("60,000 times", ["x: y"; 60_000].join("\r\n").as_bytes(), &["431", "400"]),
        line("that would be cut off as the connection's", b"connection: x-hub-signature-256", &["202 accepted", "401 signature_missing", "400"]),
        line("that would cut off the length", b"connection: content-length, close", &["202 accepted", "400"]),
        line("that asks for another protocol", b"connection: upgrade\r\nupgrade: websocket", &["403", "202 accepted", "400"]),
        line("that asks for HTTP/2", b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA", &["403", "202 accepted", "400"]),
        line("that expects what nobody has", b"expect: 200-maybe", &["202 accepted", "417"]),
        line("that waits to continue", b"expect: 100-continue", &["100, 202 accepted", "202 accepted"]),
        line("that claims an address", b"x-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1", ACCEPTED),
        line("that claims another path", b"x-envoy-original-path: /admin\r\nx-original-url: /admin", ACCEPTED),
        line("that sets a timeout", b"x-envoy-upstream-rq-timeout-ms: 1", ACCEPTED),
        line("that claims an outcome", b"x-edgerunner-outcome: accepted", ACCEPTED),
        line("of another method", b"x-http-method-override: DELETE", ACCEPTED),
        line("that says gzip", b"content-encoding: gzip", &["202 accepted", "415 media_type"]),
    ]);

    for (name, make, may) in [
        (
            "folded",
            (|d| format!("x-hub-signature-256: sha256=\r\n {d}")) as fn(&str) -> String,
            &["400", "400 signature_malformed"] as &[&str],
        ),
        (
            "folded before its value",
            |d| format!("x-hub-signature-256:\r\n sha256={d}"),
            &["400", "400 signature_malformed", "202 accepted"],
        ),
        ("with a space before the colon", |d| format!("x-hub-signature-256 : sha256={d}"), BAD),
        ("with an underscore", |d| format!("x_hub_signature_256: sha256={d}"), BAD),
        ("in capitals", |d| format!("X-HUB-SIGNATURE-256: sha256={d}"), ACCEPTED),
        ("among spaces", |d| format!("x-hub-signature-256: \t sha256={d} \t "), ACCEPTED),
        (
            "twice in other letters",
            |d| format!("x-hub-signature-256: sha256={d}\r\nX-Hub-Signature-256: sha256={d}"),
            &["400 signature_malformed"],
        ),
        (
            "and an empty one",
            |d| format!("x-hub-signature-256: sha256={d}\r\nx-hub-signature-256:"),
            &["400 signature_malformed"],
        ),
        ("after a line feed", |d| format!("x: y\nx-hub-signature-256: sha256={d}"), LENIENT),
        (
            "after a carriage return",
            |d| format!("x: y\rx-hub-signature-256: sha256={d}"),
            &["400", "401 signature_missing"],
        ),
        ("after a zero byte", |d| format!("x-hub-signature-256: \0sha256={d}"), BAD),
    ] {
        let webhook = genuine();
        let digits = digits(&webhook);
        let bytes =
            replaced(&webhook, &format!("x-hub-signature-256: sha256={digits}"), make(&digits));
        cases.push(Case::http1(format!("signature {name}"), bytes, may).with(&webhook));
    }
    for (name, host, may) in [
        ("missing", "", BAD),
        ("empty", "host:\r\n", &["400", "202 accepted"] as &[&str]),
        ("twice", "host: a\r\nhost: b\r\n", HOSTS),
        ("twice, the same", "host: a\r\nhost: a\r\n", HOSTS),
        ("with a path", "host: a/b\r\n", &["400", "202 accepted"]),
        ("with bytes beyond ASCII", "host: \u{e9}\r\n", &["400", "202 accepted"]),
        ("with a user", "host: a@b\r\n", &["400", "202 accepted"]),
    ] {
        let webhook = genuine();
        let bytes = replaced(&webhook, "host: hooks.test\r\n", host);
        cases.push(Case::http1(format!("host {name}"), bytes, may).with(&webhook));
    }
}

fn trailers(cases: &mut Vec<Case>) {
    let trailers =
        |name: &str, sign: fn(Webhook) -> Webhook, trailers: fn(&str) -> String, may: &[&str]| {
            let webhook = genuine();
            let trailers = trailers(&hmac_sha256(SECRET, &webhook.body));
            let webhook = sign(webhook);
            let rest = [
                raw::chunk(&webhook.body),
                b"0\r\n".to_vec(),
                trailers.into_bytes(),
                b"\r\n\r\n".to_vec(),
            ];
            let bytes = request(&webhook, "transfer-encoding: chunked", rest.concat());
            Case::http1(format!("trailers {name}"), bytes, may).with(&webhook)
        };
    let unsigned = |webhook: Webhook| webhook.without("x-hub-signature-256");
    let wrong = |webhook: Webhook| webhook.signed_with("another secret");
    let right = |webhook: Webhook| webhook;
    cases.extend([
        trailers(
            "that carry the signature",
            unsigned,
            |d| format!("x-hub-signature-256: sha256={d}"),
            &["401 signature_missing"],
        ),
        trailers(
            "that announce and carry it",
            |w| w.without("x-hub-signature-256").and_header("trailer", "x-hub-signature-256"),
            |d| format!("x-hub-signature-256: sha256={d}"),
            &["401 signature_missing"],
        ),
        trailers(
            "that correct the signature",
            wrong,
            |d| format!("x-hub-signature-256: sha256={d}"),
            &["401 signature_mismatch"],
        ),
        trailers(
            "that spoil the signature",
            right,
            |_| "x-hub-signature-256: sha256=0".to_owned(),
            ACCEPTED,
        ),
        trailers(
            "that repeat the signature",
            right,
            |d| format!("x-hub-signature-256: sha256={d}"),
            ACCEPTED,
        ),
        trailers(
            "that name another delivery",
            right,
            |_| "x-github-delivery: x\r\nx-github-event: ping".to_owned(),
            ACCEPTED,
        ),
        trailers(
            "with a length",
            right,
            |_| "content-length: 1".to_owned(),
            &["202 accepted", "400"],
        ),
        trailers(
            "with an encoding",
            right,
            |_| "transfer-encoding: chunked".to_owned(),
            &["202 accepted", "400"],
        ),
        trailers("with bytes beyond ASCII", right, |_| "x: \u{e9}".to_owned(), ACCEPTED),
        trailers(
            "100 times",
            right,
            |_| ["x: y"; 100].join("\r\n"),
            &["202 accepted", "400", "431"],
        ),
        trailers("of 100 KB", right, |_| format!("x: {}", "a".repeat(100_000)), &["400", "431"]),
        trailers("with an underscore", right, |_| "x_y: z".to_owned(), &["202 accepted", "400"]),
    ]);
}

fn pipelines(cases: &mut Vec<Case>) {
    let good = || {
        let webhook = genuine();
        (http1(&webhook), webhook)
    };
    let (many, webhooks): (Vec<_>, Vec<_>) = (0..20).map(|_| good()).unzip();
    let mut case = Case::http1("20 in one go", many.concat(), &[&["202 accepted"; 20].join(", ")]);
    case.genuine = webhooks;
    cases.push(case);

    let unsigned = || http1(&genuine().without("x-hub-signature-256"));
    let wrong = || http1(&genuine().signed_with("another secret"));
    let (first, a) = good();
    let (last, b) = good();
    cases.push(
        Case::http1(
            "one wrongly signed between genuine ones",
            [first, wrong(), last].concat(),
            &["202 accepted, 401 signature_mismatch, 202 accepted"],
        )
        .with(&a)
        .with(&b),
    );
    let (first, a) = good();
    let (last, b) = good();
    cases.push(
        Case::http1(
            "an unsigned one between genuine ones",
            [first, unsigned(), last].concat(),
            &[
                "202 accepted, 401 signature_missing, 202 accepted",
                "202 accepted, 401 signature_missing",
            ],
        )
        .with(&a)
        .with(&b),
    );
    let (first, a) = good();
    cases.push(
        Case::http1(
            "garbage after a genuine one",
            [first, b"\0\0garbage\r\n\r\n".to_vec()].concat(),
            &["202 accepted, 400", "400"],
        )
        .with(&a),
    );
    let (first, a) = good();
    let (second, b) = good();
    let twice = [&first[..], &first[..first.len() / 2]].concat();
    cases.push(
        Case::http1_steps(
            "a genuine one and half of another, then the end",
            vec![Step::Send(twice), Step::Wait(Duration::from_millis(100)), Step::Shut],
            &["202 accepted", "202 accepted, 400", "closed"],
        )
        .with(&a),
    );
    // The body contains another request.
    let outer = Webhook::new("workflow_job", second);
    cases.push(
        Case::http1(
            "a genuine one within a signed body",
            http1(&outer),
            &["400 payload_malformed"],
        )
        .with(&outer)
        .with(&b),
    );
    cases.push(Case::http1(
        "100 that are not for us",
        b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100),
        // Envoy closes a connection with this many requests in advance.
        &[&["404"; 100].join(", "), "404, 404"],
    ));
}

fn slow(cases: &mut Vec<Case>) {
    let send = |bytes: &[u8]| Step::Send(bytes.to_vec());
    let wait = |ms| Step::Wait(Duration::from_millis(ms));
    let halves = |webhook: &Webhook| {
        let bytes = http1(webhook);
        let head = bytes.len() - webhook.body.len();
        let at = head + webhook.body.len() / 2;
        (bytes[..head - 4].to_vec(), bytes[..at].to_vec(), bytes[at..].to_vec())
    };
    let webhook = genuine();
    let (head, first, rest) = halves(&webhook);
    cases.push(Case::http1_steps("headers without an end", vec![send(&head)], &["408", "closed"]));
    cases.push(Case::http1_steps("half a body", vec![send(&first)], &["408"]));
    cases.push(
        Case::http1_steps(
            "half a body, a second, and the rest",
            vec![send(&first), wait(1_000), send(&rest)],
            ACCEPTED,
        )
        .with(&webhook),
    );
    let webhook = genuine();
    let (head, first, _) = halves(&webhook);
    cases.push(Case::http1_steps(
        "half the headers, and no more to come",
        vec![send(&head), wait(100), Step::Shut],
        &["closed", "400"],
    ));
    cases.push(Case::http1_steps(
        "half a body, and no more to come",
        vec![send(&first), wait(100), Step::Shut],
        &["closed", "400", "408"],
    ));
    // The sender may not get the response, but the delivery counts.
    cases.push(
        Case::http1_steps(
            "a whole one, and no more to come",
            vec![send(&http1(&webhook)), Step::Shut],
            &["closed", "202 accepted"],
        )
        .with(&webhook),
    );
    let webhook = genuine();
    let drip = |bytes: &[u8], ms| -> Vec<Step> {
        bytes.iter().flat_map(|byte| [send(&[*byte]), wait(ms)]).collect()
    };
    cases.push(
        Case::http1_steps("one byte at a time", drip(&http1(&webhook), 0), ACCEPTED).with(&webhook),
    );
    cases.push(Case::http1_steps(
        "headers, a byte every 50 ms",
        drip(&http1(&genuine()), 50),
        &["408", "closed"],
    ));
    let (_, first, rest) = halves(&genuine());
    let steps = [vec![send(&first)], drip(&rest, 200)].into_iter().flatten().collect();
    cases.push(Case::http1_steps("a body, a byte every 200 ms", steps, &["408"]));
    let webhook = genuine();
    let chunked = with_chunks(&webhook);
    let drops = drip(&b"1\r\n \r\n".repeat(20), 40);
    let steps = [vec![send(&chunked)], drops].into_iter().flatten().collect();
    cases.push(Case::http1_steps("chunks without an end", steps, &["408"]));
    cases.push(Case::http1_steps(
        "a connection, and no more to come",
        vec![Step::Shut],
        &["closed"],
    ));
    cases.push(Case::http1_steps(
        "one byte, and no more to come",
        vec![send(b"P"), Step::Shut],
        &["closed", "400"],
    ));
}

fn with_chunks(webhook: &Webhook) -> Vec<u8> {
    request(webhook, "transfer-encoding: chunked", raw::chunk(&webhook.body))
}

fn others(cases: &mut Vec<Case>) {
    let webhook = genuine();
    let lines = "content-length: 26214401";
    cases.push(Case::http1(
        "a length over the limit",
        request(&webhook, lines, ""),
        &["413 too_large"],
    ));
    let webhook = genuine();
    let rest = [&raw::chunk(&webhook.body)[..], b"0000000\r\n\r\n"].concat();
    let bytes = request(&webhook, "transfer-encoding: chunked", rest);
    cases.push(Case::http1("an end of many zeros", bytes, ACCEPTED).with(&webhook));
    let webhook = genuine().header("x-github-delivery", "a".repeat(65));
    cases.push(Case::http1("a GUID of 65 bytes", http1(&webhook), &["400 header_malformed"]));
}

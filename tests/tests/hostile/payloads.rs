//! Signed bodies that GitHub does not send.

use edgerunner_tests::{Webhook, payload};

use crate::case::{Case, http1, next_job};

const MALFORMED: &str = "400 payload_malformed";
const ACCEPTED: &str = "202 accepted";
const IGNORED: &str = "202 ignored";
const FORM: &str = "application/x-www-form-urlencoded";

/// Sent in two ways only.
const LARGE: usize = 300_000;

type Make = fn(&str) -> Vec<u8>;
type Encode = fn(&str) -> String;

fn bodies() -> Vec<(&'static str, Make, &'static [&'static str])> {
    fn with(job: &str, more: impl AsRef<[u8]>) -> Vec<u8> {
        [job.strip_suffix('}').expect("an object").as_bytes(), b",", more.as_ref(), b"}"].concat()
    }
    fn in_job(job: &str, from: &str, to: impl AsRef<[u8]>) -> Vec<u8> {
        let (before, after) = job.split_once(from).unwrap_or_else(|| panic!("no {from}: {job}"));
        [before.as_bytes(), to.as_ref(), after.as_bytes()].concat()
    }
    const LABELS: &str = r#"["self-hosted","nobody-has-this"]"#;
    const NAME: &str = r#""build""#;
    const REPOSITORY: &str = r#"{"full_name":"acme/app","private":true}"#;
    vec![
        ("as it should be", |job| job.into(), &[ACCEPTED]),
        ("null", |_| b"null".to_vec(), &[MALFORMED]),
        ("true", |_| b"true".to_vec(), &[MALFORMED]),
        ("a number", |_| b"0".to_vec(), &[MALFORMED]),
        ("a string", |_| br#""queued""#.to_vec(), &[MALFORMED]),
        ("an array", |_| b"[]".to_vec(), &[MALFORMED]),
        (
            "an array of the fields",
            |job| {
                let job: serde_json::Value = serde_json::from_str(job).expect("JSON");
                let fields = ["action", "workflow_job", "repository", "organization"];
                let fields = fields.map(|field| job[field].to_string()).join(",");
                format!("[{fields},null,null]").into()
            },
            &[MALFORMED],
        ),
        (
            "a repository as an array",
            |job| in_job(job, REPOSITORY, r#"["acme/app"]"#),
            &[MALFORMED],
        ),
        ("an empty object", |_| b"{}".to_vec(), &[MALFORMED]),
        ("nothing", |_| Vec::new(), &[MALFORMED]),
        ("spaces", |_| vec![b' '; 1 << 16], &[MALFORMED]),
        ("zeros", |_| vec![0; 1 << 16], &[MALFORMED]),
        ("twice", |job| format!("{job}{job}").into(), &[MALFORMED]),
        ("with trailing garbage", |job| format!("{job}x").into(), &[MALFORMED]),
        ("with a trailing zero byte", |job| format!("{job}\0").into(), &[MALFORMED]),
        (
            "with 1 MB of trailing spaces",
            |job| format!("{job}{}", " ".repeat(1 << 20)).into(),
            &[ACCEPTED],
        ),
        ("cut short", |job| job[..job.len() - 1].into(), &[MALFORMED]),
        ("with a BOM", |job| format!("\u{feff}{job}").into(), &[MALFORMED]),
        ("in UTF-16", |job| job.encode_utf16().flat_map(u16::to_le_bytes).collect(), &[MALFORMED]),
        ("gzip", |_| GZIP.to_vec(), &[MALFORMED]),
        ("with a comment", |job| format!("/**/{job}").into(), &[MALFORMED]),
        ("with a trailing comma", |job| with(job, ""), &[MALFORMED]),
        ("in single quotes", |job| job.replace('"', "'").into(), &[MALFORMED]),
        ("NaN", |job| with(job, r#""x":NaN"#), &[MALFORMED]),
        ("infinity", |job| with(job, r#""x":Infinity"#), &[MALFORMED]),
        ("a number with zeros before", |job| with(job, r#""x":01"#), &[MALFORMED]),
        ("a number with a plus", |job| with(job, r#""x":+1"#), &[MALFORMED]),
        ("a number in hexadecimal", |job| with(job, r#""x":0x1"#), &[MALFORMED]),
        ("a raw line feed in a string", |job| with(job, "\"x\":\"a\nb\""), &[MALFORMED]),
        ("an unknown escape", |job| with(job, r#""x":"\x41""#), &[MALFORMED]),
        ("100,000 arrays deep", |job| with(job, nested("[", "]")), &[ACCEPTED, MALFORMED]),
        ("100,000 objects deep", |job| with(job, nested(r#"{"a":"#, "1}")), &[ACCEPTED, MALFORMED]),
        (
            "100,000 arrays deep and open",
            |job| with(job, format!(r#""x":{}"#, "[".repeat(100_000))),
            &[MALFORMED],
        ),
        (
            "100,000 objects deep and open",
            |job| with(job, format!(r#""x":{}"#, r#"{"a":"#.repeat(100_000))),
            &[MALFORMED],
        ),
        ("nothing but 100,000 arrays", |_| "[".repeat(100_000).into(), &[MALFORMED]),
        ("nothing but 100,000 objects", |_| r#"{"action":"#.repeat(100_000).into(), &[MALFORMED]),
        (
            "labels 100,000 deep",
            |job| in_job(job, LABELS, "[".repeat(100_000) + &"]".repeat(100_000)),
            &[MALFORMED],
        ),
        ("an action twice", |job| with(job, r#""action":"completed""#), &[MALFORMED]),
        ("an action twice, the same", |job| with(job, r#""action":"queued""#), &[MALFORMED]),
        (
            "an action twice, once escaped",
            |job| with(job, r#""\u0061ction":"completed""#),
            &[MALFORMED],
        ),
        ("a job twice", |job| with(job, r#""workflow_job":{"id":1}"#), &[MALFORMED]),
        ("an id twice", |job| in_job(job, r#""run_id":1"#, r#""run_id":1,"id":1"#), &[MALFORMED]),
        (
            "labels twice",
            |job| in_job(job, LABELS, format!(r#"{LABELS},"labels":[]"#)),
            &[MALFORMED],
        ),
        (
            "a repository twice",
            |job| with(job, r#""repository":{"full_name":"other/app"}"#),
            &[MALFORMED],
        ),
        (
            "a repository's name twice",
            |job| {
                in_job(
                    job,
                    r#""full_name":"acme/app""#,
                    r#""full_name":"acme/app","full_name":"other/app""#,
                )
            },
            &[MALFORMED],
        ),
        ("an unread key twice", |job| with(job, r#""x":1,"x":2"#), &[ACCEPTED]),
        ("an action in other letters too", |job| with(job, r#""Action":"completed""#), &[ACCEPTED]),
        (
            "an action with a zero in its key too",
            |job| with(job, r#""action\u0000":"completed""#),
            &[ACCEPTED],
        ),
        ("an unread 1e400", |job| with(job, r#""x":1e400"#), &[ACCEPTED, MALFORMED]),
        (
            "an unread number of 100,000 digits",
            |job| with(job, format!(r#""x":{}"#, "9".repeat(100_000))),
            &[ACCEPTED, MALFORMED],
        ),
        (
            "an unread number of 1 MB",
            |job| with(job, format!(r#""x":0.{}"#, "9".repeat(1 << 20))),
            &[ACCEPTED, MALFORMED],
        ),
        ("a run of 1e400", |job| in_job(job, r#""run_id":1"#, r#""run_id":1e400"#), &[MALFORMED]),
        ("a run of 1e2", |job| in_job(job, r#""run_id":1"#, r#""run_id":1e2"#), &[MALFORMED]),
        ("a run of 1.0", |job| in_job(job, r#""run_id":1"#, r#""run_id":1.0"#), &[MALFORMED]),
        ("a run of -1", |job| in_job(job, r#""run_id":1"#, r#""run_id":-1"#), &[MALFORMED]),
        (
            "a run of 2^64",
            |job| in_job(job, r#""run_id":1"#, r#""run_id":18446744073709551616"#),
            &[MALFORMED],
        ),
        (
            "a run of 2^64 - 1",
            |job| in_job(job, r#""run_id":1"#, r#""run_id":18446744073709551615"#),
            &["400 refused"],
        ),
        (
            "a run of 2^63 - 1",
            |job| in_job(job, r#""run_id":1"#, r#""run_id":9223372036854775807"#),
            &[ACCEPTED],
        ),
        (
            "a run of 100,000 digits",
            |job| in_job(job, r#""run_id":1"#, format!(r#""run_id":{}"#, "9".repeat(100_000))),
            &[MALFORMED],
        ),
        ("a run in quotes", |job| in_job(job, r#""run_id":1"#, r#""run_id":"1""#), &[MALFORMED]),
        ("a run that is null", |job| in_job(job, r#""run_id":1"#, r#""run_id":null"#), &[ACCEPTED]),
        (
            "an attempt of 2^32",
            |job| in_job(job, r#""run_attempt":1"#, r#""run_attempt":4294967296"#),
            &[MALFORMED],
        ),
        (
            "an attempt of 0",
            |job| in_job(job, r#""run_attempt":1"#, r#""run_attempt":0"#),
            &[ACCEPTED],
        ),
        ("a name that is no UTF-8", |job| in_job(job, NAME, b"\"\xff\""), &[MALFORMED]),
        ("an unread name that is no UTF-8", |job| with(job, b"\"x\":\"\xff\""), &[MALFORMED]),
        ("an unread key that is no UTF-8", |job| with(job, b"\"\xff\":1"), &[MALFORMED]),
        ("an overlong slash", |job| with(job, b"\"x\":\"\xc0\xaf\""), &[MALFORMED]),
        ("an encoded surrogate", |job| with(job, b"\"x\":\"\xed\xa0\x80\""), &[MALFORMED]),
        (
            "a character beyond Unicode",
            |job| with(job, b"\"x\":\"\xf4\x90\x80\x80\""),
            &[MALFORMED],
        ),
        ("a lone high surrogate", |job| in_job(job, NAME, r#""\ud800""#), &[MALFORMED]),
        ("a lone low surrogate", |job| in_job(job, NAME, r#""\udc00""#), &[MALFORMED]),
        (
            "surrogates in the wrong order",
            |job| in_job(job, NAME, r#""\udc00\ud800""#),
            &[MALFORMED],
        ),
        ("a surrogate and a letter", |job| in_job(job, NAME, r#""\ud800\u0041""#), &[MALFORMED]),
        ("an unread lone surrogate", |job| with(job, r#""x":"\ud800""#), &[ACCEPTED, MALFORMED]),
        (
            "a name of surrogates in pairs",
            |job| in_job(job, NAME, r#""\ud83d\ude00""#),
            &[ACCEPTED],
        ),
        ("a name with a zero", |job| in_job(job, NAME, r#""a\u0000b""#), &[ACCEPTED]),
        ("a name with line ends", |job| in_job(job, NAME, r#""a\r\nb\u001b[2J""#), &[ACCEPTED]),
        (
            "a name of 1 MiB",
            |job| in_job(job, NAME, format!(r#""{}""#, "n".repeat(1 << 20))),
            &[ACCEPTED],
        ),
        (
            "100,000 labels",
            |job| in_job(job, LABELS, format!("[{}]", [r#""label""#; 100_000].join(","))),
            &[ACCEPTED],
        ),
        (
            "a label of 1 MiB",
            |job| in_job(job, LABELS, format!(r#"["{}"]"#, "l".repeat(1 << 20))),
            &[ACCEPTED],
        ),
        (
            "a label of 5 MiB",
            |job| in_job(job, LABELS, format!(r#"["{}"]"#, "l".repeat(5 << 20))),
            &[ACCEPTED, "400 refused", "400 payload_malformed"],
        ),
        (
            "a label of 1 MiB of escapes",
            |job| in_job(job, LABELS, format!(r#"["{}"]"#, r"\u00fc".repeat(1 << 17))),
            &[ACCEPTED],
        ),
        ("an empty label", |job| in_job(job, LABELS, r#"[""]"#), &[ACCEPTED]),
        ("no labels", |job| in_job(job, LABELS, "[]"), &[ACCEPTED]),
        ("labels that are null", |job| in_job(job, LABELS, "null"), &[ACCEPTED]),
        ("labels of null", |job| in_job(job, LABELS, "[null]"), &[MALFORMED]),
        ("labels of numbers", |job| in_job(job, LABELS, "[1]"), &[MALFORMED]),
        ("labels in an object", |job| in_job(job, LABELS, r#"{"0":"a"}"#), &[MALFORMED]),
        ("labels in a string", |job| in_job(job, LABELS, r#""self-hosted""#), &[MALFORMED]),
        (
            "100,000 unread keys",
            |job| {
                with(
                    job,
                    (0..100_000).map(|key| format!(r#""{key}":0"#)).collect::<Vec<_>>().join(","),
                )
            },
            &[ACCEPTED],
        ),
        ("a key of 1 MiB", |job| with(job, format!(r#""{}":0"#, "k".repeat(1 << 20))), &[ACCEPTED]),
        (
            "1 MiB of backslashes",
            |job| with(job, format!(r#""x":"{}""#, r"\\".repeat(1 << 19))),
            &[ACCEPTED],
        ),
        ("another action", |job| in_job(job, "queued", "waiting"), &[IGNORED]),
        ("an action of 1 MiB", |job| in_job(job, "queued", "q".repeat(1 << 20)), &[IGNORED]),
        ("an action with markup", |job| in_job(job, "queued", r#"<script>\r\n\u0000"#), &[IGNORED]),
        ("an action that is null", |job| in_job(job, r#""queued""#, "null"), &[MALFORMED]),
        ("an action that is a number", |job| in_job(job, r#""queued""#, "1"), &[MALFORMED]),
        (
            "a job that is null",
            |_| {
                br#"{"action":"queued","workflow_job":null,"repository":{"full_name":"a/b"}}"#
                    .to_vec()
            },
            &[MALFORMED],
        ),
        (
            "an id of 0",
            |_| {
                br#"{"action":"queued","workflow_job":{"id":0},"repository":{"full_name":"a/b"}}"#
                    .to_vec()
            },
            &[MALFORMED],
        ),
        (
            "an id of -0",
            |_| {
                br#"{"action":"queued","workflow_job":{"id":-0},"repository":{"full_name":"a/b"}}"#
                    .to_vec()
            },
            &[MALFORMED],
        ),
        (
            "an id of 2^64 - 1",
            |_| {
                br#"{"action":"queued","workflow_job":{"id":18446744073709551615},"repository":{"full_name":"a/b"}}"#.to_vec()
            },
            &["400 refused"],
        ),
        ("a repository without a name", |job| in_job(job, r#""acme/app""#, r#""""#), &[MALFORMED]),
        (
            "a repository that climbs",
            |job| in_job(job, r#""acme/app""#, r#""../../x?y#z""#),
            &[MALFORMED],
        ),
        (
            "a repository of 1 MiB",
            |job| in_job(job, r#""acme/app""#, format!(r#""acme/{}""#, "a".repeat(1 << 20))),
            &[MALFORMED],
        ),
    ]
}

pub(crate) fn cases() -> Vec<Case> {
    let job = || payload("queued", next_job()).to_string();
    let mut cases = Vec::new();
    for (name, make, may) in bodies() {
        let webhook = Webhook::new("workflow_job", make(&job()));
        cases.push(Case::http1(format!("signed {name}"), http1(&webhook), may).with(&webhook));
        let webhook = Webhook::new("workflow_job", make(&job()));
        cases.push(Case::http2(format!("signed {name}"), &webhook, may).with(&webhook));
        let body = make(&job());
        if body.len() > LARGE {
            continue;
        }
        let encoded: String = form_urlencoded::byte_serialize(&body).collect();
        let webhook =
            Webhook::new("workflow_job", format!("payload={encoded}")).header("content-type", FORM);
        cases.push(Case::http2(format!("signed form, {name}"), &webhook, may).with(&webhook));
        // It is not parsed, so it need not be JSON.
        for (event, may) in [("ping", "200 pong"), ("push", IGNORED)] {
            let webhook = Webhook::new(event, make(&job()));
            let name = format!("signed {event}, {name}");
            cases.push(Case::http2(name, &webhook, &[may]).with(&webhook));
        }
    }
    forms(&mut cases);
    cases
}

fn forms(cases: &mut Vec<Case>) {
    let encoded = || -> String {
        form_urlencoded::byte_serialize(payload("queued", next_job()).to_string().as_bytes())
            .collect()
    };
    let forms: [(&str, Encode, &[&str]); 14] = [
        ("twice", |e| format!("payload={e}&payload={e}"), &[MALFORMED]),
        ("and an empty one", |e| format!("payload={e}&payload="), &[MALFORMED]),
        ("after a bare one", |e| format!("payload&payload={e}"), &[MALFORMED]),
        ("and one by an escaped name", |e| format!("payload={e}&%70ayload="), &[MALFORMED]),
        ("by an escaped name", |e| format!("%70ayload={e}"), &[ACCEPTED]),
        ("in capitals", |e| format!("PAYLOAD={e}"), &[MALFORMED]),
        ("in an array", |e| format!("payload[]={e}"), &[MALFORMED]),
        ("after a semicolon", |e| format!("a=b;payload={e}"), &[MALFORMED]),
        ("among others", |e| format!("a=b&payload={e}&c&&=&d="), &[ACCEPTED]),
        ("among 100,000 others", |e| format!("{}payload={e}", "a=b&".repeat(100_000)), &[ACCEPTED]),
        ("with a cut escape", |e| format!("payload={e}%7"), &[MALFORMED]),
        ("with a bad escape", |e| format!("payload={e}%zz"), &[MALFORMED]),
        ("with a line feed", |e| format!("payload={e}\n"), &[ACCEPTED, MALFORMED]),
        ("without a value", |_| "payload".to_owned(), &[MALFORMED]),
    ];
    for (name, make, may) in forms {
        let webhook = Webhook::new("workflow_job", make(&encoded())).header("content-type", FORM);
        cases.push(Case::http1(format!("form {name}"), http1(&webhook), may).with(&webhook));
        let webhook = Webhook::new("workflow_job", make(&encoded())).header("content-type", FORM);
        cases.push(Case::http2(format!("form {name}"), &webhook, may).with(&webhook));
    }
    // Each with the other's content type.
    let webhook = Webhook::new("workflow_job", format!("payload={}", encoded()));
    cases.push(Case::http2("a form that says JSON", &webhook, &[MALFORMED]).with(&webhook));
    let webhook =
        Webhook::workflow_job(&payload("queued", next_job())).header("content-type", FORM);
    cases.push(Case::http2("JSON that says form", &webhook, &[MALFORMED]).with(&webhook));
    let webhook = Webhook::new("workflow_job", GZIP).header("content-encoding", "gzip");
    cases.push(Case::http2("gzip that says so", &webhook, &[MALFORMED]).with(&webhook));
}

fn nested(open: &str, close: &str) -> String {
    const DEPTH: usize = 100_000;
    let (value, close) = close.split_once('1').map_or(("", close), |(_, close)| ("1", close));
    format!(r#""x":{}{value}{}"#, open.repeat(DEPTH), close.repeat(DEPTH))
}

/// The signature of `{}`.
const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0";

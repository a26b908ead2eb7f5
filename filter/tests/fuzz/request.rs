//! A genuine delivery, and edits of it that are derived from the fuzzer's input.

use std::rc::Rc;

use edgerunner_filter::{
    config::Config,
    delivery::{Delivery, Step},
    headers::Headers,
};

use crate::oracle::{self, SECRETS};

pub(crate) const QUEUED: &[u8] = include_bytes!("../fixtures/queued.json");
/// Enough for every body here, except those that a script makes too long on purpose.
pub(crate) const BODY_MAX: usize = 16_384;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn genuine(body: &[u8]) -> Self {
        let signature = format!("sha256={}", hex::encode(oracle::hmac(SECRETS[0], body)));
        let headers = [
            (":method", "POST"),
            (":path", "/webhooks/github"),
            (":authority", "hooks.example.com"),
            ("content-type", "application/json"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-github-event", "workflow_job"),
            ("x-github-hook-id", "292430182"),
            ("x-hub-signature-256", &signature),
        ];
        let headers =
            headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
        Self { headers, body: body.to_vec() }
    }

    pub(crate) fn signature(&self) -> &[u8] {
        self.headers.last().map(|(_, value)| value.as_slice()).unwrap()
    }

    pub(crate) fn set(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }

    pub(crate) fn headers_only(&self) -> Step {
        delivery().headers(Headers::new(&self.headers))
    }

    pub(crate) fn send(&self) -> Step {
        self.send_cut(&[])
    }

    /// Each byte of `cuts` is the length of one chunk; the rest is sent as one.
    pub(crate) fn send_cut(&self, cuts: &[u8]) -> Step {
        let mut delivery = delivery();
        let mut step = delivery.headers(Headers::new(&self.headers));
        let mut rest = self.body.as_slice();
        for length in cuts.iter().map(|cut| usize::from(*cut)).chain([usize::MAX]) {
            if step != Step::Wait {
                return step;
            }
            let (chunk, remaining) = rest.split_at(length.min(rest.len()));
            step = delivery.chunk(chunk);
            rest = remaining;
        }
        if step == Step::Wait {
            step = delivery.end(|| Some(self.body.clone()));
        }
        // Later input does not change the answer.
        if step != Step::Continue {
            assert_eq!(delivery.chunk(b"more"), Step::Wait);
            assert_eq!(delivery.end(|| panic!("fetched again")), Step::Wait);
        }
        step
    }
}

fn delivery() -> Delivery {
    thread_local! {
        static CONFIG: Rc<Config> = Rc::new(config());
    }
    Delivery::new(CONFIG.with(Rc::clone))
}

fn config() -> Config {
    let json = format!(r#"{{"max_body_bytes": {BODY_MAX}}}"#);
    Config::parse(json.as_bytes(), |name| match name {
        "GITHUB_WEBHOOK_SECRET" => Some(SECRETS[0].to_owned()),
        "GITHUB_WEBHOOK_SECRET_PREVIOUS" => Some(SECRETS[1].to_owned()),
        _ => None,
    })
    .unwrap()
}

/// Tokens that are significant to one of the parsers.
const WORDS: [&[u8]; 42] = [
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"0.1",
    b"\"\"",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\r\n",
    b"\0",
    b" ",
    b"&",
    b"=",
    b"%",
    b"%7b",
    b"+",
    b"payload=",
    b"sha256=",
    b"sha1=",
    b",sha256=",
    b"\"action\":\"queued\",",
    b"\"id\":1,",
    b"\"workflow_job\":{},",
    b"/",
    b"?",
    b"/../",
    b"\"full_name\":\"../x\",",
    b"\"login\":\"..\",",
    b"POST",
    b"x-hub-signature-256",
];

/// Fuzzer input, read as edits of three bytes each: position, operation, operand.
#[derive(Clone, Copy)]
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    /// Low, so that the result is often still nearly valid.
    const EDITS_MAX: usize = 4;

    fn edits(self) -> impl Iterator<Item = [u8; 3]> {
        let edits = self.0.chunks_exact(3).map(|edit| [edit[0], edit[1], edit[2]]);
        edits.take(Self::EDITS_MAX)
    }

    pub(crate) fn edit(self, text: &mut Vec<u8>) {
        for [position, operation, operand] in self.edits() {
            edit(text, position, operation, operand);
        }
    }

    pub(crate) fn edit_headers(self, headers: &mut Vec<(String, Vec<u8>)>) {
        for [position, operation, operand] in self.edits() {
            if headers.is_empty() {
                return;
            }
            let index = usize::from(position) % headers.len();
            match operation % 8 {
                0 => drop(headers.remove(index)),
                1 => headers.push(headers[index].clone()),
                2 => headers[index].0.make_ascii_uppercase(),
                3 => {
                    let name = headers[usize::from(operand) % headers.len()].0.clone();
                    headers[index].0 = name;
                }
                4 => headers.rotate_left(index),
                5 => headers[index].1 = WORDS[usize::from(operand) % WORDS.len()].to_vec(),
                _ => edit(&mut headers[index].1, operand, operation / 8, position),
            }
        }
    }
}

fn edit(text: &mut Vec<u8>, position: u8, operation: u8, operand: u8) {
    // Positions are spread over the whole text.
    let at = text.len() * usize::from(position) / 256;
    match operation % 8 {
        0 => text.truncate(at),
        1 if at < text.len() => drop(text.remove(at)),
        2 => text.insert(at, operand),
        3 if at < text.len() => text[at] = operand,
        4 if at < text.len() => text[at] ^= 0x20,
        5 => drop(text.splice(at..at, WORDS[usize::from(operand) % WORDS.len()].iter().copied())),
        // Repeats a part, such as a key.
        6 => {
            let end = (at + usize::from(operand)).min(text.len());
            let part = text[at..end].to_vec();
            drop(text.splice(at..at, part));
        }
        _ => text.rotate_left(at),
    }
}

//! A genuine delivery, and what bytes without meaning make of it.

use std::rc::Rc;

use edgerunner_filter::{
    config::Config,
    delivery::{Delivery, Step},
    headers::Headers,
};

use crate::oracle::{self, SECRETS};

pub(crate) const QUEUED: &[u8] = include_bytes!("../fixtures/queued.json");
/// Room for every body here but those that the script makes long on purpose.
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

    /// Each byte of `cuts` is the length of one piece; the rest comes at once.
    pub(crate) fn send_cut(&self, cuts: &[u8]) -> Step {
        let mut delivery = delivery();
        let mut step = delivery.headers(Headers::new(&self.headers));
        let mut rest = self.body.as_slice();
        for length in cuts.iter().map(|cut| usize::from(*cut)).chain([usize::MAX]) {
            if step != Step::Wait {
                return step;
            }
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            step = delivery.chunk(piece);
            rest = behind;
        }
        if step == Step::Wait {
            step = delivery.end(|| Some(self.body.clone()));
        }
        // There is one answer, whatever comes behind it.
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

/// Pieces that mean something to one parser or another.
const WORDS: [&[u8]; 40] = [
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
    b"POST",
    b"x-hub-signature-256",
];

/// Input read as orders, three bytes each: where, what, with what.
#[derive(Clone, Copy)]
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    /// Few enough that what is left is often still nearly right.
    const ORDERS_MAX: usize = 4;

    fn orders(self) -> impl Iterator<Item = [u8; 3]> {
        let orders = self.0.chunks_exact(3).map(|order| [order[0], order[1], order[2]]);
        orders.take(Self::ORDERS_MAX)
    }

    pub(crate) fn edit(self, text: &mut Vec<u8>) {
        for [place, what, with] in self.orders() {
            edit(text, place, what, with);
        }
    }

    pub(crate) fn edit_headers(self, headers: &mut Vec<(String, Vec<u8>)>) {
        for [place, what, with] in self.orders() {
            if headers.is_empty() {
                return;
            }
            let index = usize::from(place) % headers.len();
            match what % 8 {
                0 => drop(headers.remove(index)),
                1 => headers.push(headers[index].clone()),
                2 => headers[index].0.make_ascii_uppercase(),
                3 => {
                    let name = headers[usize::from(with) % headers.len()].0.clone();
                    headers[index].0 = name;
                }
                4 => headers.rotate_left(index),
                5 => headers[index].1 = WORDS[usize::from(with) % WORDS.len()].to_vec(),
                _ => edit(&mut headers[index].1, with, what / 8, place),
            }
        }
    }
}

fn edit(text: &mut Vec<u8>, place: u8, what: u8, with: u8) {
    // Places are spread over the whole text.
    let at = text.len() * usize::from(place) / 256;
    match what % 8 {
        0 => text.truncate(at),
        1 if at < text.len() => drop(text.remove(at)),
        2 => text.insert(at, with),
        3 if at < text.len() => text[at] = with,
        4 if at < text.len() => text[at] ^= 0x20,
        5 => drop(text.splice(at..at, WORDS[usize::from(with) % WORDS.len()].iter().copied())),
        // A part twice, as with repeated keys.
        6 => {
            let end = (at + usize::from(with)).min(text.len());
            let part = text[at..end].to_vec();
            drop(text.splice(at..at, part));
        }
        _ => text.rotate_left(at),
    }
}

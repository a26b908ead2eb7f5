//! The pure core against bytes that nobody chose. Each test replays its corpus
//! in `__fuzz__/` first and then goes on with random input for a bounded time;
//! `BOLERO_RANDOM_ITERATIONS` and `BOLERO_RANDOM_TEST_TIME_MS` let it go on for
//! longer, and `cargo bolero test` puts a fuzzer in the place of chance.
//!
//! The oracle shares no code with the filter: it is HMAC over the whole body, a
//! JSON reader and a form reader of others.

mod oracle;
mod request;

use std::time::Duration;

use bolero::check;
use edgerunner_filter::answer::Outcome;
use edgerunner_filter::delivery::Step;
use request::{Request, Script};

/// Whichever comes first.
const ITERATIONS: usize = 20_000;
const TIME: Duration = Duration::from_secs(4);

macro_rules! fuzz {
    ($property:expr) => {
        check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each($property)
    };
}

/// The value of the header, as it is and as changes to a genuine one.
#[test]
fn signature_headers() {
    fuzz!(|input: &[u8]| {
        let genuine = Request::genuine(request::QUEUED);
        let mut changed = genuine.signature().to_vec();
        Script(input).edit(&mut changed);
        for value in [input, &changed] {
            let request = genuine.clone().set("x-hub-signature-256", value);
            let step = request.send();
            assert_eq!(is_verified(&step), oracle::signed_by(value, &request.body).is_some());
            // What is no signature by its looks costs no hashing.
            let refused_early = request.headers_only() != Step::Wait;
            assert_eq!(refused_early, !oracle::is_signature(value));
        }
    });
}

/// Headers dropped, doubled, renamed, and changed within.
#[test]
fn header_maps() {
    fuzz!(|input: &[u8]| {
        let mut request = Request::genuine(request::QUEUED);
        Script(input).edit_headers(&mut request.headers);
        let step = request.send();
        assert_eq!(is_verified(&step), oracle::accepts(&request), "{request:?} {step:?}");
    });
}

/// A body of any bytes, and a changed payload, both with a right signature.
#[test]
fn json() {
    fuzz!(|input: &[u8]| {
        let mut changed = request::QUEUED.to_vec();
        Script(input).edit(&mut changed);
        for body in [input, &changed] {
            let step = Request::genuine(body).send();
            assert!(outcome(&step).is_none_or(Outcome::is_signed), "{step:?}");
            if let Step::Submit(event) = step {
                oracle::assert_tells(body, &event);
            }
        }
    });
}

#[test]
fn form_bodies() {
    fuzz!(|input: &[u8]| {
        let encoded: String = form_urlencoded::byte_serialize(request::QUEUED).collect();
        let mut changed = [b"a=b&payload=", encoded.as_bytes(), b"&c"].concat();
        Script(input).edit(&mut changed);
        for body in [input, &changed, &[b"payload=", input].concat()] {
            let form = "application/x-www-form-urlencoded";
            let step = Request::genuine(body).set("content-type", form.as_bytes()).send();
            assert!(outcome(&step).is_none_or(Outcome::is_signed), "{step:?}");
            let payloads: Vec<_> =
                form_urlencoded::parse(body).filter(|(name, _)| name == "payload").collect();
            match (step, payloads.as_slice()) {
                (Step::Submit(event), [(_, payload)]) => {
                    oracle::assert_tells(payload.as_bytes(), &event);
                }
                // Which of several counts is anybody's guess.
                (Step::Submit(event), others) => panic!("{others:?} {event:?}"),
                _ => {}
            }
        }
    });
}

/// However the body is cut, also into nothings, the verdict is that over the
/// whole of it.
#[test]
fn chunk_boundaries() {
    fuzz!(|input: &[u8]| {
        let (cuts, body) = input.split_at(input.len() / 2);
        for body in [body, request::QUEUED] {
            let genuine = Request::genuine(body);
            let mut tampered = genuine.clone();
            Script(cuts).edit(&mut tampered.body);
            for request in [genuine, tampered] {
                let expected = oracle::accepts(&request);
                let whole = request.send();
                assert_eq!(is_verified(&whole), expected);
                assert_eq!(request.send_cut(cuts), whole);
            }
        }
    });
}

/// Whether the filter believes the sender.
fn is_verified(step: &Step) -> bool {
    match step {
        Step::Submit(_) => true,
        Step::Answer(answer) | Step::Report(answer) => answer.outcome.is_signed(),
        Step::Continue | Step::Wait => false,
    }
}

fn outcome(step: &Step) -> Option<Outcome> {
    match step {
        Step::Answer(answer) => Some(answer.outcome),
        _ => None,
    }
}

//! Fuzz tests of the pure core. Each test first replays its corpus in `__fuzz__/`,
//! then continues with random input for a limited time. To run longer, set
//! `BOLERO_RANDOM_ITERATIONS` and `BOLERO_RANDOM_TEST_TIME_MS`; `cargo bolero test`
//! uses a fuzzer instead of random input.
//!
//! The oracle shares no code with the filter: it computes the HMAC over the whole
//! body, and uses other JSON and form parsers.

mod oracle;
mod request;

use std::time::Duration;

use bolero::check;
use edgerunner_filter::answer::Outcome;
use edgerunner_filter::delivery::Step;
use request::{Request, Script};

/// Each test stops at whichever limit it reaches first.
const ITERATIONS: usize = 20_000;
const TIME: Duration = Duration::from_secs(4);

macro_rules! fuzz {
    ($property:expr) => {
        check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each($property)
    };
}

/// Arbitrary values of the signature header, and edits of a genuine one.
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
            // A malformed signature is rejected without hashing the body.
            let refused_early = request.headers_only() != Step::Wait;
            assert_eq!(refused_early, !oracle::is_signature(value));
        }
    });
}

/// Headers removed, repeated, renamed and edited.
#[test]
fn header_maps() {
    fuzz!(|input: &[u8]| {
        let mut request = Request::genuine(request::QUEUED);
        Script(input).edit_headers(&mut request.headers);
        let step = request.send();
        assert_eq!(is_verified(&step), oracle::accepts(&request), "{request:?} {step:?}");
    });
}

/// Arbitrary bodies, and edits of a genuine one, all correctly signed.
#[test]
fn json() {
    fuzz!(|input: &[u8]| {
        let mut changed = request::QUEUED.to_vec();
        Script(input).edit(&mut changed);
        for body in [input, &changed] {
            let step = Request::genuine(body).send();
            assert!(outcome(&step).is_none_or(Outcome::is_signed), "{step:?}");
            if let Step::Submit(event) = step {
                oracle::assert_matches(body, &event);
            }
        }
    });
}

/// The same with form encoding.
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
                    oracle::assert_matches(payload.as_bytes(), &event);
                }
                // Readers may disagree on which of several payloads applies.
                (Step::Submit(event), others) => panic!("{others:?} {event:?}"),
                _ => {}
            }
        }
    });
}

/// The outcome is that of the whole body, however it is split; chunks may be empty.
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

/// Whether the filter has accepted the signature.
fn is_verified(step: &Step) -> bool {
    match step {
        Step::Submit(_) => true,
        Step::Answer(answer) | Step::Report(answer) => answer.outcome.is_signed(),
        Step::Continue | Step::Wait | Step::AwaitSecrets => false,
    }
}

fn outcome(step: &Step) -> Option<Outcome> {
    match step {
        Step::Answer(answer) => Some(answer.outcome),
        _ => None,
    }
}

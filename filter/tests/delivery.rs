//! Deliveries without Envoy: every row of the HTTP contract, and that chunk
//! boundaries make no difference.

use std::rc::Rc;

use edgerunner_filter::{
    answer::{Answer, OUTCOME_HEADER, Outcome},
    config::Config,
    delivery::{Delivery, Step},
    headers::Headers,
};
use edgerunner_proto::v1::{self as proto, Action, JobEvent, Receipt};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const QUEUED: &[u8] = include_bytes!("fixtures/queued.json");
const GUID: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
const CONFIG: &str = r#"{
    "max_body_bytes": 4096,
    "hooks": [
        {"name": ""},
        {"name": "acme", "secrets_env": ["ACME"], "allow_repositories": ["acme/*"]},
        {"name": "other", "secrets_env": ["ACME"], "allow_repositories": ["other/*"]},
        {"name": "later", "secrets_env": ["ACME"],
         "events": ["workflow_job.in_progress", "workflow_job.completed"]},
        {"name": "fetched", "secrets_from": "sidecar"}
    ]
}"#;

fn env(name: &str) -> Option<String> {
    match name {
        "GITHUB_WEBHOOK_SECRET" => Some("current".to_owned()),
        "GITHUB_WEBHOOK_SECRET_PREVIOUS" => Some("previous".to_owned()),
        "ACME" => Some("acme".to_owned()),
        _ => None,
    }
}

fn sign(key: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap().chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

struct Request {
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// As sent by GitHub, signed with the default webhook's current secret.
    fn new(body: &[u8]) -> Self {
        let request = Self { headers: Vec::new(), body: body.to_vec() };
        request
            .set(":method", "POST")
            .set(":path", "/webhooks/github")
            .set(":authority", "hooks.example.com")
            .set("content-type", "application/json")
            .set("content-length", body.len().to_string())
            .set("user-agent", "GitHub-Hookshot/0123456")
            .set("x-github-delivery", GUID)
            .set("x-github-event", "workflow_job")
            .set("x-github-hook-id", "292430182")
            .set("x-github-hook-installation-target-id", "79929171")
            .set("x-github-hook-installation-target-type", "organization")
            .sign("current")
    }

    fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.unset(name).add(name, value)
    }

    fn add(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn unset(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    fn sign(self, key: &str) -> Self {
        let signature = sign(key, &self.body);
        self.set("x-hub-signature-256", signature)
    }

    /// Sends the body in chunks that end at `cuts`.
    fn send_cut(&self, cuts: &[usize]) -> (Delivery, Step) {
        self.send_to(Config::parse(CONFIG.as_bytes(), env).unwrap(), cuts)
    }

    fn send_to(&self, config: Config, cuts: &[usize]) -> (Delivery, Step) {
        let mut delivery = Delivery::new(Rc::new(config));
        let mut step = delivery.headers(Headers::new(&self.headers));
        let mut start = 0;
        for end in cuts.iter().copied().chain([self.body.len()]) {
            if step != Step::Wait {
                return (delivery, step);
            }
            step = delivery.chunk(&self.body[start..end]);
            start = end;
        }
        if step == Step::Wait {
            step = delivery.end(|| Some(self.body.clone()));
        }
        (delivery, step)
    }

    fn send(&self) -> (Delivery, Step) {
        self.send_cut(&[])
    }

    fn step(&self) -> Step {
        self.send().1
    }

    fn answer(&self) -> Answer {
        answer(self.step())
    }

    fn outcome(&self) -> Outcome {
        self.answer().outcome
    }

    fn event(&self) -> JobEvent {
        match self.step() {
            Step::Submit(event) => *event,
            other => panic!("{other:?}"),
        }
    }

    /// The answer once the sidecar has replied.
    fn replied(&self, result: Result<&Receipt, u32>) -> Answer {
        let (mut delivery, step) = self.send();
        assert!(matches!(step, Step::Submit(_)), "{step:?}");
        answer(delivery.replied(result))
    }

    /// The answer to the headers; panics if the filter waits for the body.
    fn refused_at_headers(&self) -> Answer {
        let config = Config::parse(CONFIG.as_bytes(), env).unwrap();
        answer(Delivery::new(Rc::new(config)).headers(Headers::new(&self.headers)))
    }
}

fn answer(step: Step) -> Answer {
    match step {
        Step::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(request: &Request, status: u16, outcome: Outcome) {
    let answer = request.refused_at_headers();
    assert_eq!((answer.status, answer.outcome), (status, outcome));
    assert!(answer.headers.contains(&("content-type", "application/json")));
    assert!(answer.headers.contains(&(OUTCOME_HEADER, outcome.slug())));
    assert!(answer.body.starts_with(r#"{"outcome":"rejected","reason":""#));
}

#[test]
fn a_genuine_delivery_is_submitted_with_its_origin() {
    let event = Request::new(QUEUED).event();
    assert_eq!(event.action(), Action::Queued);
    assert_eq!(event.repository, "acme/widgets");
    assert_eq!(event.job.unwrap().id, 12_877_621_891);
    assert_eq!(
        event.delivery.unwrap(),
        proto::Delivery {
            id: GUID.to_owned(),
            hook: String::new(),
            hook_id: 292_430_182,
            hook_target_type: "organization".to_owned(),
            hook_target_id: 79_929_171,
        }
    );
}

#[test]
fn headers_about_the_webhook_are_optional() {
    let delivery = Request::new(QUEUED)
        .unset("x-github-hook-id")
        .set("x-github-hook-installation-target-id", "-5")
        .set("x-github-hook-installation-target-type", b"\xff")
        .event()
        .delivery
        .unwrap();
    assert_eq!((delivery.hook_id, delivery.hook_target_id), (0, 0));
    assert_eq!(delivery.hook_target_type, "");
}

#[test]
fn a_stored_event_is_accepted_with_its_pool() {
    let receipt = Receipt { pool: "default".to_owned(), ..Receipt::default() };
    let answer = Request::new(QUEUED).replied(Ok(&receipt));
    assert_eq!(answer.status, 202);
    assert_eq!(
        answer.body,
        format!(
            r#"{{"outcome":"accepted","delivery":"{GUID}","job":12877621891,"pool":"default"}}"#
        )
    );
}

#[test]
fn an_empty_receipt_means_that_the_event_is_stored_without_a_pool() {
    let answer = Request::new(QUEUED).replied(Ok(&Receipt::default()));
    assert_eq!((answer.status, answer.outcome), (202, Outcome::Accepted));
    assert!(answer.body.ends_with(r#""pool":null}"#));
}

#[test]
fn labels_that_no_pool_has_are_returned() {
    let receipt = Receipt { missing_labels: vec!["gpu".to_owned()], ..Receipt::default() };
    let answer = Request::new(QUEUED).replied(Ok(&receipt));
    assert!(answer.body.ends_with(r#""pool":null,"missing_labels":["gpu"]}"#));
}

#[test]
fn a_known_delivery_is_a_duplicate() {
    let receipt = Receipt { outcome: proto::Outcome::Duplicate.into(), ..Receipt::default() };
    let answer = Request::new(QUEUED).replied(Ok(&receipt));
    assert_eq!((answer.status, answer.outcome), (202, Outcome::Duplicate));
}

#[test]
fn a_failing_sidecar_is_unavailable_and_may_be_retried() {
    for grpc_status in [1, 2, 4, 5, 8, 9, 12, 13, 14, 16, 99] {
        let answer = Request::new(QUEUED).replied(Err(grpc_status));
        assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable));
        assert!(answer.headers.iter().any(|(name, _)| *name == "retry-after"));
    }
    let answer = Request::new(QUEUED).replied(Err(9));
    assert!(answer.body.contains("run the same release of both"));
}

#[test]
fn an_event_that_the_sidecar_rejects_is_not_retried() {
    let answer = Request::new(QUEUED).replied(Err(3));
    assert_eq!((answer.status, answer.outcome), (400, Outcome::Refused));
}

#[test]
fn a_delivery_that_finds_too_many_waiting_is_unavailable() {
    let (mut delivery, _) = Request::new(QUEUED).send();
    assert_eq!(answer(delivery.too_many_waiting()).outcome, Outcome::Unavailable);
    // A late receipt changes nothing.
    assert_eq!(delivery.replied(Ok(&Receipt::default())), Step::Wait);
}

#[test]
fn there_is_one_answer_whatever_comes_after_it() {
    let (mut delivery, _) = Request::new(QUEUED).send();
    assert_eq!(delivery.chunk(b"late"), Step::Wait);
    assert_eq!(delivery.end(|| unreachable!()), Step::Wait);
    answer(delivery.replied(Ok(&Receipt::default())));
    assert_eq!(delivery.replied(Ok(&Receipt::default())), Step::Wait);
    assert_eq!(delivery.replied(Err(14)), Step::Wait);
    assert_eq!(delivery.chunk(b"late"), Step::Wait);
    assert_eq!(delivery.end(|| unreachable!()), Step::Wait);
}

#[test]
fn other_paths_pass_unchanged() {
    for path in [
        "/",
        "/webhooks",
        "/webhooks/githubx",
        "/webhooks/gitlab",
        "/x/webhooks/github",
        "/WEBHOOKS/github",
        "*",
        "",
    ] {
        let request = Request::new(QUEUED).set(":path", path).set(":method", "GET");
        let (mut delivery, step) = request.send();
        assert_eq!(step, Step::Continue, "{path}");
        assert_eq!(delivery.chunk(b"body"), Step::Continue);
        assert_eq!(delivery.end(|| unreachable!()), Step::Continue);
    }
    let nowhere = Request::new(QUEUED).unset(":path");
    assert_eq!(nowhere.step(), Step::Continue);
}

#[test]
fn the_path_selects_the_webhook() {
    for path in [
        "/webhooks/github",
        "/webhooks/github/",
        "/webhooks/github?a=/webhooks/github/acme",
        "/webhooks/github/?",
    ] {
        let request = Request::new(QUEUED).set(":path", path);
        assert!(matches!(request.step(), Step::Submit(_)), "{path}");
        assert_eq!(request.send().0.webhook(), Some(0));
    }
    for path in ["/webhooks/github/acme", "/webhooks/github/acme/?x"] {
        let request = Request::new(QUEUED).set(":path", path).sign("acme");
        assert_eq!(request.event().delivery.unwrap().hook, "acme");
        let other_secret = request.sign("current");
        assert_eq!(other_secret.outcome(), Outcome::SignatureMismatch);
    }
}

#[test]
fn an_unknown_webhook_is_404() {
    for path in [
        b"/webhooks/github/none".as_slice(),
        b"/webhooks/github/acme/x",
        b"/webhooks/github/ACME",
        b"/webhooks/github/%61cme",
        b"/webhooks/github/\xff",
    ] {
        let request = Request::new(QUEUED).set(":path", path);
        assert_refused(&request, 404, Outcome::UnknownWebhook);
    }
}

#[test]
fn methods_other_than_post_are_405() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "post", "", "CONNECT"] {
        let request = Request::new(QUEUED).set(":method", method);
        assert_refused(&request, 405, Outcome::MethodNotAllowed);
        let headers = request.refused_at_headers().headers;
        assert!(headers.contains(&("allow", "POST")));
    }
}

#[test]
fn a_missing_signature_is_401() {
    let request = Request::new(QUEUED).unset("x-hub-signature-256");
    assert_refused(&request, 401, Outcome::SignatureMissing);
    let sha1 = request.set("x-hub-signature", "sha1=abc");
    assert_refused(&sha1, 401, Outcome::SignatureMissing);
}

#[test]
fn a_malformed_signature_is_400() {
    let good = sign("current", QUEUED);
    for value in [
        "".to_owned(),
        good.replace("sha256", "sha1"),
        good.replace("sha256", "SHA256"),
        good[..70].to_owned(),
        format!("{good}0"),
        format!("{good},{good}"),
        format!("sha1={}", "a".repeat(40)),
    ] {
        let request = Request::new(QUEUED).set("x-hub-signature-256", value);
        assert_refused(&request, 400, Outcome::SignatureMalformed);
    }
    let repeated = Request::new(QUEUED).add("x-hub-signature-256", good);
    assert_refused(&repeated, 400, Outcome::SignatureMalformed);
}

#[test]
fn event_and_delivery_headers_must_appear_once_and_be_well_formed() {
    for name in ["x-github-event", "x-github-delivery"] {
        let request = || Request::new(QUEUED);
        assert_refused(&request().unset(name), 400, Outcome::HeaderMalformed);
        assert_refused(&request().add(name, "again"), 400, Outcome::HeaderMalformed);
        let too_long = "a".repeat(65);
        for value in [b"".as_slice(), b"a b", b"a\"b", b"\xff", too_long.as_bytes()] {
            let request = request().set(name, value);
            assert_refused(&request, 400, Outcome::HeaderMalformed);
        }
    }
    let longest = Request::new(QUEUED).set("x-github-delivery", "a".repeat(64));
    assert!(matches!(longest.step(), Step::Submit(_)));
}

#[test]
fn more_than_one_host_is_400() {
    for request in [
        Request::new(QUEUED).set(":authority", "a.example.com,b.example.com"),
        Request::new(QUEUED).add(":authority", "a.example.com"),
    ] {
        assert_refused(&request, 400, Outcome::HeaderMalformed);
    }
}

#[test]
fn an_event_larger_than_the_sidecar_accepts_is_400() {
    let event = |bytes: usize| {
        let label = "l".repeat(bytes);
        let json = String::from_utf8_lossy(QUEUED).replace("self-hosted", &label);
        let config = Config::parse(b"{}", env).unwrap();
        let request = Request::new(json.as_bytes());
        let mut delivery = Delivery::new(Rc::new(config));
        assert_eq!(delivery.headers(Headers::new(&request.headers)), Step::Wait);
        assert_eq!(delivery.chunk(&request.body), Step::Wait);
        delivery.end(|| Some(request.body.clone()))
    };
    assert!(matches!(event(edgerunner_proto::EVENT_BYTES_MAX - 1_000), Step::Submit(_)));
    let answer = answer(event(edgerunner_proto::EVENT_BYTES_MAX));
    assert_eq!((answer.status, answer.outcome), (400, Outcome::PayloadMalformed));
}

#[test]
fn other_media_types_are_415() {
    for value in ["", "text/plain", "application/jsonp", "application/json,application/json"] {
        let request = Request::new(QUEUED).set("content-type", value);
        assert_refused(&request, 415, Outcome::MediaType);
    }
    let missing = Request::new(QUEUED).unset("content-type");
    assert_refused(&missing, 415, Outcome::MediaType);
    let repeated = Request::new(QUEUED).add("content-type", "application/json");
    assert_refused(&repeated, 415, Outcome::MediaType);
    for value in ["application/json; charset=utf-8", "Application/JSON ;x"] {
        let request = Request::new(QUEUED).set("content-type", value);
        assert!(matches!(request.step(), Step::Submit(_)), "{value}");
    }
}

#[test]
fn a_content_length_that_is_too_large_is_413_before_the_body() {
    let largest = Request::new(QUEUED).set("content-length", "4096");
    assert!(matches!(largest.step(), Step::Submit(_)));
    for length in ["4097", "18446744073709551616", "99999999999999999999999999"] {
        let request = Request::new(QUEUED).set("content-length", length);
        assert_refused(&request, 413, Outcome::TooLarge);
    }
    for length in ["", "-1", "+1", "0x10", "1.5", "1,1", "1 "] {
        let request = Request::new(QUEUED).set("content-length", length);
        assert_refused(&request, 400, Outcome::HeaderMalformed);
    }
    let repeated = Request::new(QUEUED).add("content-length", "1");
    assert_refused(&repeated, 400, Outcome::HeaderMalformed);
}

#[test]
fn a_body_that_grows_too_large_is_413_at_that_chunk() {
    for length in [Some("10"), None] {
        let mut request = Request::new(&[b' '; 4097]).unset("content-length");
        if let Some(length) = length {
            request = request.set("content-length", length);
        }
        let (mut delivery, step) = request.send_cut(&[4096, 4097]);
        assert_eq!(answer(step).outcome, Outcome::TooLarge);
        assert_eq!(delivery.end(|| unreachable!()), Step::Wait);
    }
    // A body of exactly the limit is read, and is not JSON.
    let largest = Request::new(&[b' '; 4096]);
    assert_eq!(largest.outcome(), Outcome::PayloadMalformed);
}

#[test]
fn headers_are_checked_in_the_documented_order() {
    let mut request = Request::new(QUEUED)
        .set(":path", "/webhooks/github/none")
        .set(":method", "GET")
        .unset("x-hub-signature-256")
        .unset("x-github-event")
        .set("content-type", "text/plain")
        .set("content-length", "99999");
    let order = [
        (Outcome::UnknownWebhook, ":path", "/webhooks/github"),
        (Outcome::MethodNotAllowed, ":method", "POST"),
        (Outcome::SignatureMissing, "x-hub-signature-256", "x"),
        (Outcome::SignatureMalformed, "x-hub-signature-256", &sign("wrong", QUEUED)),
        (Outcome::HeaderMalformed, "x-github-event", "workflow_job"),
        (Outcome::MediaType, "content-type", "application/json"),
        (Outcome::TooLarge, "content-length", "1"),
    ];
    for (outcome, name, repair) in order {
        assert_eq!(request.refused_at_headers().outcome, outcome);
        request = request.set(name, repair);
    }
    assert_eq!(request.outcome(), Outcome::SignatureMismatch);
}

#[test]
fn a_wrong_signature_is_401_whatever_the_body_contains() {
    for body in [QUEUED, b"not json", b""] {
        for event in ["workflow_job", "ping", "push"] {
            let request = Request::new(body).set("x-github-event", event);
            for key in ["wrong", "acme", "current "] {
                let signature = sign(key, body);
                let (mut delivery, step) =
                    Request { headers: request.headers.clone(), body: body.to_vec() }
                        .set("x-hub-signature-256", signature)
                        .send();
                let answer = answer(step);
                assert_eq!((answer.status, answer.outcome), (401, Outcome::SignatureMismatch));
                assert_eq!(delivery.secret(), None);
                assert_eq!(delivery.replied(Ok(&Receipt::default())), Step::Wait);
            }
        }
    }
}

#[test]
fn an_unsigned_body_is_never_fetched() {
    let request = Request::new(QUEUED).sign("wrong");
    let config = Config::parse(CONFIG.as_bytes(), env).unwrap();
    let mut delivery = Delivery::new(Rc::new(config));
    assert_eq!(delivery.headers(Headers::new(&request.headers)), Step::Wait);
    assert_eq!(delivery.chunk(QUEUED), Step::Wait);
    let step = delivery.end(|| panic!("fetched"));
    assert_eq!(answer(step).outcome, Outcome::SignatureMismatch);
}

#[test]
fn a_body_whose_length_differs_from_the_hashed_one_is_not_parsed() {
    for body in [None, Some(Vec::new()), Some([QUEUED, b" "].concat())] {
        let request = Request::new(QUEUED);
        let config = Config::parse(CONFIG.as_bytes(), env).unwrap();
        let mut delivery = Delivery::new(Rc::new(config));
        delivery.headers(Headers::new(&request.headers));
        delivery.chunk(QUEUED);
        assert_eq!(answer(delivery.end(|| body)).outcome, Outcome::Unavailable);
    }
}

#[test]
fn both_secrets_are_accepted_during_a_rotation() {
    for (key, position) in [("current", 0), ("previous", 1)] {
        let (delivery, step) = Request::new(QUEUED).sign(key).send();
        assert!(matches!(step, Step::Submit(_)));
        assert_eq!(delivery.secret(), Some(position));
    }
}

#[test]
fn a_signed_ping_is_answered_pong() {
    for body in [b"{\"zen\":\"\"}".as_slice(), b""] {
        let answer = Request::new(body).set("x-github-event", "ping").answer();
        assert_eq!((answer.status, answer.outcome), (200, Outcome::Pong));
        let expected = format!(r#"{{"outcome":"pong","delivery":"{GUID}","filter":"#);
        assert!(answer.body.starts_with(&expected), "{}", answer.body);
    }
}

#[test]
fn only_who_knows_the_secret_learns_the_version_of_envoy() {
    let ping = Request::new(b"{}").set("x-github-event", "ping");
    for (request, shown) in
        [(ping.sign("current"), true), (Request::new(b"{}").sign("wrong"), false)]
    {
        let mut config = Config::parse(CONFIG.as_bytes(), env).unwrap();
        config.envoy_version = "1.2.3".to_owned();
        let answer = answer(request.send_to(config, &[]).1);
        assert_eq!(answer.body.contains(r#""envoy":"1.2.3""#), shown, "{}", answer.body);
    }
}

#[test]
fn other_events_and_actions_are_ignored() {
    for event in ["push", "workflow_run", "check_run", "WORKFLOW_JOB"] {
        let answer = Request::new(b"x").set("x-github-event", event).answer();
        assert_eq!((answer.status, answer.outcome), (202, Outcome::Ignored));
        assert!(answer.body.contains(event));
    }
    let answer = Request::new(br#"{"action":"waiting"}"#).answer();
    assert_eq!((answer.status, answer.outcome), (202, Outcome::Ignored));
    assert!(answer.body.ends_with(r#""event":"workflow_job","action":"waiting"}"#));
}

#[test]
fn a_signed_payload_that_is_not_a_workflow_job_is_400_with_the_position() {
    for body in [b"".as_slice(), b"null", b"{", b"\x1f\x8b\x08", b"{\"action\":1}"] {
        let answer = Request::new(body).answer();
        assert_eq!((answer.status, answer.outcome), (400, Outcome::PayloadMalformed));
        assert!(answer.body.contains("line 1 column"), "{}", answer.body);
    }
}

#[test]
fn a_repository_that_the_webhook_does_not_allow_is_403() {
    let request = Request::new(QUEUED).set(":path", "/webhooks/github/other").sign("acme");
    let answer = request.answer();
    assert_eq!((answer.status, answer.outcome), (403, Outcome::RepositoryNotAllowed));
    // Without a valid signature the answer reveals nothing about the repository.
    assert_eq!(request.sign("current").outcome(), Outcome::SignatureMismatch);
}

#[test]
fn a_form_is_verified_before_it_is_decoded() {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("payload", str::from_utf8(QUEUED).unwrap());
    let encoded = form.finish();
    let send = |body: &str| {
        Request::new(body.as_bytes()).set("content-type", "application/x-www-form-urlencoded")
    };
    assert_eq!(send(&encoded).event().job.unwrap().name, "build (ümlaut)");
    assert!(matches!(send(&format!("a=b&{encoded}&c")).step(), Step::Submit(_)));
    let decoded_signature = sign("current", QUEUED);
    let request = send(&encoded).set("x-hub-signature-256", decoded_signature);
    assert_eq!(request.outcome(), Outcome::SignatureMismatch);
    for body in ["", "payload", "payload=", "x=1", "payload=%7B", "payload=%ff"] {
        assert_eq!(send(body).outcome(), Outcome::PayloadMalformed, "{body}");
    }
    // Several payloads are rejected: neither the first nor the last is used.
    assert_eq!(send(&format!("{encoded}&payload=")).outcome(), Outcome::PayloadMalformed);
    assert_eq!(send(&format!("payload&{encoded}")).outcome(), Outcome::PayloadMalformed);
    // A reader that replaces invalid UTF-8 would accept this.
    let invalid = encoded.replace("Linux", "%FC");
    assert_ne!(invalid, encoded);
    assert_eq!(send(&invalid).outcome(), Outcome::PayloadMalformed);
    // JSON sent as a form, and a form sent as JSON.
    assert_eq!(send(str::from_utf8(QUEUED).unwrap()).outcome(), Outcome::PayloadMalformed);
    assert_eq!(Request::new(encoded.as_bytes()).outcome(), Outcome::PayloadMalformed);
}

#[test]
fn headers_may_contain_bytes_beyond_ascii() {
    let request = Request::new(QUEUED).add("x-anything", b"\xff\x80\x00");
    assert!(matches!(request.step(), Step::Submit(_)));
}

#[test]
fn every_way_to_split_a_small_body_gives_the_same_outcome() {
    let body = br#"{"action":"no"}"#;
    let good = Request::new(body);
    let bad = Request::new(body).sign("wrong");
    assert_eq!(good.outcome(), Outcome::Ignored);
    assert_eq!(bad.outcome(), Outcome::SignatureMismatch);
    let (expected_good, expected_bad) = (good.step(), bad.step());
    for cut in 0..1_u32 << (body.len() - 1) {
        let cuts: Vec<usize> = (1..body.len()).filter(|at| cut & (1 << (at - 1)) != 0).collect();
        assert_eq!(good.send_cut(&cuts).1, expected_good, "{cuts:?}");
        assert_eq!(bad.send_cut(&cuts).1, expected_bad, "{cuts:?}");
    }
}

/// Random bodies, keys, chunks and bit flips, compared with an HMAC over the whole body.
#[test]
fn the_outcome_is_that_of_a_plain_hmac_however_the_body_is_split() {
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    for round in 0..2_000 {
        let mut body = match random.below(3) {
            0 => QUEUED.to_vec(),
            1 => br#"{"action":"waiting"}"#.to_vec(),
            _ => (0..random.below(300)).map(|_| random.byte()).collect(),
        };
        let key = ["current", "previous", "acme", "wrong"][random.below(4)];
        let signature = sign(key, &body);
        if random.below(2) == 0 && !body.is_empty() {
            let at = random.below(body.len());
            body[at] ^= 1 << random.below(8);
        }
        let mut cuts: Vec<usize> =
            (0..random.below(6)).map(|_| random.below(body.len() + 1)).collect();
        cuts.sort_unstable();
        let genuine = signature == sign("current", &body) || signature == sign("previous", &body);
        let request = Request::new(&body).set("x-hub-signature-256", signature);
        let (delivery, step) = request.send_cut(&cuts);
        let refused =
            matches!(&step, Step::Answer(answer) if answer.outcome == Outcome::SignatureMismatch);
        assert_eq!(genuine, !refused, "round {round}: {step:?}");
        assert_eq!(genuine, delivery.secret().is_some(), "round {round}");
        assert_eq!(step, request.step(), "round {round}");
    }
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

#[test]
fn a_webhook_forwards_its_events_and_no_others() {
    let request =
        |body: &[u8]| Request::new(body).set(":path", "/webhooks/github/later").sign("acme");
    let answer = request(QUEUED).answer();
    assert_eq!((answer.status, answer.outcome), (202, Outcome::Ignored));
    assert!(answer.body.contains(r#""action":"queued""#), "{}", answer.body);
    let other = String::from_utf8(QUEUED.to_vec()).unwrap().replace("queued", "in_progress");
    assert_eq!(request(other.as_bytes()).event().action(), Action::InProgress);
}

/// A request to the webhook whose secrets come from the sidecar, which has sent none yet.
fn before_the_secrets(request: &Request) -> (Rc<Config>, Delivery) {
    let config = Rc::new(Config::parse(CONFIG.as_bytes(), env).unwrap());
    let mut delivery = Delivery::new(Rc::clone(&config));
    assert_eq!(delivery.headers(Headers::new(&request.headers)), Step::Wait);
    let (first, second) = request.body.split_at(100);
    assert_eq!(delivery.chunk(first), Step::Wait);
    assert_eq!(delivery.chunk(second), Step::Wait);
    (config, delivery)
}

fn send_secret(config: &Config) {
    config.webhooks[config.webhook("fetched").unwrap()].replace_secrets(&["fetched"]);
}

#[test]
fn a_delivery_waits_for_the_secrets_of_the_sidecar() {
    let request = Request::new(QUEUED).set(":path", "/webhooks/github/fetched");
    let genuine = request.sign("fetched");
    let (config, mut delivery) = before_the_secrets(&genuine);
    assert_eq!(delivery.end(|| Some(genuine.body.clone())), Step::AwaitSecrets);
    // Of another webhook.
    assert_eq!(delivery.secrets_arrived(), Step::Wait);
    send_secret(&config);
    assert!(matches!(delivery.secrets_arrived(), Step::Submit(_)));
    assert_eq!(delivery.secrets_arrived(), Step::Wait);
    assert_eq!(delivery.no_secrets(), Step::Wait);

    // They may arrive with the last bytes of the body.
    let (config, mut delivery) = before_the_secrets(&genuine);
    send_secret(&config);
    assert!(matches!(delivery.end(|| Some(genuine.body.clone())), Step::Submit(_)));

    let forged = genuine.sign("current");
    let (config, mut delivery) = before_the_secrets(&forged);
    assert_eq!(delivery.end(|| Some(forged.body.clone())), Step::AwaitSecrets);
    send_secret(&config);
    assert_eq!(answer(delivery.secrets_arrived()).outcome, Outcome::SignatureMismatch);
}

#[test]
fn a_delivery_without_secrets_in_time_is_unavailable() {
    let request = Request::new(QUEUED).set(":path", "/webhooks/github/fetched").sign("fetched");
    let (config, mut delivery) = before_the_secrets(&request);
    assert_eq!(delivery.end(|| Some(request.body.clone())), Step::AwaitSecrets);
    let answer = answer(delivery.no_secrets());
    assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable));
    send_secret(&config);
    assert_eq!(delivery.secrets_arrived(), Step::Wait);
}

#[test]
fn a_dry_run_reports_the_outcome_and_passes_everything() {
    let report = |request: Request| {
        let mut config = Config::parse(CONFIG.as_bytes(), env).unwrap();
        config.dry_run = true;
        let (mut delivery, step) = request.send_to(config, &[]);
        let Step::Report(answer) = step else { panic!("{step:?}") };
        // The rest of the body passes as well.
        assert_eq!(delivery.chunk(b"more"), Step::Continue);
        assert_eq!(delivery.end(|| unreachable!()), Step::Continue);
        answer.outcome
    };
    assert_eq!(report(Request::new(QUEUED)), Outcome::Accepted);
    assert_eq!(report(Request::new(QUEUED).sign("wrong")), Outcome::SignatureMismatch);
    assert_eq!(
        report(Request::new(QUEUED).unset("x-hub-signature-256")),
        Outcome::SignatureMissing
    );
    // A dry run holds nothing back.
    let fetched = Request::new(QUEUED).set(":path", "/webhooks/github/fetched");
    assert_eq!(report(fetched), Outcome::Unavailable);
    assert_eq!(report(Request::new(b"null")), Outcome::PayloadMalformed);
    assert_eq!(report(Request::new(&[b' '; 5000])), Outcome::TooLarge);
    assert_eq!(
        report(Request::new(QUEUED).set(":path", "/webhooks/github/nobody")),
        Outcome::UnknownWebhook
    );
}

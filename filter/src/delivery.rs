//! One delivery, from its headers to its answer, as a state machine without
//! Envoy and without a clock.

use std::{borrow::Cow, mem, rc::Rc};

use edgerunner_proto::{
    EVENT_BYTES_MAX,
    v1::{self as proto, JobEvent, Receipt},
};
use prost::Message as _;

use crate::{
    answer::{Answer, Outcome},
    config::{Config, Webhook},
    event::{self, Payload},
    headers::{Field, Headers},
    signature::{Signature, Verifier},
};

/// GitHub's ids are GUIDs of 36 bytes, and its event names have up to 40.
const MAX_DELIVERY_ID_BYTES: usize = 64;
const MAX_EVENT_BYTES: usize = 64;

pub(crate) const GRPC_OK: u32 = 0;
const GRPC_INVALID_ARGUMENT: u32 = 3;
pub(crate) const GRPC_DEADLINE_EXCEEDED: u32 = 4;
pub(crate) const GRPC_NOT_FOUND: u32 = 5;
pub(crate) const GRPC_PERMISSION_DENIED: u32 = 7;
pub(crate) const GRPC_RESOURCE_EXHAUSTED: u32 = 8;
pub(crate) const GRPC_FAILED_PRECONDITION: u32 = 9;
pub(crate) const GRPC_UNIMPLEMENTED: u32 = 12;
pub(crate) const GRPC_UNAVAILABLE: u32 = 14;
pub(crate) const GRPC_UNAUTHENTICATED: u32 = 16;

/// The caller's next action.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Not a delivery: pass the request on unchanged.
    Continue,
    /// Hold the request until the next input.
    Wait,
    /// Hold the request until the sidecar has sent the webhook's secrets, then call
    /// [`Delivery::secrets_arrived`].
    AwaitSecrets,
    /// Send the event to the sidecar and pass its reply to [`Delivery::replied`].
    Submit(Box<JobEvent>),
    /// Send the answer; the delivery is complete.
    Answer(Answer),
    /// Dry run: log what the answer would be, and pass the request on.
    Report(Answer),
}

/// One delivery in progress.
pub struct Delivery {
    config: Rc<Config>,
    state: State,
    id: String,
    webhook: Option<usize>,
    secret: Option<usize>,
    received_bytes: u64,
}

enum State {
    New,
    Passing,
    Receiving(Box<Receiving>),
    /// With the whole body.
    AwaitingSecrets(Box<(Receiving, Vec<u8>)>),
    Submitted {
        job_id: u64,
    },
    Answered,
}

/// State kept from the headers until the body is complete.
struct Receiving {
    signature: Signature,
    /// `None` if no secret was known when the headers arrived.
    verifier: Option<Verifier>,
    encoding: Encoding,
    event: String,
    origin: proto::Delivery,
}

#[derive(Clone, Copy)]
enum Encoding {
    Json,
    Form,
}

enum Route {
    Elsewhere,
    UnknownWebhook,
    Webhook(usize),
}

impl Delivery {
    pub fn new(config: Rc<Config>) -> Self {
        Self {
            config,
            state: State::New,
            id: String::new(),
            webhook: None,
            secret: None,
            received_bytes: 0,
        }
    }

    /// GitHub's delivery id; empty until the headers are accepted.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Position of the webhook in the configuration.
    pub fn webhook(&self) -> Option<usize> {
        self.webhook
    }

    /// Position of the secret that verified the signature.
    pub fn secret(&self) -> Option<usize> {
        self.secret
    }

    /// Bytes of the body so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// The request's headers. Rejects everything that can be rejected without the body.
    pub fn headers(&mut self, headers: Headers<'_>) -> Step {
        let route = headers
            .field(":path")
            .once()
            .map_or(Route::Elsewhere, |path| route(&self.config, path));
        let webhook = match route {
            Route::Elsewhere => {
                self.state = State::Passing;
                return Step::Continue;
            }
            Route::UnknownWebhook => return self.reject(Outcome::UnknownWebhook, UNKNOWN_WEBHOOK),
            Route::Webhook(webhook) => webhook,
        };
        self.webhook = Some(webhook);
        match self.check(headers, webhook) {
            Ok(receiving) => {
                self.id.clone_from(&receiving.origin.id);
                self.state = State::Receiving(Box::new(receiving));
                Step::Wait
            }
            Err((outcome, reason)) => self.reject(outcome, reason),
        }
    }

    fn check(
        &self,
        headers: Headers<'_>,
        webhook: usize,
    ) -> Result<Receiving, (Outcome, &'static str)> {
        if headers.field(":method").once() != Some(b"POST") {
            return Err((Outcome::MethodNotAllowed, "the method must be POST"));
        }
        let signature = read_signature(headers.field("x-hub-signature-256"))?;
        let event = headers
            .field("x-github-event")
            .token(MAX_EVENT_BYTES, |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
            .ok_or((
                Outcome::HeaderMalformed,
                "x-github-event must appear exactly once and be the name of an event",
            ))?;
        let id = headers
            .field("x-github-delivery")
            .token(MAX_DELIVERY_ID_BYTES, |byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            .ok_or((
                Outcome::HeaderMalformed,
                "x-github-delivery must appear exactly once and be a GUID",
            ))?;
        // Envoy joins repeated hosts with a comma, which no host contains.
        let host = headers.field(":authority");
        if host == Field::Repeated || host.once().is_some_and(|host| host.contains(&b',')) {
            return Err((Outcome::HeaderMalformed, "host must not be repeated"));
        }
        let encoding = read_content_type(headers.field("content-type"))?;
        self.check_content_length(headers.field("content-length"))?;
        let webhook =
            self.config.webhooks.get(webhook).ok_or((Outcome::UnknownWebhook, UNKNOWN_WEBHOOK))?;
        Ok(Receiving {
            signature,
            verifier: webhook.verifier(),
            encoding,
            event: event.to_owned(),
            origin: proto::Delivery {
                id: id.to_owned(),
                hook: webhook.name.clone(),
                hook_id: number_or_zero(headers, "x-github-hook-id"),
                hook_target_type: headers
                    .field("x-github-hook-installation-target-type")
                    .token(MAX_EVENT_BYTES, u8::is_ascii_graphic)
                    .unwrap_or_default()
                    .to_owned(),
                hook_target_id: number_or_zero(headers, "x-github-hook-installation-target-id"),
            },
        })
    }

    /// Only to reject early: the body itself is counted as well.
    fn check_content_length(&self, field: Field<'_>) -> Result<(), (Outcome, &'static str)> {
        match field {
            Field::Missing => Ok(()),
            Field::Once(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                // A number too large for u64 is too large as well.
                match field.number() {
                    Some(length) if length <= self.config.max_body_bytes => Ok(()),
                    _ => Err((Outcome::TooLarge, TOO_LARGE)),
                }
            }
            Field::Once(_) | Field::Repeated => {
                Err((Outcome::HeaderMalformed, "content-length must be a single decimal number"))
            }
        }
    }

    /// The next bytes of the body, in order and without overlap.
    pub fn chunk(&mut self, chunk: &[u8]) -> Step {
        let State::Receiving(receiving) = &mut self.state else {
            return self.unchanged();
        };
        self.received_bytes = self.received_bytes.saturating_add(chunk.len() as u64);
        if self.received_bytes > self.config.max_body_bytes {
            return self.reject(Outcome::TooLarge, TOO_LARGE);
        }
        if let Some(verifier) = &mut receiving.verifier {
            verifier.update(chunk);
        }
        Step::Wait
    }

    /// The end of the body. `body` returns all of it, and is called only after the signature
    /// has been verified, so that unsigned bodies are never copied; unless there is no secret yet.
    pub fn end(&mut self, body: impl FnOnce() -> Option<Vec<u8>>) -> Step {
        let mut receiving = match mem::replace(&mut self.state, State::Answered) {
            State::Receiving(receiving) => *receiving,
            other => {
                self.state = other;
                return self.unchanged();
            }
        };
        let Some(verifier) = receiving.verifier.take() else {
            let Some(body) = self.whole(body) else {
                return self.answer(Answer::unavailable(INCOMPLETE));
            };
            self.state = State::AwaitingSecrets(Box::new((receiving, body)));
            return match self.secrets_arrived() {
                Step::Wait if self.config.dry_run => self.no_secrets(),
                Step::Wait => Step::AwaitSecrets,
                step => step,
            };
        };
        self.verify(verifier, receiving, body)
    }

    /// The sidecar has sent secrets, maybe of this webhook. [`Step::Wait`] if not.
    pub fn secrets_arrived(&mut self) -> Step {
        let webhook = self.webhook.and_then(|webhook| self.config.webhooks.get(webhook));
        let Some(mut verifier) = webhook.and_then(Webhook::verifier) else {
            return self.unchanged();
        };
        match mem::replace(&mut self.state, State::Answered) {
            State::AwaitingSecrets(awaiting) => {
                let (receiving, body) = *awaiting;
                verifier.update(&body);
                self.verify(verifier, receiving, || Some(body))
            }
            other => {
                self.state = other;
                self.unchanged()
            }
        }
    }

    /// The sidecar has sent no secret in time.
    pub fn no_secrets(&mut self) -> Step {
        if !matches!(self.state, State::AwaitingSecrets(_)) {
            return self.unchanged();
        }
        self.answer(Answer::unavailable("the sidecar has not sent a secret for this webhook yet"))
    }

    /// The body that was hashed, and nothing else.
    fn whole(&self, body: impl FnOnce() -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        body().filter(|body| body.len() as u64 == self.received_bytes)
    }

    fn verify(
        &mut self,
        verifier: Verifier,
        receiving: Receiving,
        body: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Step {
        let Receiving { signature, encoding, event, origin, .. } = receiving;
        self.secret = verifier.verify(&signature);
        if self.secret.is_none() {
            return self.reject(
                Outcome::SignatureMismatch,
                "x-hub-signature-256 does not match any secret of this webhook",
            );
        }
        match event.as_str() {
            "workflow_job" => {}
            "ping" => return self.answer(Answer::pong(&origin.id, &self.config.envoy_version)),
            other => return self.answer(Answer::ignored(&origin.id, other, None)),
        }
        let Some(body) = self.whole(body) else {
            return self.answer(Answer::unavailable(INCOMPLETE));
        };
        let json = match encoding {
            Encoding::Json => Cow::Borrowed(body.as_slice()),
            Encoding::Form => match form_payload(&body) {
                Some(payload) => Cow::Owned(payload),
                None => {
                    return self.reject(
                        Outcome::PayloadMalformed,
                        "the form must have exactly one `payload` field",
                    );
                }
            },
        };
        match event::parse(&json) {
            Ok(Payload::Job(event)) => self.submit(event, origin),
            Ok(Payload::Ignored { action }) => {
                self.answer(Answer::ignored(&origin.id, &event, Some(&action)))
            }
            Err(error) => self.reject(Outcome::PayloadMalformed, &error.to_string()),
        }
    }

    fn submit(&mut self, mut event: Box<JobEvent>, origin: proto::Delivery) -> Step {
        let webhook = self.webhook.and_then(|webhook| self.config.webhooks.get(webhook));
        if !webhook.is_some_and(|webhook| webhook.allows(&event.repository)) {
            return self.reject(
                Outcome::RepositoryNotAllowed,
                "the repository does not match allow_repositories of this webhook",
            );
        }
        if !webhook.is_some_and(|webhook| webhook.forwards(event.action())) {
            let action = event.action().as_str_name().trim_start_matches("ACTION_");
            let action = action.to_ascii_lowercase();
            return self.answer(Answer::ignored(&origin.id, "workflow_job", Some(&action)));
        }
        if event.encoded_len() > EVENT_BYTES_MAX {
            return self
                .reject(Outcome::PayloadMalformed, "the job's names and labels are too long");
        }
        if self.config.dry_run {
            let job = event.job.as_ref().map_or(0, |job| job.id);
            return self.answer(Answer::accepted(&origin.id, job, "", &[]));
        }
        self.state = State::Submitted { job_id: event.job.as_ref().map_or(0, |job| job.id) };
        event.delivery = Some(origin);
        Step::Submit(event)
    }

    /// The sidecar's receipt once the event is stored, or a gRPC status other than OK.
    pub fn replied(&mut self, result: Result<&Receipt, u32>) -> Step {
        let State::Submitted { job_id } = self.state else {
            return self.unchanged();
        };
        let status = match result {
            Ok(receipt) => {
                return self.answer(if receipt.outcome() == proto::Outcome::Duplicate {
                    Answer::duplicate(&self.id, job_id)
                } else {
                    Answer::accepted(&self.id, job_id, &receipt.pool, &receipt.missing_labels)
                });
            }
            Err(status) => status,
        };
        let reason = match status {
            GRPC_INVALID_ARGUMENT => {
                return self.reject(Outcome::Refused, "the sidecar rejected the event as invalid");
            }
            GRPC_DEADLINE_EXCEEDED => "the sidecar did not reply in time",
            GRPC_RESOURCE_EXHAUSTED => "too many events are waiting for the sidecar",
            GRPC_FAILED_PRECONDITION => {
                "filter and sidecar are from different releases: run the same release of both"
            }
            GRPC_UNAVAILABLE => "the sidecar is unreachable, too slow, or cannot store events",
            other => {
                return self.answer(Answer::unavailable(&format!(
                    "the sidecar returned gRPC status {other}"
                )));
            }
        };
        self.answer(Answer::unavailable(reason))
    }

    /// Too many events are already waiting for a reply.
    pub fn too_many_waiting(&mut self) -> Step {
        self.replied(Err(GRPC_RESOURCE_EXHAUSTED))
    }

    /// For input that changes nothing: a delivery is answered at most once.
    fn unchanged(&self) -> Step {
        match self.state {
            State::New | State::Passing => Step::Continue,
            State::Receiving(_)
            | State::AwaitingSecrets(_)
            | State::Submitted { .. }
            | State::Answered => Step::Wait,
        }
    }

    fn reject(&mut self, outcome: Outcome, reason: &str) -> Step {
        self.answer(Answer::rejected(outcome, reason))
    }

    fn answer(&mut self, answer: Answer) -> Step {
        if self.config.dry_run {
            self.state = State::Passing;
            return Step::Report(answer);
        }
        self.state = State::Answered;
        Step::Answer(answer)
    }
}

const UNKNOWN_WEBHOOK: &str = "no webhook is configured at this path";
const INCOMPLETE: &str = "Envoy did not return the whole body";
const TOO_LARGE: &str = "the body is larger than max_body_bytes";

/// Accepts one trailing slash, a common mistake in a webhook's URL.
fn route(config: &Config, path: &[u8]) -> Route {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let name = match path.strip_prefix(config.path.as_bytes()) {
        Some([]) => &[],
        Some([b'/', name @ ..]) => name.strip_suffix(b"/").unwrap_or(name),
        _ => return Route::Elsewhere,
    };
    str::from_utf8(name)
        .ok()
        .and_then(|name| config.webhook(name))
        .map_or(Route::UnknownWebhook, Route::Webhook)
}

fn read_signature(field: Field<'_>) -> Result<Signature, (Outcome, &'static str)> {
    match field {
        Field::Missing => Err((
            Outcome::SignatureMissing,
            "x-hub-signature-256 is missing: set a secret for the webhook at GitHub",
        )),
        Field::Repeated => {
            Err((Outcome::SignatureMalformed, "x-hub-signature-256 must not be repeated"))
        }
        Field::Once(value) => Signature::parse(value).ok_or((
            Outcome::SignatureMalformed,
            "x-hub-signature-256 must be sha256= followed by 64 hex digits",
        )),
    }
}

fn read_content_type(field: Field<'_>) -> Result<Encoding, (Outcome, &'static str)> {
    let media_type = field
        .once()
        .and_then(|value| value.split(|byte| *byte == b';').next())
        .unwrap_or_default()
        .trim_ascii();
    if media_type.eq_ignore_ascii_case(b"application/json") {
        Ok(Encoding::Json)
    } else if media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        Ok(Encoding::Form)
    } else {
        Err((
            Outcome::MediaType,
            "content-type must be application/json or application/x-www-form-urlencoded",
        ))
    }
}

fn number_or_zero(headers: Headers<'_>, name: &str) -> u64 {
    headers.field(name).number().unwrap_or_default()
}

/// `None` unless there is exactly one `payload`: as with headers, repeated fields are not
/// resolved to one of them. Works on bytes, since a library's lossy conversion to text could
/// differ from the signed body.
fn form_payload(body: &[u8]) -> Option<Vec<u8>> {
    let mut payloads = body.split(|byte| *byte == b'&').filter_map(|field| {
        let mut halves = field.splitn(2, |byte| *byte == b'=');
        let is_payload = halves.next().is_some_and(|name| form_decoded(name) == b"payload");
        is_payload.then(|| halves.next().unwrap_or_default())
    });
    let payload = payloads.next()?;
    payloads.next().is_none().then(|| form_decoded(payload))
}

fn form_decoded(encoded: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> =
        encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

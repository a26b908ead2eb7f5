//! One delivery from its first header to its answer, as a state machine that
//! knows neither Envoy nor a clock.

use std::{borrow::Cow, mem, rc::Rc};

use edgerunner_proto::{
    EVENT_BYTES_MAX,
    v1::{self as proto, JobEvent, Receipt},
};
use prost::Message as _;

use crate::{
    answer::{Answer, Outcome},
    config::Config,
    event::{self, Payload},
    headers::{Field, Headers},
    signature::{Signature, Verifier},
};

/// GitHub's own are GUIDs of 36 bytes and names of up to 40.
const MAX_DELIVERY_ID_BYTES: usize = 64;
const MAX_EVENT_BYTES: usize = 64;

const GRPC_OK: u32 = 0;
const GRPC_INVALID_ARGUMENT: u32 = 3;
const GRPC_DEADLINE_EXCEEDED: u32 = 4;
const GRPC_RESOURCE_EXHAUSTED: u32 = 8;
const GRPC_FAILED_PRECONDITION: u32 = 9;
const GRPC_UNAVAILABLE: u32 = 14;

/// What to do with the request now.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Not for us: let it pass untouched.
    Continue,
    /// Hold it until the next input.
    Wait,
    /// Send this to the sidecar and give its reply to [`Delivery::reply`].
    Submit(Box<JobEvent>),
    /// Answer and be done.
    Answer(Answer),
    /// Tell what the answer would be, and let the request pass: a dry run.
    Report(Answer),
}

pub struct Delivery {
    config: Rc<Config>,
    state: State,
    id: String,
    hook: Option<usize>,
    secret: Option<usize>,
    received_bytes: u64,
}

enum State {
    New,
    Passing,
    Receiving(Box<Receiving>),
    Submitted { job_id: u64 },
    Answered,
}

/// What the headers told, needed once the body is there.
struct Receiving {
    signature: Signature,
    verifier: Verifier,
    encoding: Encoding,
    event: String,
    origin: proto::Delivery,
}

#[derive(Clone, Copy)]
enum Encoding {
    Json,
    Form,
}

enum Target {
    NotOurs,
    UnknownHook,
    Hook(usize),
}

impl Delivery {
    pub fn new(config: Rc<Config>) -> Self {
        Self {
            config,
            state: State::New,
            id: String::new(),
            hook: None,
            secret: None,
            received_bytes: 0,
        }
    }

    /// GitHub's id of the delivery; empty until the headers were accepted.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Position of the hook in the configuration.
    pub fn hook(&self) -> Option<usize> {
        self.hook
    }

    /// Position of the secret that verified the signature.
    pub fn secret(&self) -> Option<usize> {
        self.secret
    }

    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Everything that can be refused without reading the body is refused here.
    pub fn headers(&mut self, headers: Headers<'_>) -> Step {
        let target = headers
            .field(":path")
            .once()
            .map_or(Target::NotOurs, |path| target(&self.config, path));
        let hook = match target {
            Target::NotOurs => {
                self.state = State::Passing;
                return Step::Continue;
            }
            Target::UnknownHook => {
                return self.reject(Outcome::UnknownHook, "no hook is configured at this path");
            }
            Target::Hook(hook) => hook,
        };
        self.hook = Some(hook);
        match self.check(headers, hook) {
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
        hook: usize,
    ) -> Result<Receiving, (Outcome, &'static str)> {
        if headers.field(":method").once() != Some(b"POST") {
            return Err((Outcome::MethodNotAllowed, "webhooks are sent by POST"));
        }
        let signature = read_signature(headers.field("x-hub-signature-256"))?;
        let event = headers
            .field("x-github-event")
            .token(MAX_EVENT_BYTES, |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
            .ok_or((
                Outcome::HeaderMalformed,
                "x-github-event must be there once and hold the name of an event",
            ))?;
        let id = headers
            .field("x-github-delivery")
            .token(MAX_DELIVERY_ID_BYTES, |byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            .ok_or((
                Outcome::HeaderMalformed,
                "x-github-delivery must be there once and hold a GUID",
            ))?;
        // Envoy joins repeated ones by a comma, which no host has in it.
        let host = headers.field(":authority");
        if host == Field::Repeated || host.once().is_some_and(|host| host.contains(&b',')) {
            return Err((Outcome::HeaderMalformed, "host must be there once"));
        }
        let encoding = read_content_type(headers.field("content-type"))?;
        self.check_content_length(headers.field("content-length"))?;
        let hook = self
            .config
            .hooks
            .get(hook)
            .ok_or((Outcome::UnknownHook, "no hook is configured at this path"))?;
        Ok(Receiving {
            signature,
            verifier: hook.verifier().ok_or((
                Outcome::Unavailable,
                "the sidecar has not told the secrets of this hook yet",
            ))?,
            encoding,
            event: event.to_owned(),
            origin: proto::Delivery {
                id: id.to_owned(),
                hook: hook.name.clone(),
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

    /// A first guess only, to refuse early: the body itself is counted.
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
                Err((Outcome::HeaderMalformed, "content-length must be one decimal number"))
            }
        }
    }

    /// The next bytes of the body, in order and each once.
    pub fn chunk(&mut self, chunk: &[u8]) -> Step {
        let State::Receiving(receiving) = &mut self.state else {
            return self.idle();
        };
        self.received_bytes = self.received_bytes.saturating_add(chunk.len() as u64);
        if self.received_bytes > self.config.max_body_bytes {
            return self.reject(Outcome::TooLarge, TOO_LARGE);
        }
        receiving.verifier.update(chunk);
        Step::Wait
    }

    /// The body is complete. `body` fetches all of it and is called only once
    /// the signature is verified, so that nothing unsigned is ever copied.
    pub fn end(&mut self, body: impl FnOnce() -> Option<Vec<u8>>) -> Step {
        let receiving = match mem::replace(&mut self.state, State::Answered) {
            State::Receiving(receiving) => *receiving,
            other => {
                self.state = other;
                return self.idle();
            }
        };
        let Receiving { signature, verifier, encoding, event, origin } = receiving;
        self.secret = verifier.verify(&signature);
        if self.secret.is_none() {
            return self.reject(
                Outcome::SignatureMismatch,
                "x-hub-signature-256 was not made with a secret of this hook",
            );
        }
        match event.as_str() {
            "workflow_job" => {}
            "ping" => return self.answer(Answer::pong(&origin.id)),
            other => return self.answer(Answer::ignored(&origin.id, other, None)),
        }
        // What is parsed must be what was hashed.
        let Some(body) = body().filter(|body| body.len() as u64 == self.received_bytes) else {
            return self.answer(Answer::unavailable("the body was lost before it was read"));
        };
        let json = match encoding {
            Encoding::Json => Cow::Borrowed(body.as_slice()),
            Encoding::Form => match form_payload(&body) {
                Some(payload) => Cow::Owned(payload),
                None => {
                    return self.reject(
                        Outcome::PayloadMalformed,
                        "the form must have one `payload` field",
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
        let hook = self.hook.and_then(|hook| self.config.hooks.get(hook));
        if !hook.is_some_and(|hook| hook.allows(&event.repository)) {
            return self.reject(
                Outcome::RepositoryNotAllowed,
                "allow_repositories of this hook does not name the repository",
            );
        }
        if !hook.is_some_and(|hook| hook.wants(event.action())) {
            let action = event.action().as_str_name().trim_start_matches("ACTION_");
            let action = action.to_ascii_lowercase();
            return self.answer(Answer::ignored(&origin.id, "workflow_job", Some(&action)));
        }
        if event.encoded_len() > EVENT_BYTES_MAX {
            return self.reject(
                Outcome::PayloadMalformed,
                "the job's labels and names take more room than any that GitHub sends",
            );
        }
        if self.config.dry_run {
            let job = event.job.as_ref().map_or(0, |job| job.id);
            return self.answer(Answer::accepted(&origin.id, job, "", &[]));
        }
        self.state = State::Submitted { job_id: event.job.as_ref().map_or(0, |job| job.id) };
        event.delivery = Some(origin);
        Step::Submit(event)
    }

    /// What the sidecar says of the event, if it came to that.
    pub fn receipt(&mut self, receipt: &Receipt) -> Step {
        let State::Submitted { job_id } = self.state else {
            return self.idle();
        };
        self.answer(if receipt.outcome() == proto::Outcome::Duplicate {
            Answer::duplicate(&self.id, job_id)
        } else {
            Answer::accepted(&self.id, job_id, &receipt.pool, &receipt.missing_labels)
        })
    }

    /// The sidecar's reply: a gRPC status and, for OK, a [`Receipt`].
    pub fn reply(&mut self, grpc_status: u32, message: &[u8]) -> Step {
        if !matches!(self.state, State::Submitted { .. }) {
            return self.idle();
        }
        if grpc_status == GRPC_OK {
            return match Receipt::decode(message) {
                Ok(receipt) => self.receipt(&receipt),
                Err(_) => self.answer(Answer::unavailable("the sidecar's reply is not a receipt")),
            };
        }
        let reason = match grpc_status {
            GRPC_INVALID_ARGUMENT => {
                return self.reject(Outcome::Refused, "the sidecar finds the event invalid");
            }
            GRPC_DEADLINE_EXCEEDED => "the sidecar did not answer in time",
            GRPC_RESOURCE_EXHAUSTED => "the sidecar has too many events waiting",
            GRPC_FAILED_PRECONDITION => {
                "filter and sidecar do not understand each other: run both of one release"
            }
            GRPC_UNAVAILABLE => "the sidecar is away, too slow, or cannot store",
            other => {
                return self.answer(Answer::unavailable(&format!(
                    "the sidecar failed with gRPC status {other}"
                )));
            }
        };
        self.answer(Answer::unavailable(reason))
    }

    /// The event could not be sent, or what it was sent over has ended.
    pub fn no_reply(&mut self) -> Step {
        self.reply(GRPC_UNAVAILABLE, &[])
    }

    /// The sidecar has not replied for too long.
    pub fn reply_late(&mut self) -> Step {
        self.reply(GRPC_DEADLINE_EXCEEDED, &[])
    }

    /// As many events wait for a reply as may.
    pub fn too_many(&mut self) -> Step {
        self.reply(GRPC_RESOURCE_EXHAUSTED, &[])
    }

    /// Input that no longer changes anything: there is one answer at most.
    fn idle(&self) -> Step {
        match self.state {
            State::New | State::Passing => Step::Continue,
            State::Receiving(_) | State::Submitted { .. } | State::Answered => Step::Wait,
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

const TOO_LARGE: &str = "the body is larger than max_body_bytes";

/// One trailing slash is forgiven: it is the likeliest slip in a webhook's URL.
fn target(config: &Config, path: &[u8]) -> Target {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let name = match path.strip_prefix(config.path.as_bytes()) {
        Some([]) => &[],
        Some([b'/', name @ ..]) => name.strip_suffix(b"/").unwrap_or(name),
        _ => return Target::NotOurs,
    };
    str::from_utf8(name)
        .ok()
        .and_then(|name| config.hook(name))
        .map_or(Target::UnknownHook, Target::Hook)
}

fn read_signature(field: Field<'_>) -> Result<Signature, (Outcome, &'static str)> {
    match field {
        Field::Missing => {
            Err((Outcome::SignatureMissing, "no x-hub-signature-256: give the webhook a secret"))
        }
        Field::Repeated => {
            Err((Outcome::SignatureMalformed, "x-hub-signature-256 is there more than once"))
        }
        Field::Once(value) => Signature::parse(value).ok_or((
            Outcome::SignatureMalformed,
            "x-hub-signature-256 must be sha256= and 64 hex digits",
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

/// As with headers, which of several counts is not for us to say. The bytes are
/// kept as they are: a library's lossy text could differ from what was signed.
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

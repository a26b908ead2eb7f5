//! Answers to deliveries: one line of JSON, which GitHub shows under "Recent
//! deliveries".

use serde::Serialize;

/// Envoy's access log reads this response header.
pub const OUTCOME_HEADER: &str = "x-edgerunner-outcome";

/// Response header of a dry run: the outcome that the delivery would have had.
pub const DRY_RUN_HEADER: &str = "x-edgerunner-dry-run";

/// How long the delivery was held for want of a way to the sidecar, in milliseconds; absent if it
/// was not. Envoy's access log reads it as well.
pub const HELD_HEADER: &str = "x-edgerunner-held-ms";

/// About how long a restart of the sidecar takes. GitHub does not retry by itself; this is for
/// people and scripts that redeliver.
const RETRY_AFTER_SECONDS: &str = "5";

/// Outcome of a delivery; each has a status code, a metric and a word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Duplicate,
    Ignored,
    Pong,
    UnknownWebhook,
    MethodNotAllowed,
    SignatureMissing,
    SignatureMalformed,
    SignatureMismatch,
    HeaderMalformed,
    MediaType,
    TooLarge,
    PayloadMalformed,
    RepositoryNotAllowed,
    Refused,
    Unavailable,
}

impl Outcome {
    pub const ALL: [Self; 16] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Ignored,
        Self::Pong,
        Self::UnknownWebhook,
        Self::MethodNotAllowed,
        Self::SignatureMissing,
        Self::SignatureMalformed,
        Self::SignatureMismatch,
        Self::HeaderMalformed,
        Self::MediaType,
        Self::TooLarge,
        Self::PayloadMalformed,
        Self::RepositoryNotAllowed,
        Self::Refused,
        Self::Unavailable,
    ];

    pub fn slug(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Pong => "pong",
            Self::UnknownWebhook => "unknown_hook",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureMismatch => "signature_mismatch",
            Self::HeaderMalformed => "header_malformed",
            Self::MediaType => "media_type",
            Self::TooLarge => "too_large",
            Self::PayloadMalformed => "payload_malformed",
            Self::RepositoryNotAllowed => "repository_not_allowed",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }

    pub fn status(self) -> u16 {
        match self {
            Self::Pong => 200,
            Self::Accepted | Self::Duplicate | Self::Ignored => 202,
            Self::SignatureMalformed
            | Self::HeaderMalformed
            | Self::PayloadMalformed
            | Self::Refused => 400,
            Self::SignatureMissing | Self::SignatureMismatch => 401,
            Self::RepositoryNotAllowed => 403,
            Self::UnknownWebhook => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::Unavailable => 503,
        }
    }

    /// Whether the signature had been verified. Unsigned requests may come in floods
    /// and must not fill the log.
    pub fn is_signed(self) -> bool {
        match self {
            Self::Accepted
            | Self::Duplicate
            | Self::Ignored
            | Self::Pong
            | Self::PayloadMalformed
            | Self::RepositoryNotAllowed
            | Self::Refused
            | Self::Unavailable => true,
            Self::UnknownWebhook
            | Self::MethodNotAllowed
            | Self::SignatureMissing
            | Self::SignatureMalformed
            | Self::SignatureMismatch
            | Self::HeaderMalformed
            | Self::MediaType
            | Self::TooLarge => false,
        }
    }

    fn extra_header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::MethodNotAllowed => Some(("allow", "POST")),
            Self::Unavailable => Some(("retry-after", RETRY_AFTER_SECONDS)),
            _ => None,
        }
    }
}

/// One HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: String,
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
enum Body<'a> {
    Accepted {
        delivery: &'a str,
        job: u64,
        pool: Option<&'a str>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        missing_labels: &'a [String],
    },
    Duplicate {
        delivery: &'a str,
        job: u64,
    },
    Ignored {
        delivery: &'a str,
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        action: Option<&'a str>,
    },
    Pong {
        delivery: &'a str,
        filter: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        envoy: &'a str,
    },
    Rejected {
        reason: &'a str,
    },
    Unavailable {
        reason: &'a str,
    },
}

impl Answer {
    /// `pool` is empty if no pool matches; the closest one lacks `missing_labels`.
    pub fn accepted(delivery: &str, job: u64, pool: &str, missing_labels: &[String]) -> Self {
        let body = Body::Accepted {
            delivery,
            job,
            pool: (!pool.is_empty()).then_some(pool),
            missing_labels,
        };
        Self::new(Outcome::Accepted, &body)
    }

    pub fn duplicate(delivery: &str, job: u64) -> Self {
        Self::new(Outcome::Duplicate, &Body::Duplicate { delivery, job })
    }

    pub fn ignored(delivery: &str, event: &str, action: Option<&str>) -> Self {
        let body = Body::Ignored { delivery, event, action };
        Self::new(Outcome::Ignored, &body)
    }

    /// Only those who know a secret get this answer, so it may have the versions: of the filter,
    /// and of Envoy unless it is empty.
    pub fn pong(delivery: &str, envoy: &str) -> Self {
        let body = Body::Pong { delivery, filter: env!("CARGO_PKG_VERSION"), envoy };
        Self::new(Outcome::Pong, &body)
    }

    pub fn rejected(outcome: Outcome, reason: &str) -> Self {
        let body = match outcome {
            Outcome::Unavailable => Body::Unavailable { reason },
            _ => Body::Rejected { reason },
        };
        Self::new(outcome, &body)
    }

    pub fn unavailable(reason: &str) -> Self {
        Self::rejected(Outcome::Unavailable, reason)
    }

    fn new(outcome: Outcome, body: &Body<'_>) -> Self {
        let mut headers =
            vec![("content-type", "application/json"), (OUTCOME_HEADER, outcome.slug())];
        headers.extend(outcome.extra_header());
        Self {
            outcome,
            status: outcome.status(),
            headers,
            // Strings and numbers cannot fail to serialize.
            body: serde_json::to_string(body).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_one_line_with_the_outcome_first() {
        let cases = [
            (
                Answer::accepted("d", 1 << 40, "default", &[]),
                r#"{"outcome":"accepted","delivery":"d","job":1099511627776,"pool":"default"}"#,
            ),
            (
                Answer::accepted("d", 1, "", &["gpu".to_owned()]),
                r#"{"outcome":"accepted","delivery":"d","job":1,"pool":null,"missing_labels":["gpu"]}"#,
            ),
            (Answer::duplicate("d", 1), r#"{"outcome":"duplicate","delivery":"d","job":1}"#),
            (
                Answer::ignored("d", "push", None),
                r#"{"outcome":"ignored","delivery":"d","event":"push"}"#,
            ),
            (
                Answer::ignored("d", "workflow_job", Some("waiting\n")),
                r#"{"outcome":"ignored","delivery":"d","event":"workflow_job","action":"waiting\n"}"#,
            ),
            (
                Answer::pong("d", ""),
                concat!(
                    r#"{"outcome":"pong","delivery":"d","filter":""#,
                    env!("CARGO_PKG_VERSION"),
                    r#""}"#
                ),
            ),
            (
                Answer::pong("d", "1.2.3"),
                concat!(
                    r#"{"outcome":"pong","delivery":"d","filter":""#,
                    env!("CARGO_PKG_VERSION"),
                    r#"","envoy":"1.2.3"}"#
                ),
            ),
            (Answer::rejected(Outcome::TooLarge, "no"), r#"{"outcome":"rejected","reason":"no"}"#),
            (Answer::unavailable("later"), r#"{"outcome":"unavailable","reason":"later"}"#),
        ];
        for (answer, body) in cases {
            assert_eq!(answer.body, body);
        }
    }

    #[test]
    fn every_answer_names_its_outcome_in_a_header() {
        for outcome in Outcome::ALL {
            let answer = Answer::rejected(outcome, "");
            assert!(answer.headers.contains(&(OUTCOME_HEADER, outcome.slug())));
            assert!(answer.headers.contains(&("content-type", "application/json")));
        }
    }

    #[test]
    fn slugs_are_distinct_and_valid_in_metric_names() {
        let mut slugs = Outcome::ALL.map(Outcome::slug);
        slugs.sort_unstable();
        assert!(slugs.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(slugs.iter().all(|slug| slug.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn some_refusals_have_an_extra_header() {
        let headers = |outcome| Answer::rejected(outcome, "").headers;
        assert!(headers(Outcome::MethodNotAllowed).contains(&("allow", "POST")));
        assert!(headers(Outcome::Unavailable).contains(&("retry-after", "5")));
    }
}

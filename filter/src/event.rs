//! GitHub's `workflow_job` payload, reduced to the fields that the sidecar uses.

use std::{fmt, marker::PhantomData};

use edgerunner_proto::{
    host_of,
    v1::{Action, Job, JobEvent, Visibility},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::json_error;

/// Longest part of a JSON error that is repeated; it may quote the payload.
const MAX_REASON_CHARS: usize = 200;

/// A valid payload.
#[derive(Debug, PartialEq)]
pub(crate) enum Payload {
    /// `delivery` is unset, since it comes from the headers. Boxed because the other variant
    /// is much smaller.
    Job(Box<JobEvent>),
    /// The action does not concern the scheduler.
    Ignored { action: String },
}

/// Why a signed payload is not a `workflow_job`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventError(String);

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EventError {
    fn missing(field: &str) -> Self {
        Self(format!("not a workflow_job payload: `{field}` is missing"))
    }

    fn not_a_name(field: &str) -> Self {
        Self(format!("not a workflow_job payload: `{field}` is not a name that GitHub allows"))
    }

    fn at(line: usize, column: usize, what: &str) -> Self {
        Self(format!("not a workflow_job payload: line {line} column {column}: {what}"))
    }
}

impl From<serde_json::Error> for EventError {
    fn from(error: serde_json::Error) -> Self {
        // The position comes first, since the message may be cut.
        let text: String = json_error::message(&error).chars().take(MAX_REASON_CHARS).collect();
        Self::at(error.line(), error.column(), &text)
    }
}

// Older GitHub Enterprise Servers send fewer fields, and GitHub sends null for empty ones, so
// only the fields that identify a job are required.

#[derive(Deserialize)]
struct RawPayload {
    action: Option<String>,
    workflow_job: Option<Object<RawJob>>,
    repository: Option<Object<RawRepository>>,
    organization: Option<Object<RawOrganization>>,
    enterprise: Option<Object<RawEnterprise>>,
}

#[derive(Deserialize)]
struct RawJob {
    id: Option<u64>,
    run_id: Option<u64>,
    run_attempt: Option<u32>,
    name: Option<String>,
    workflow_name: Option<String>,
    head_branch: Option<String>,
    html_url: Option<String>,
    labels: Option<Vec<String>>,
    conclusion: Option<String>,
    runner_name: Option<String>,
    created_at: Option<String>,
}

#[derive(Default, Deserialize)]
struct RawRepository {
    full_name: Option<String>,
    html_url: Option<String>,
    // Of any type: a job is not lost because GitHub writes them differently.
    visibility: Option<Loose>,
    private: Option<Loose>,
}

#[derive(Deserialize)]
struct RawOrganization {
    login: Option<String>,
}

#[derive(Deserialize)]
struct RawEnterprise {
    slug: Option<String>,
}

/// A value of any type, of which only some are read. `serde_json::Value` would keep all of it, and
/// adds 11 KB to the module.
enum Loose {
    Text(String),
    Flag(bool),
    Other,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LooseVisitor;

        impl<'de> Visitor<'de> for LooseVisitor {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose, E> {
                Ok(Loose::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Loose, E> {
                Ok(Loose::Flag(flag))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Loose, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
        }

        deserializer.deserialize_any(LooseVisitor)
    }
}

/// An object only; serde alone would also accept an array of the fields in order.
#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads a payload whose signature was verified.
pub(crate) fn parse(json: &[u8]) -> Result<Payload, EventError> {
    let json = text(json)?;
    let Object(raw) = serde_json::from_str::<Object<RawPayload>>(json)?;
    let action = raw.action.ok_or_else(|| EventError::missing("action"))?;
    // Not `workflow_job.status`, which may differ: a queued job can be `waiting`.
    let action = match action.as_str() {
        "queued" => Action::Queued,
        "in_progress" => Action::InProgress,
        "completed" => Action::Completed,
        _ => return Ok(Payload::Ignored { action }),
    };
    let Object(job) = raw.workflow_job.ok_or_else(|| EventError::missing("workflow_job"))?;
    let Object(raw_repository) = raw.repository.unwrap_or_default();
    let visibility = visibility(&raw_repository);
    let RawRepository { full_name, html_url: web_page, .. } = raw_repository;
    let repository = full_name
        .filter(|full_name| !full_name.is_empty())
        .ok_or_else(|| EventError::missing("repository.full_name"))?;
    let host = [&web_page, &job.html_url].into_iter().flatten().find_map(|url| host_of(url));
    let organization = raw.organization.and_then(|Object(it)| it.login).unwrap_or_default();
    let enterprise = raw.enterprise.and_then(|Object(it)| it.slug).unwrap_or_default();
    // The sidecar builds GitHub's paths from them.
    for (field, is_name) in [
        ("repository.full_name", edgerunner_pattern::is_full_name(&repository)),
        (
            "organization.login",
            organization.is_empty() || edgerunner_pattern::is_owner(&organization),
        ),
        ("enterprise.slug", enterprise.is_empty() || edgerunner_pattern::is_name(&enterprise)),
    ] {
        if !is_name {
            return Err(EventError::not_a_name(field));
        }
    }
    Ok(Payload::Job(Box::new(JobEvent {
        delivery: None,
        action: action.into(),
        job: Some(read_job(job)?),
        repository,
        organization,
        enterprise,
        host: host.unwrap_or_default(),
        visibility: visibility.into(),
    })))
}

/// Older servers send only `private`. Unspecified if the two contradict each other: the sidecar
/// then takes the repository for public until it knows more.
fn visibility(repository: &RawRepository) -> Visibility {
    let name = repository.visibility.as_ref().map(|name| match name {
        Loose::Text(name) => name.as_str(),
        Loose::Flag(_) | Loose::Other => "",
    });
    let private = match &repository.private {
        None => None,
        Some(Loose::Flag(private)) => Some(*private),
        Some(_) => return Visibility::Unspecified,
    };
    match (name, private) {
        (None, Some(false)) | (Some("public"), None | Some(false)) => Visibility::Public,
        (None, Some(true)) | (Some("private"), None | Some(true)) => Visibility::Private,
        (Some("internal"), None | Some(true)) => Visibility::Internal,
        _ => Visibility::Unspecified,
    }
}

/// Checks all of the text: serde does not check the fields that it skips, which other
/// readers may interpret differently.
fn text(json: &[u8]) -> Result<&str, EventError> {
    str::from_utf8(json).map_err(|error| {
        let (valid, _) = json.split_at_checked(error.valid_up_to()).unwrap_or_default();
        let line = valid.split(|byte| *byte == b'\n');
        let column = line.clone().next_back().map_or(0, <[u8]>::len) + 1;
        EventError::at(line.count(), column, "not UTF-8")
    })
}

fn read_job(raw: RawJob) -> Result<Job, EventError> {
    Ok(Job {
        id: raw.id.filter(|id| *id != 0).ok_or_else(|| EventError::missing("workflow_job.id"))?,
        run_id: raw.run_id.unwrap_or_default(),
        run_attempt: raw.run_attempt.unwrap_or(1),
        name: raw.name.unwrap_or_default(),
        workflow_name: raw.workflow_name.unwrap_or_default(),
        head_branch: raw.head_branch.unwrap_or_default(),
        html_url: raw.html_url.unwrap_or_default(),
        labels: raw.labels.unwrap_or_default(),
        conclusion: raw.conclusion.unwrap_or_default(),
        runner_name: raw.runner_name.unwrap_or_default(),
        created_at: raw.created_at.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUED: &str = include_str!("../tests/fixtures/queued.json");
    const COMPLETED: &str = include_str!("../tests/fixtures/completed_skipped.json");
    const OLD_SERVER: &str = include_str!("../tests/fixtures/queued_old_server.json");

    fn job(json: &str) -> JobEvent {
        match parse(json.as_bytes()) {
            Ok(Payload::Job(event)) => *event,
            other => panic!("{other:?}"),
        }
    }

    fn error(json: &str) -> String {
        parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn every_field_is_read() {
        assert_eq!(
            job(QUEUED),
            JobEvent {
                delivery: None,
                action: Action::Queued.into(),
                job: Some(Job {
                    id: 12_877_621_891,
                    run_id: 4_747_967_848,
                    run_attempt: 2,
                    name: "build (ümlaut)".to_owned(),
                    workflow_name: "CI".to_owned(),
                    head_branch: "main".to_owned(),
                    html_url:
                        "https://github.com/acme/widgets/actions/runs/4747967848/job/12877621891"
                            .to_owned(),
                    labels: vec!["self-hosted".to_owned(), "Linux".to_owned()],
                    conclusion: String::new(),
                    runner_name: String::new(),
                    created_at: "2026-01-02T03:04:05Z".to_owned(),
                }),
                repository: "acme/widgets".to_owned(),
                organization: "acme".to_owned(),
                enterprise: "acme-inc".to_owned(),
                host: "github.com".to_owned(),
                visibility: Visibility::Private.into(),
            }
        );
    }

    #[test]
    fn the_action_decides_and_not_the_status() {
        assert!(QUEUED.contains(r#""status": "waiting""#));
        assert_eq!(job(QUEUED).action(), Action::Queued);
    }

    #[test]
    fn a_skipped_job_has_no_labels_and_no_runner() {
        let event = job(COMPLETED);
        assert_eq!(event.action(), Action::Completed);
        let job = event.job.unwrap();
        assert_eq!(job.conclusion, "skipped");
        assert!(job.labels.is_empty());
        assert_eq!(job.runner_name, "");
    }

    #[test]
    fn fields_that_older_servers_do_not_send_have_defaults() {
        let event = job(OLD_SERVER);
        assert_eq!((event.organization.as_str(), event.host.as_str()), ("", "ghe.example.com"));
        let job = event.job.unwrap();
        assert_eq!(job.run_attempt, 1);
        assert_eq!((job.created_at.as_str(), job.workflow_name.as_str()), ("", ""));
    }

    #[test]
    fn the_runner_of_a_running_job_is_read() {
        let event =
            job(r#"{"action":"in_progress","repository":{"full_name":"a/b"},"workflow_job":
            {"id":9007199254740993,"runner_name":"r"}}"#);
        assert_eq!(event.action(), Action::InProgress);
        let job = event.job.unwrap();
        // A floating-point number would lose the last digit.
        assert_eq!(job.id, 9_007_199_254_740_993);
        assert_eq!(job.runner_name, "r");
    }

    #[test]
    fn the_host_is_that_of_the_repository_or_else_of_the_job() {
        let host = |repository: &str, of_job: &str| {
            job(&format!(
                r#"{{"action":"queued","repository":{{"full_name":"a/b"{repository}}},
                "workflow_job":{{"id":1{of_job}}}}}"#
            ))
            .host
        };
        let (repository, of_job) = (
            r#","html_url":"https://GHE.example.com:8443/a/b""#,
            r#","html_url":"https://github.com/a/b/actions/runs/1/job/1""#,
        );
        assert_eq!(host(repository, of_job), "ghe.example.com:8443");
        assert_eq!(host("", of_job), "github.com");
        assert_eq!(host(r#","html_url":null"#, of_job), "github.com");
        assert_eq!(host(r#","html_url":"javascript:alert(1)""#, ""), "");
        assert_eq!(host("", ""), "");
    }

    #[test]
    fn the_visibility_is_unspecified_unless_it_is_reported_without_contradiction() {
        use Visibility::{Internal, Private, Public, Unspecified};
        for (fields, expected) in [
            (r#","visibility":"public","private":false"#, Public),
            (r#","visibility":"private","private":true"#, Private),
            (r#","visibility":"internal","private":true"#, Internal),
            (r#","visibility":"internal""#, Internal),
            // As older servers send it.
            (r#","private":true"#, Private),
            (r#","private":false"#, Public),
            (r#","visibility":null,"private":true"#, Private),
            ("", Unspecified),
            (r#","visibility":"Private","private":true"#, Unspecified),
            (r#","visibility":"secret","private":true"#, Unspecified),
            (r#","visibility":["private"],"private":true"#, Unspecified),
            (r#","visibility":"private","private":"yes""#, Unspecified),
            (r#","visibility":"private","private":false"#, Unspecified),
            (r#","visibility":"public","private":true"#, Unspecified),
        ] {
            let event = job(&format!(
                r#"{{"action":"queued","repository":{{"full_name":"a/b"{fields}}},
                "workflow_job":{{"id":1}}}}"#
            ));
            assert_eq!(event.visibility(), expected, "{fields}");
        }
        assert_eq!(job(OLD_SERVER).visibility(), Private);
    }

    #[test]
    fn other_actions_are_ignored_without_reading_the_job() {
        for action in ["waiting", "requested", "QUEUED", ""] {
            assert_eq!(
                parse(format!(r#"{{"action":"{action}"}}"#).as_bytes()),
                Ok(Payload::Ignored { action: action.to_owned() })
            );
        }
    }

    #[test]
    fn invalid_json_is_reported_with_its_position() {
        assert_eq!(
            error("{\n  \"action\": queued}"),
            "not a workflow_job payload: line 2 column 13: expected value"
        );
        for json in ["", " ", "{", "[1", "\u{feff}{}", "{} {}", r#"{"action":"\ud800"}"#] {
            assert!(error(json).contains(": line "), "{json}");
        }
        assert!(parse(b"{\"action\":\"\xff\"}").is_err());
    }

    #[test]
    fn invalid_utf_8_is_rejected_in_every_field() {
        let json = b"{\n\"action\":\"waiting\",\"unread\":\"a\xffb\"}";
        assert_eq!(
            parse(json).unwrap_err().to_string(),
            "not a workflow_job payload: line 2 column 31: not UTF-8"
        );
    }

    #[test]
    fn an_array_is_not_accepted_as_an_object() {
        for json in [
            r#"["queued",{"id":1},{"full_name":"a/b"},null,null]"#,
            r#"{"action":"queued","workflow_job":{"id":1},"repository":["a/b"]}"#,
        ] {
            assert!(error(json).contains("invalid type: sequence, expected an object"));
        }
    }

    #[test]
    fn other_payloads_are_rejected_with_the_field_that_is_missing_or_wrong() {
        for (json, reason) in [
            ("null", "line 1 column 4: invalid type: null, expected an object"),
            ("{}", "`action` is missing"),
            (r#"{"action":null}"#, "`action` is missing"),
            (
                r#"{"action":"queued","repository":{"full_name":"a/b"}}"#,
                "`workflow_job` is missing",
            ),
            (r#"{"action":"queued","workflow_job":{"id":1}}"#, "`repository.full_name` is missing"),
            (
                r#"{"action":"queued","workflow_job":{"id":1},"repository":{"full_name":""}}"#,
                "`repository.full_name` is missing",
            ),
            (
                r#"{"action":"queued","workflow_job":{},"repository":{"full_name":"a/b"}}"#,
                "`workflow_job.id` is missing",
            ),
            (
                r#"{"action":"queued","workflow_job":{"id":0},"repository":{"full_name":"a/b"}}"#,
                "`workflow_job.id` is missing",
            ),
            (r#"{"action":"queued","workflow_job":{"id":-1}}"#, "expected u64"),
            (r#"{"action":"queued","workflow_job":{"id":1e400}}"#, "number out of range"),
            (r#"{"action":"queued","workflow_job":{"id":18446744073709551616}}"#, "expected u64"),
            (r#"{"action":"queued","workflow_job":{"labels":"x"}}"#, "expected a sequence"),
            (r#"{"action":"queued","action":"completed"}"#, "duplicate field"),
        ] {
            let error = error(json);
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn names_that_github_cannot_have_are_rejected_with_their_field() {
        let payload = |repository: &str, organization: &str, enterprise: &str| {
            format!(
                r#"{{"action":"queued","workflow_job":{{"id":1}},"repository":{{"full_name":"{repository}"}},
                "organization":{{"login":"{organization}"}},"enterprise":{{"slug":"{enterprise}"}}}}"#
            )
        };
        // Users' repositories have no organization.
        assert_eq!(job(&payload("mona_acme/.github", "", "")).repository, "mona_acme/.github");
        job(&payload("a/b", "a", "acme-inc"));
        for name in ["..", ".", "a b", "a/../b", "a%2fb", "a?b", "\\u0000", "\u{fc}"] {
            let named = |payload: String, field: &str| {
                let error = error(&payload);
                assert!(
                    error.contains(field) && error.ends_with("GitHub allows"),
                    "{name}: {error}"
                );
            };
            named(payload(&format!("{name}/b"), "", ""), "`repository.full_name`");
            named(payload(&format!("a/{name}"), "", ""), "`repository.full_name`");
            named(payload("a/b", name, ""), "`organization.login`");
            named(payload("a/b", "", name), "`enterprise.slug`");
        }
        let long = "x".repeat(300);
        assert!(error(&payload(&format!("a/{long}"), "", "")).contains("`repository.full_name`"));
        assert!(error(&payload("a/b", &long, "")).contains("`organization.login`"));
    }

    #[test]
    fn a_reason_is_short_whatever_the_payload_contains() {
        let label = "ü".repeat(1 << 20);
        let json = format!(r#"{{"action":"queued","workflow_job":{{"id":"{label}"}}}}"#);
        assert!(error(&json).chars().count() < 300);
    }

    #[test]
    fn deep_and_long_values_do_no_harm() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let json = format!(
            r#"{{"x":{deep},"action":"queued","repository":{{"full_name":"a/b"}},"workflow_job":{{"id":1,"labels":[{}"x"]}}}}"#,
            r#""l","#.repeat(100_000)
        );
        assert_eq!(job(&json).job.unwrap().labels.len(), 100_001);
    }
}

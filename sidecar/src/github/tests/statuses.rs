//! Every call, with every status that GitHub documents for it.

use futures_util::future::BoxFuture;

use super::*;

type Outcome = Result<&'static str, ErrorKind>;

/// A call, the request GitHub must see, and the outcome of each status. The statuses are those
/// of github.com/github/rest-api-description (`api.github.com` and `ghec`), and those that any
/// call may get.
struct Documented {
    call: fn(GitHub) -> BoxFuture<'static, Outcome>,
    method: Method,
    path: &'static str,
    body: Value,
    good: &'static str,
    outcomes: Vec<(u16, Outcome)>,
}

fn outcome<T>(result: Result<T, Error>, describe: impl FnOnce(T) -> &'static str) -> Outcome {
    result.map(describe).map_err(|error| error.kind)
}

macro_rules! call {
    (|$github:ident| $call:expr, |$answer:pat_param| $outcome:expr) => {
        |$github| Box::pin(async move { outcome($call.await, |$answer| $outcome) })
    };
}

const RUNNERS: &str = r#"{"total_count":0,"runners":[]}"#;
const GROUPS: &str = r#"{"total_count":1,"runner_groups":[{"id":7,"name":"large"}]}"#;
const JOB: &str = r#"{"id":9,"status":"queued","conclusion":null,"runner_name":null}"#;
const WEBHOOK: &str = r#"{"id":3,"active":true,"events":["workflow_job"],"config":{"url":"u"}}"#;
const WEBHOOKS: &str = r#"[{"id":3,"active":true,"events":["workflow_job"],"config":{"url":"u"}}]"#;

fn enterprise() -> Target {
    Target::Enterprise("big".into())
}

/// Statuses that any call may get.
fn always() -> Vec<(u16, Outcome)> {
    vec![
        (401, Err(ErrorKind::Unauthorized)),
        (403, Err(ErrorKind::Forbidden)),
        (404, Err(ErrorKind::NotFound)),
        (405, Err(ErrorKind::UnexpectedResponse)),
        (410, Err(ErrorKind::NotFound)),
        (429, Err(ErrorKind::RateLimited)),
        (451, Err(ErrorKind::Forbidden)),
        (500, Err(ErrorKind::Server)),
        (502, Err(ErrorKind::Server)),
        (503, Err(ErrorKind::Server)),
    ]
}

fn also(outcomes: &[(u16, Outcome)]) -> Vec<(u16, Outcome)> {
    let others = always().into_iter();
    let others = others.filter(|(status, _)| !outcomes.iter().any(|(own, _)| own == status));
    outcomes.iter().copied().chain(others).collect()
}

fn jit(call: fn(GitHub) -> BoxFuture<'static, Outcome>, path: &'static str) -> Documented {
    Documented {
        call,
        method: Method::POST,
        path,
        body: json!({
            "name": "edge-1",
            "labels": ["self-hosted", "linux"],
            "runner_group_id": 1,
            "work_folder": "_work",
        }),
        good: JIT_REPLY,
        outcomes: also(&[(201, Ok("registered")), (422, Err(ErrorKind::Invalid))]),
    }
}

fn get(
    call: fn(GitHub) -> BoxFuture<'static, Outcome>,
    path: &'static str,
    good: &'static str,
    outcome: &'static str,
) -> Documented {
    let (method, outcomes) = (Method::GET, also(&[(200, Ok(outcome))]));
    Documented { call, method, path, body: Value::Null, good, outcomes }
}

fn token(call: fn(GitHub) -> BoxFuture<'static, Outcome>, path: &'static str) -> Documented {
    let (method, outcomes) = (Method::POST, also(&[(201, Ok("a token"))]));
    Documented { call, method, path, body: Value::Null, good: TOKEN_REPLY, outcomes }
}

fn removal(call: fn(GitHub) -> BoxFuture<'static, Outcome>, path: &'static str) -> Documented {
    let outcomes =
        [(204, Ok("removed")), (404, Ok("absent")), (410, Ok("absent")), (422, Ok("busy"))];
    let (method, outcomes) = (Method::DELETE, also(&outcomes));
    Documented { call, method, path, body: Value::Null, good: "", outcomes }
}

fn creation(call: fn(GitHub) -> BoxFuture<'static, Outcome>, path: &'static str) -> Documented {
    let body = json!({
        "name": "web",
        "active": true,
        "events": ["workflow_job"],
        "config": {
            "url": "https://hooks.example.com/webhooks/github",
            "content_type": "json",
            "insecure_ssl": "0",
            "secret": "of-the-webhook",
        },
    });
    let outcomes = also(&[(201, Ok("created")), (422, Err(ErrorKind::Invalid))]);
    Documented { call, method: Method::POST, path, body, good: WEBHOOK, outcomes }
}

fn accepted(
    call: fn(GitHub) -> BoxFuture<'static, Outcome>,
    path: &'static str,
    status: u16,
) -> Documented {
    let (method, outcomes) = (Method::POST, also(&[(status, Ok("accepted"))]));
    Documented { call, method, path, body: Value::Null, good: "", outcomes }
}

fn hook(text: &str) -> WebhookId {
    text.parse().unwrap()
}

fn removed(removal: RunnerRemoval) -> &'static str {
    match removal {
        RunnerRemoval::Removed => "removed",
        RunnerRemoval::NotFound => "absent",
        RunnerRemoval::Busy => "busy",
    }
}

fn every_call() -> Vec<Documented> {
    vec![
        jit(
            call!(|it| it.jit_config(&repository(), &new_runner()), |_| "registered"),
            "/repos/acme/app/actions/runners/generate-jitconfig",
        ),
        jit(
            call!(|it| it.jit_config(&organization(), &new_runner()), |_| "registered"),
            "/orgs/acme/actions/runners/generate-jitconfig",
        ),
        jit(
            call!(|it| it.jit_config(&enterprise(), &new_runner()), |_| "registered"),
            "/enterprises/big/actions/runners/generate-jitconfig",
        ),
        token(
            call!(|it| it.registration_token(&repository()), |_| "a token"),
            "/repos/acme/app/actions/runners/registration-token",
        ),
        token(
            call!(|it| it.registration_token(&organization()), |_| "a token"),
            "/orgs/acme/actions/runners/registration-token",
        ),
        token(
            call!(|it| it.registration_token(&enterprise()), |_| "a token"),
            "/enterprises/big/actions/runners/registration-token",
        ),
        get(
            call!(|it| it.runners(&repository()), |_| "a list"),
            "/repos/acme/app/actions/runners?per_page=100",
            RUNNERS,
            "a list",
        ),
        get(
            call!(|it| it.runners(&organization()), |_| "a list"),
            "/orgs/acme/actions/runners?per_page=100",
            RUNNERS,
            "a list",
        ),
        get(
            call!(|it| it.runners(&enterprise()), |_| "a list"),
            "/enterprises/big/actions/runners?per_page=100",
            RUNNERS,
            "a list",
        ),
        get(
            call!(|it| it.runner_named(&organization(), "edge-1"), |_| "none"),
            "/orgs/acme/actions/runners?name=edge-1&per_page=100",
            RUNNERS,
            "none",
        ),
        get(
            call!(|it| it.group_id(&organization(), "large"), |_| "an id"),
            "/orgs/acme/actions/runner-groups?per_page=100",
            GROUPS,
            "an id",
        ),
        get(
            call!(|it| it.group_id(&enterprise(), "large"), |_| "an id"),
            "/enterprises/big/actions/runner-groups?per_page=100",
            GROUPS,
            "an id",
        ),
        removal(
            call!(|it| it.remove_runner(&repository(), 7), |it| removed(it)),
            "/repos/acme/app/actions/runners/7",
        ),
        removal(
            call!(|it| it.remove_runner(&organization(), 7), |it| removed(it)),
            "/orgs/acme/actions/runners/7",
        ),
        removal(
            call!(|it| it.remove_runner(&enterprise(), 7), |it| removed(it)),
            "/enterprises/big/actions/runners/7",
        ),
        get(
            call!(|it| it.job("acme", "app", 9), |_| "a job"),
            "/repos/acme/app/actions/jobs/9",
            JOB,
            "a job",
        ),
        get(
            call!(|it| it.webhooks(&repository()), |it| if it.len() == 1 { "one" } else { "?" }),
            "/repos/acme/app/hooks?per_page=100",
            WEBHOOKS,
            "one",
        ),
        get(
            call!(|it| it.webhooks(&organization()), |_| "one"),
            "/orgs/acme/hooks?per_page=100",
            WEBHOOKS,
            "one",
        ),
        creation(
            call!(|it| create_webhook(&it, &repository()), |_| "created"),
            "/repos/acme/app/hooks",
        ),
        creation(
            call!(|it| create_webhook(&it, &organization()), |_| "created"),
            "/orgs/acme/hooks",
        ),
        accepted(
            call!(|it| it.ping_webhook(&hook("repos/acme/app/hooks/3")), |()| "accepted"),
            "/repos/acme/app/hooks/3/pings",
            204,
        ),
        accepted(
            call!(|it| it.ping_webhook(&hook("orgs/acme/hooks/3")), |()| "accepted"),
            "/orgs/acme/hooks/3/pings",
            204,
        ),
        accepted(
            call!(|it| it.redeliver(&hook("repos/acme/app/hooks/3"), 5), |()| "accepted"),
            "/repos/acme/app/hooks/3/deliveries/5/attempts",
            202,
        ),
    ]
}

async fn create_webhook(github: &GitHub, target: &Target) -> Result<RegisteredWebhook, Error> {
    let secret = SecretString::from("of-the-webhook");
    github.create_webhook(target, "https://hooks.example.com/webhooks/github", &secret).await
}

pub(super) fn check_headers(seen: &Seen) {
    let agent = concat!("edgerunner/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("accept", "application/vnd.github+json"),
        ("x-github-api-version", "2022-11-28"),
        ("user-agent", agent),
    ] {
        assert_eq!(seen.header(name), [value], "{}", seen.uri);
    }
    assert_eq!(seen.header("authorization").len(), 1);
    assert_eq!(seen.header("host").len(), 1);
}

async fn check(documented: &Documented, status: u16, expected: Outcome) {
    let Documented { call, method, path, body, good, .. } = documented;
    let good: &'static str = if status < 300 { good } else { r#"{"message":"Said"}"# };
    let server = Server::always(status, &[], good).await;
    let outcome = call(server.patient_github()).await;
    assert_eq!(outcome, expected, "{method} {path}: {status}");

    let seen = server.seen.lock().unwrap();
    // These would have an effect twice.
    let once = ["/generate-jitconfig", "/hooks", "/pings", "/attempts"];
    let repeated = status >= 500 && !once.iter().any(|end| path.ends_with(end));
    // A second call finds out whether the job is absent or hidden.
    let is_gone = [404, 410].contains(&status) && *path == "/repos/acme/app/actions/jobs/9";
    let sent = if is_gone { 2 } else { 1 };
    assert_eq!(seen.len(), if repeated { 3 } else { sent }, "{method} {path}: {status}");
    for seen in seen.iter() {
        check_headers(seen);
    }
    let first = &seen[0];
    assert_eq!((&first.method, first.uri.to_string().as_str()), (method, *path));
    assert_eq!(&first.body, body);
    let content_type: &[&str] = if body.is_null() { &[] } else { &["application/json"] };
    assert_eq!(first.header("content-type"), content_type);
}

#[tokio::test]
async fn every_call_is_as_documented_and_every_status_has_its_outcome() {
    let calls = every_call();
    let all = calls.iter().flat_map(|documented| {
        let outcomes = documented.outcomes.iter();
        outcomes.map(move |(status, expected)| check(documented, *status, *expected))
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn the_calls_of_an_app_are_as_documented_and_every_status_has_its_outcome() {
    let installation = [
        (200, Ok("registered")),
        (301, Err(ErrorKind::UnexpectedResponse)),
        (401, Err(ErrorKind::Unauthorized)),
        (403, Err(ErrorKind::Forbidden)),
        (404, Err(ErrorKind::NotFound)),
        (500, Err(ErrorKind::Server)),
    ];
    let token = [
        (201, Ok("registered")),
        (401, Err(ErrorKind::Unauthorized)),
        (403, Err(ErrorKind::Forbidden)),
        (404, Err(ErrorKind::NotFound)),
        (422, Err(ErrorKind::Invalid)),
        (500, Err(ErrorKind::Server)),
    ];
    let cases = installation.map(|(status, outcome)| (status, 201, outcome));
    let cases = cases.into_iter().chain(token.map(|(status, outcome)| (200, status, outcome)));
    for (first, second, expected) in cases {
        for (target, path) in [
            (organization(), "/orgs/acme/installation"),
            (repository(), "/repos/acme/app/installation"),
        ] {
            let server = Server::start(move |seen| match seen.uri.path() {
                path if path.ends_with("/installation") => answer(first, &[], r#"{"id":77}"#),
                "/app/installations/77/access_tokens" => answer(second, &[], TOKEN_REPLY),
                _ => answer(201, &[], JIT_REPLY),
            })
            .await;
            let key = SecretString::from(PRIVATE_KEY).into();
            let identity = Identity::App { id: "12345".into(), private_key: key };
            let credential = CredentialConfig { identity, ..credential(&server.url()) };
            let github = GitHub::new(&credential, LONG_TIMEOUT).unwrap();
            let result = github.jit_config(&target, &new_runner()).await;
            assert_eq!(outcome(result, |_| "registered"), expected, "{first} {second}");

            let seen = server.seen.lock().unwrap();
            seen.iter().for_each(check_headers);
            assert_eq!((&seen[0].method, seen[0].uri.path()), (&Method::GET, path));
            if first == 200 {
                let sent = (&seen[1].method, seen[1].uri.path());
                assert_eq!(sent, (&Method::POST, "/app/installations/77/access_tokens"));
                assert_eq!(seen[1].body, Value::Null);
            }
        }
    }
}

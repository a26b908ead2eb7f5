//! The runner protocol, as runners written by others speak it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use edgerunner_sandbox::{Conclusion, JobRequest, JobStatus};
use http::{Method, StatusCode};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use serde_json::{Value, json};

use super::support::{Answer, World};

const SOON: Duration = Duration::from_secs(10);
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A runner that knows nothing but its just-in-time configuration.
struct OtherRunner<'a> {
    world: &'a World,
    id: u64,
    runner: Value,
    client_id: String,
    authorization_url: String,
    key: KeyPair,
}

impl<'a> OtherRunner<'a> {
    async fn register(world: &'a World, name: &str) -> Self {
        let body = json!({"name": name, "runner_group_id": 1, "labels": ["self-hosted"]});
        let path = "/repos/acme/app/actions/runners/generate-jitconfig";
        let answer = world.call(Method::POST, path, Some(body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        let body = answer.json();
        let bytes = |text: &Value| STANDARD.decode(text.as_str().expect("text")).expect("base64");
        let file = |text: &Value| -> Value { serde_json::from_slice(&bytes(text)).expect("JSON") };
        let files = file(&body["encoded_jit_config"]);
        let credentials = file(&files[".credentials"]);
        let params = file(&files[".credentials_rsaparams"]);
        let number = |name: &str| bytes(&params[name]);
        let key = KeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: number("modulus"), e: number("exponent") },
            d: number("d"),
            p: number("p"),
            q: number("q"),
            dP: number("dp"),
            dQ: number("dq"),
            qInv: number("inverseQ"),
        });
        let text = |name: &str| credentials["Data"][name].as_str().expect("text").to_owned();
        Self {
            world,
            id: body["runner"]["id"].as_u64().expect("a number"),
            runner: file(&files[".runner"]),
            client_id: text("ClientId"),
            authorization_url: text("AuthorizationUrl"),
            key: key.expect("a usable key"),
        }
    }

    fn assertion(&self, algorithm: &str, encoding: &'static dyn RsaEncoding, aud: &str) -> String {
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let client = &self.client_id;
        let claims = json!({
            "iss": client, "sub": client, "aud": aud, "jti": "1", "nbf": now - 30, "exp": now + 270
        });
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn exchange(&self, assertion: &str) -> Answer {
        self.exchange_as("one process", assertion).await
    }

    async fn exchange_as(&self, process: &str, assertion: &str) -> Answer {
        let form = format!(
            "client_assertion_type={}&client_assertion={assertion}&grant_type=client_credentials",
            ASSERTION.replace(':', "%3A")
        );
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        let headers = [("content-type", content_type), ("user-agent", process)];
        self.world.send(Method::POST, &self.authorization_url, form, &headers).await
    }

    async fn token(&self) -> String {
        let assertion = self.assertion("RS256", &RSA_PKCS1_SHA256, &self.authorization_url);
        let answer = self.exchange(&assertion).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert!(answer.json()["expires_in"].as_u64() > Some(60), "{}", answer.text());
        answer.json()["access_token"].as_str().expect("text").to_owned()
    }

    async fn call(&self, token: &str, method: Method, url: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.world.send(method, url, body, &headers).await
    }

    fn broker(&self, path: &str) -> String {
        format!("{}{path}", self.runner["ServerUrlV2"].as_str().expect("text"))
    }

    /// Opens a session in the spelling of the open-source runner, and returns its id.
    async fn open(&self, token: &str) -> String {
        let body = json!({
            "sessionId": "00000000-0000-0000-0000-000000000000",
            "ownerName": "host (PID: 1)",
            "agent": { "id": self.id, "name": "other", "version": "2.335.0",
                       "osDescription": "Linux 6.1", "ephemeral": null, "status": 0 },
            "useFipsEncryption": false,
        });
        let answer = self.call(token, Method::POST, &self.broker("session"), Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let session = answer.json();
        assert_eq!(session["agent"]["id"], json!(self.id));
        session["sessionId"].as_str().expect("text").to_owned()
    }

    fn message_url(&self, session: &str, status: &str) -> String {
        self.broker(&format!(
            "message?sessionId={session}&status={status}&runnerVersion=2.335.0&os=Linux&architecture=X64&disableUpdate=true"
        ))
    }

    /// Waits for a message, and returns its type and its body.
    async fn message(&self, token: &str, session: &str, status: &str) -> (String, Value) {
        let url = self.message_url(session, status);
        let answer = self.call(token, Method::GET, &url, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let message = answer.json();
        assert!(message["messageId"].is_u64());
        let body = message["body"].as_str().expect("text");
        let kind = message["messageType"].as_str().expect("text").to_owned();
        (kind, serde_json::from_str(body).expect("the body is JSON"))
    }
}

/// Takes a job as far as its message, and returns that with the URL of the run service.
async fn acquire(runner: &OtherRunner<'_>, token: &str, session: &str) -> (Value, String) {
    let (kind, reference) = runner.message(token, session, "Online").await;
    assert_eq!(
        (kind.as_str(), &reference["should_acknowledge"]),
        ("RunnerJobRequest", &json!(true))
    );
    let request = reference["runner_request_id"].clone();
    let url = runner.broker(&format!("acknowledge?sessionId={session}&status=Online"));
    let body = json!({ "runnerRequestId": request });
    let answer = runner.call(token, Method::POST, &url, Some(body)).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    let service = reference["run_service_url"].as_str().expect("text").to_owned();
    let body = json!({ "jobMessageId": request, "runnerOS": "Linux",
                       "billingOwnerId": reference["billing_owner_id"] });
    let url = format!("{service}acquirejob");
    let answer = runner.call(token, Method::POST, &url, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let message = answer.json();
    assert_eq!(answer.header("x-plan-id"), message["plan"]["planId"].as_str().expect("text"));
    (message, service)
}

#[tokio::test]
async fn a_runner_written_by_others_runs_a_job() {
    let world = World::new().await;
    let runner = OtherRunner::register(&world, "other").await;
    let token = runner.token().await;
    let session = runner.open(&token).await;
    world
        .sandbox
        .wait_for(SOON, |sandbox| sandbox.runners()[0].online().then_some(()))
        .await
        .expect("the runner is online");
    let job = world.sandbox.queue_job(&JobRequest { seconds: 0.5, ..JobRequest::default() });
    let (message, service) = acquire(&runner, &token, &session).await;
    assert_eq!(world.sandbox.job(job).map(|job| job.status), Some(JobStatus::InProgress));

    let connection = &message["resources"]["endpoints"][0];
    assert_eq!(
        (&connection["name"], &connection["url"]),
        (&json!("SystemVssConnection"), &json!(service))
    );
    let script = &message["steps"][0]["inputs"]["map"][0]["Value"]["lit"];
    assert_eq!(script, &json!("sleep 0.5\nexit 0\n"));
    let context = message["contextData"]["github"]["d"].as_array().expect("a list");
    let repository = context.iter().find(|entry| entry["k"] == "repository").expect("an entry");
    assert_eq!(repository["v"], json!("acme/app"));

    let job_token = connection["authorization"]["parameters"]["AccessToken"].as_str();
    let job_token = job_token.expect("text");
    let ids = json!({ "planId": message["plan"]["planId"], "jobId": message["jobId"] });
    let url = format!("{service}renewjob");
    let renewed = runner.call(job_token, Method::POST, &url, Some(ids.clone())).await.json();
    assert!(renewed["lockedUntil"].as_str().expect("text").ends_with('Z'));

    let results = message["variables"]["system.github.results_endpoint"]["value"].as_str();
    let receiver = format!("{}twirp/results.services.receiver.Receiver", results.expect("text"));
    let url = format!("{receiver}/GetStepLogsSignedBlobURL");
    let signed = runner.call(job_token, Method::POST, &url, Some(json!({}))).await.json();
    let blob = signed["logs_url"].as_str().expect("text");
    world.send(Method::PUT, &format!("{blob}&comp=appendblock"), "a line\n".into(), &[]).await;
    let url = format!("{receiver}/CreateStepLogsMetadata");
    let created = runner.call(job_token, Method::POST, &url, Some(json!({}))).await.json();
    assert_eq!(created["ok"], json!(true));

    let mut completion = ids;
    completion["conclusion"] = json!("succeeded");
    completion["stepResults"] = json!([]);
    let url = format!("{service}completejob");
    let answer = runner.call(job_token, Method::POST, &url, Some(completion.clone())).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    let done = world.sandbox.job(job).expect("the job is known");
    assert_eq!(
        (done.conclusion, &*done.log),
        (Some(Conclusion::Success), &["a line".to_owned()][..])
    );
    assert!(world.sandbox.runners().is_empty(), "an ephemeral runner takes one job");
    let again = runner.call(job_token, Method::POST, &url, Some(completion)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    let gone = runner.call(&token, Method::DELETE, &runner.broker("session"), None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_cancelled_job_is_announced_once_to_a_runner_that_says_it_is_busy() {
    let world = World::new().await;
    let runner = OtherRunner::register(&world, "other").await;
    let token = runner.token().await;
    let session = runner.open(&token).await;
    let job = world.sandbox.queue_job(&JobRequest { seconds: 600.0, ..JobRequest::default() });
    let (message, service) = acquire(&runner, &token, &session).await;
    world.sandbox.cancel_job(job).expect("the job can be cancelled");
    let (kind, cancellation) = runner.message(&token, &session, "Busy").await;
    assert_eq!(kind, "JobCancellation");
    assert_eq!(cancellation["jobId"], message["jobId"]);
    assert!(cancellation["timeout"].is_string());
    let url = runner.message_url(&session, "Busy");
    let next = tokio::time::timeout(
        Duration::from_millis(200),
        runner.call(&token, Method::GET, &url, None),
    );
    assert!(next.await.is_err(), "no other message follows");
    // Some runners report GitHub's numbers.
    let body = json!({ "planId": "", "jobId": message["jobId"], "conclusion": 4 });
    runner.call(&token, Method::POST, &format!("{service}completejob"), Some(body)).await;
    let conclusion = world.sandbox.job(job).and_then(|job| job.conclusion);
    assert_eq!(conclusion, Some(Conclusion::Cancelled));
}

#[tokio::test]
async fn a_job_whose_runner_leaves_before_it_starts_goes_to_another() {
    let world = World::new().await;
    let job = world.sandbox.queue_job(&JobRequest::default());
    let first = OtherRunner::register(&world, "first").await;
    let token = first.token().await;
    let session = first.open(&token).await;
    let (_, reference) = first.message(&token, &session, "Online").await;
    assert_eq!(world.sandbox.job(job).map(|job| job.status), Some(JobStatus::Queued));
    let left = first.call(&token, Method::DELETE, &first.broker("session"), None).await;
    assert_eq!(left.status, StatusCode::NO_CONTENT);

    let second = OtherRunner::register(&world, "second").await;
    let other_token = second.token().await;
    let other_session = second.open(&other_token).await;
    acquire(&second, &other_token, &other_session).await;
    let url = format!("{}acquirejob", reference["run_service_url"].as_str().expect("text"));
    let body = json!({ "jobMessageId": reference["runner_request_id"] });
    let late = first.call(&token, Method::POST, &url, Some(body)).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(late.json()["source"], json!("actions-run-service"));
    let unknown = json!({ "jobMessageId": "d2719c2d-0000-4000-8000-000000000000" });
    let unknown = first.call(&token, Method::POST, &url, Some(unknown)).await;
    assert_eq!(
        (unknown.status, &unknown.json()["statusCode"]),
        (StatusCode::NOT_FOUND, &json!(404))
    );
}

#[tokio::test]
async fn a_second_process_cannot_use_the_same_configuration() {
    let world = World::new().await;
    let runner = OtherRunner::register(&world, "other").await;
    let token = runner.token().await;
    runner.open(&token).await;
    let assertion = runner.assertion("RS256", &RSA_PKCS1_SHA256, &runner.authorization_url);
    // The first one may renew its token.
    assert_eq!(runner.exchange(&assertion).await.status, StatusCode::OK);
    assert_eq!(world.sandbox.jit_reuses(), 0);
    let refused = runner.exchange_as("another process", &assertion).await;
    assert_eq!(refused.json()["error"], json!("invalid_client"));
    // Also when the runner is gone.
    world.sandbox.unregister_runner(runner.id).expect("it is idle");
    let refused = runner.exchange_as("another process", &assertion).await;
    assert_eq!(refused.json()["error"], json!("invalid_client"));
    assert_eq!(runner.exchange(&assertion).await.json()["error"], json!("invalid_client"));
    assert_eq!(world.sandbox.jit_reuses(), 2);
}

#[tokio::test]
async fn both_signatures_are_accepted_and_others_are_not() {
    let world = World::new().await;
    let runner = OtherRunner::register(&world, "other").await;
    let aud = runner.authorization_url.clone();
    for assertion in [
        runner.assertion("RS256", &RSA_PKCS1_SHA256, &aud),
        runner.assertion("PS256", &RSA_PSS_SHA256, &aud),
    ] {
        assert_eq!(runner.exchange(&assertion).await.status, StatusCode::OK);
    }
    let second = OtherRunner::register(&world, "second").await;
    let borrowed = OtherRunner { client_id: second.client_id.clone(), ..runner };
    for assertion in [
        borrowed.assertion("RS256", &RSA_PKCS1_SHA256, &aud),
        second.assertion("RS256", &RSA_PKCS1_SHA256, "http://elsewhere"),
        "not.a.token".to_owned(),
    ] {
        let answer = second.exchange(&assertion).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        assert_eq!(answer.json()["error"], json!("invalid_request"));
    }
}

#[tokio::test]
async fn a_runner_whose_registration_is_gone_is_told_so() {
    let world = World::new().await;
    let runner = OtherRunner::register(&world, "other").await;
    let token = runner.token().await;
    let session = runner.open(&token).await;
    let again = runner.call(&token, Method::POST, &runner.broker("session"), Some(json!({}))).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let url = runner.message_url("11111111-2222-4333-8444-555555555555", "Online");
    let wrong = runner.call(&token, Method::GET, &url, None).await.json();
    assert_eq!(wrong["errorKind"], json!("RunnerSessionInvalid"));

    let url = runner.message_url(&session, "Online");
    let unregister = async { world.sandbox.unregister_runner(runner.id) };
    let (answer, unregistered) =
        tokio::join!(runner.call(&token, Method::GET, &url, None), unregister);
    unregistered.expect("it is idle");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let body = answer.json();
    assert_eq!(
        (&body["source"], &body["errorKind"]),
        (&json!("actions-broker-listener"), &json!("RunnerNotFound"))
    );
    let assertion = runner.assertion("RS256", &RSA_PKCS1_SHA256, &runner.authorization_url);
    let refused = runner.exchange(&assertion).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["error"], json!("invalid_client"));
    let nobody = runner.call("wrong", Method::GET, &url, None).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}

/// Such as one that only renews the lock on its job.
#[tokio::test]
async fn a_runner_that_asks_for_no_messages_while_it_is_busy_is_not_lost() {
    let world = World::new().await;
    let runner = OtherRunner::register(&world, "other").await;
    let token = runner.token().await;
    let session = runner.open(&token).await;
    let job = world.sandbox.queue_job(&JobRequest::default());
    acquire(&runner, &token, &session).await;
    let lost = world.sandbox.wait_for(Duration::from_secs(1), |sandbox| {
        sandbox.job(job).filter(|job| job.status == JobStatus::Completed)
    });
    assert!(lost.await.is_err(), "its job is still running");
}

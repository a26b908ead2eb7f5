//! Messages to a receiver about what someone should look at.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use bollard::query_parameters::KillContainerOptions;
use edgerunner_tests::{Options, Stack, eventually};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::watch;

const SECRET: &str = "notifications-secret-sesame";

/// Headers and body of each message.
type Messages = Vec<(HeaderMap, Bytes)>;

async fn receiver() -> Result<(String, watch::Receiver<Messages>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/messages?key=url-secret-sesame", listener.local_addr()?);
    let (sender, messages) = watch::channel(Messages::new());
    let receive = async |State(sender): State<Arc<watch::Sender<Messages>>>,
                         headers: HeaderMap,
                         body: Bytes| {
        sender.send_modify(|messages| messages.push((headers, body)));
    };
    let router = Router::new().route("/messages", post(receive)).with_state(Arc::new(sender));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok((url, messages))
}

#[tokio::test]
async fn a_runner_that_dies_during_its_job_is_one_signed_message() {
    let (url, messages) = receiver().await.unwrap();
    let options = Options::default()
        .sidecar("NOTIFICATIONS_URL", &url)
        .sidecar("NOTIFICATIONS_SECRET", SECRET);
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.queue(60.0);
        stack.in_progress(job).await?;
        stack.busy(job).await?;
        let runner = stack.sandbox.job(job).and_then(|job| job.runner);
        let runner = runner.context("the job has no runner")?.runner_name;
        stack.containers.docker().kill_container(&runner, None::<KillContainerOptions>).await?;
        let (headers, body) =
            eventually("there is a message", async || Ok(messages.borrow().first().cloned()))
                .await?;
        let message: Value = serde_json::from_slice(&body)?;
        ensure!(message["kind"] == "runner_died" && message["subject"] == "default", "{message}");
        let text = message["message"].as_str().context("no message")?;
        ensure!(text.contains(&runner) && text.contains("137"), "{text}");

        let signature = headers.get("x-edgerunner-signature-256").context("not signed")?;
        let signature = signature.to_str()?.strip_prefix("sha256=").context("another hash")?;
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?.chain_update(&body);
        mac.verify_slice(&hex::decode(signature)?)?;

        let checked = stack.sidecar.run(&["doctor", "--json"]).await?;
        let checked = String::from_utf8(checked.stdout)?;
        ensure!(checked.contains("127.0.0.1 responds; no message was sent"), "{checked}");
        ensure!(messages.borrow().len() == 1, "{:?}", messages.borrow());
        let log = stack.sidecar.log()?;
        ensure!(!log.contains("secret-sesame"), "a secret is in the log");
        Ok(())
    })
    .await;
}

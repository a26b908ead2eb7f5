//! The HTTP API against its OpenAPI description.

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::tools::schemathesis;
use edgerunner_tests::{Options, Stack};

const API_TOKEN: &str = "api-token-sesame";

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let options = Options::default().sidecar("SERVER_API_TOKEN", API_TOKEN);
    Stack::run(options, async |stack| -> Result<()> {
        // Something to list.
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        stack.settled().await?;
        let mut command = schemathesis()?;
        command
            .arg("run")
            .arg(stack.sidecar.url("/api/v1/openapi.json"))
            .args(["--header", &format!("Authorization: Bearer {API_TOKEN}")])
            // The same requests in each run.
            .args(["--seed", "1", "--generation-deterministic", "--max-examples", "25"])
            .args(["--checks", "all", "--no-color"])
            .current_dir(stack.sidecar.file(""))
            .kill_on_drop(true);
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        let description = stack.sidecar.get("/api/v1/openapi.json").await?.json()?;
        let paths = description["paths"].as_object().context("no paths")?.values();
        let operations: usize = paths.filter_map(|path| Some(path.as_object()?.len())).sum();
        ensure!(text.contains(&format!("Tested: {operations}")), "{text}");
        stack.sidecar.print(&["resume"]).await?;
        Ok(())
    })
    .await;
}

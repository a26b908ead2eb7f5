//! Commands that need no sidecar.

use std::process::Output;

use anyhow::Result;
use edgerunner_tests::{Options, Programs, Stack};
use tokio::process::Command;

const INVALID_CONFIGURATION: i32 = 64;

/// Runs `edgerunner check` with this file. Returns what it printed as well.
pub(crate) async fn check(file: &str, environment: &[(&str, &str)]) -> Result<(Output, String)> {
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("edgerunner.toml");
    std::fs::write(&path, file)?;
    // Unless the store is in Postgres: it cannot be in both.
    let store = (!file.contains("postgres://")).then_some(("STORE_PATH", "edgerunner.db"));
    let output = Command::new(Programs::from_environment()?.sidecar)
        .arg("check")
        .arg("--config")
        .arg(&path)
        .current_dir(&directory)
        .env_clear()
        .envs(store)
        .envs(environment.iter().copied())
        .output()
        .await?;
    let printed = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    Ok((output, printed))
}

#[tokio::test]
async fn check_names_every_error_at_once_and_no_secret() -> Result<()> {
    let file = r#"
        [github]
        token = ["sesame-in-a-list"]
        api_url = "ftp://github.example"

        [docker]
        pull_policy = "sometimes"
        runner_imag = "x"

        [scheduler]
        instance = "UPPER CASE"

        [[pools]]
        name = "a"
        max = 0
    "#;
    let secret = [("GITHUB_WEBHOOK_SECRET", "sesame\nin-two-lines")];
    let (output, printed) = check(file, &secret).await?;
    assert_eq!(output.status.code(), Some(INVALID_CONFIGURATION), "{printed}");
    for place in [
        "token",
        "api_url",
        "pull_policy",
        "runner_imag",
        "instance",
        "max",
        "GITHUB_WEBHOOK_SECRET",
    ] {
        assert!(printed.contains(place), "{place} is not named in:\n{printed}");
    }
    assert!(!printed.contains("sesame"), "{printed}");
    Ok(())
}

#[tokio::test]
async fn check_accepts_a_valid_file() -> Result<()> {
    let file = "[[pools]]\nname = \"large\"\nlabels = [\"gpu\"]\n";
    let (output, printed) = check(file, &[("GITHUB_TOKEN", "sesame")]).await?;
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("large (self-hosted, gpu)"), "{printed}");
    assert!(!printed.contains("sesame"), "{printed}");
    Ok(())
}

#[tokio::test]
async fn without_a_sidecar_the_other_commands_say_what_to_do() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sidecar.kill().await?;
        for command in ["jobs", "runners", "status"] {
            let output = stack.sidecar.run(&[command]).await?;
            assert_eq!(output.status.code(), Some(1));
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(error.contains("edgerunner serve"), "{error}");
        }
        Ok(())
    })
    .await;
}

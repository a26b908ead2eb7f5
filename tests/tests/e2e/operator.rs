//! Operators' commands with a running sidecar.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use edgerunner_sandbox::{Fault, Faults, RequestFault};
use edgerunner_testkit::containers::labelled;
use edgerunner_tests::tools::hostile_image;
use edgerunner_tests::{Options, Pair, RUNNER_IMAGE, SECRET, Sidecar, Stack, eventually, payload};
use serde_json::Value;

const API_TOKEN: &str = "api-token-sesame";
const HOOK_PATH: &str = "/webhooks/github";

fn options() -> Options {
    Options::default()
        .sidecar("SERVER_API_TOKEN", API_TOKEN)
        .sidecar("GITHUB_WEBHOOK_SECRET", SECRET)
        .sidecar("RUNNER_REPOSITORIES", "acme/app")
}

fn url(stack: &Stack) -> String {
    format!("http://{}{HOOK_PATH}", stack.envoy.address())
}

/// Runs a command that has to fail, and returns its output.
async fn fails(stack: &Stack, arguments: &[&str]) -> Result<String> {
    let output = stack.sidecar.run(arguments).await?;
    ensure!(output.status.code() == Some(1), "{arguments:?}: {output:?}");
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8(said)?)
}

async fn idle_runner(stack: &Stack) -> Result<String> {
    eventually("a runner is idle", async || {
        let status = stack.sidecar.status().await?;
        let runners = status["runners"].as_array().context("no runners")?;
        let idle = runners.iter().find(|runner| runner["phase"] == "idle");
        Ok(idle.and_then(|runner| runner["name"].as_str().map(str::to_owned)))
    })
    .await
}

#[tokio::test]
async fn webhooks_are_created_listed_pinged_and_redelivered() {
    Stack::run(options(), async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        let listed = stack.sidecar.json(&["webhook", "list", "acme/app"]).await?;
        assert_eq!(listed[0]["config"]["url"], url(stack), "{listed}");
        let hook = listed[0]["path"].as_str().context("no path")?.to_owned();
        assert_eq!(hook, format!("repos/acme/app/hooks/{}", listed[0]["id"]));

        let pings = || {
            let deliveries = stack.sandbox.deliveries();
            deliveries.iter().filter(|it| it.event == "ping" && it.status_code == 200).count()
        };
        let pinged = stack.sidecar.print(&["webhook", "ping", &hook]).await?;
        assert!(pinged.contains("was answered 200"), "{pinged}");
        assert_eq!(pings(), 1);

        let guid = stack.sandbox.deliveries()[0].guid.clone();
        stack.sidecar.print(&["webhook", "redeliver", &hook, &guid]).await?;
        eventually("it was redelivered", async || {
            let deliveries = stack.sandbox.deliveries();
            let again = deliveries.iter().find(|it| it.guid == guid && it.redelivery);
            Ok(again.map(|again| assert_eq!(again.status_code, 202)))
        })
        .await?;
        let error = fails(stack, &["webhook", "redeliver", &hook, "another"]).await?;
        assert!(error.contains("has no delivery another"), "{error}");

        let create = ["webhook", "create", "acme", "--url", &url(stack)];
        let made = stack.sidecar.print(&create).await?;
        assert!(made.starts_with("orgs/acme/hooks/"), "{made}");
        assert!(made.contains("GitHub's ping was answered 200"), "{made}");
        assert_eq!(pings(), 2);
        let again = stack.sidecar.print(&create).await?;
        assert!(again.contains("exists already"), "{again}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_payload_is_signed_and_sent() {
    Stack::run(options(), async |stack| -> Result<()> {
        let file = stack.sidecar.file("payload.json");
        std::fs::write(&file, payload("queued", 7).to_string())?;
        let file = file.display().to_string();
        let url = url(stack);
        let send = ["send", &file, "--event", "workflow_job", "--url", &url];
        let said = stack.sidecar.print(&send).await?;
        assert!(said.contains("202 Accepted") && said.contains("nobody-has-this"), "{said}");
        stack.waits_for(7, "no_pool_has_labels").await?;

        stack.sidecar.configure("GITHUB_WEBHOOK_SECRET", "another-secret");
        let said = fails(stack, &send).await?;
        assert!(said.contains("401") && said.contains("has a different secret"), "{said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_and_then_says_how_to_fix_a_problem() {
    Stack::run(options(), async |stack| -> Result<()> {
        let url = url(stack);
        let doctor = ["doctor", "--json", "--url", &url];
        let outcomes = async |stack: &Stack| -> Result<(Option<i32>, Value)> {
            let output = stack.sidecar.run(&doctor).await?;
            Ok((output.status.code(), serde_json::from_slice(&output.stdout)?))
        };
        let (code, found) = outcomes(stack).await?;
        assert_eq!(code, Some(0), "{found:#}");
        let checks = found.as_array().context("a list")?;
        for check in [
            "configuration",
            "credential github",
            "repo:acme/app",
            "Docker",
            "sidecar",
            "signed ping",
        ] {
            let found = checks.iter().find(|it| it["check"] == check);
            assert_eq!(found.map(|it| &it["outcome"]), Some(&"ok".into()), "{check}: {checks:?}");
        }
        // The filter knows it. The tests may run an older patch release than the images.
        let envoy = checks.iter().find(|it| it["check"] == "Envoy").context("no Envoy")?;
        let tested = include_str!("../../../envoy/versions.toml").split('"').nth(1);
        let message = envoy["message"].as_str().context("no message")?;
        assert!(message.starts_with(tested.context("no version")?), "{message}");
        assert!(["ok", "warning"].contains(&envoy["outcome"].as_str().unwrap_or_default()));

        let message = async |stack: &Stack, check: &str| -> Result<String> {
            let (code, found) = outcomes(stack).await?;
            assert_eq!(code, Some(1), "{found:#}");
            let failed = found.as_array().context("a list")?.iter();
            let failed: Vec<&Value> = failed.filter(|it| it["outcome"] == "failed").collect();
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert_eq!(failed[0]["check"], check, "{failed:?}");
            Ok(failed[0]["message"].as_str().context("no message")?.to_owned())
        };
        stack.sidecar.configure("GITHUB_WEBHOOK_SECRET", "another-secret");
        let wrong_secret = message(stack, "signed ping").await?;
        assert!(wrong_secret.contains("has a different secret"), "{wrong_secret}");
        stack.sidecar.configure("GITHUB_WEBHOOK_SECRET", SECRET);

        stack.sidecar.configure("DOCKER_RUNNER_IMAGE", "edgerunner/nowhere:1");
        let no_image = message(stack, "image edgerunner/nowhere:1").await?;
        assert!(no_image.contains("pull it by hand"), "{no_image}");
        let image = RUNNER_IMAGE.to_owned();
        stack.sidecar.configure("DOCKER_RUNNER_IMAGE", &image);

        stack.sidecar.configure("GITHUB_TOKEN", "no-token-of-anybody");
        let wrong_token = message(stack, "credential github").await?;
        assert!(wrong_token.contains("replace it"), "{wrong_token}");
        Ok(())
    })
    .await;
}

/// What `doctor` finds under this name, which has to have this outcome.
async fn finding(stack: &Stack, check: &str, outcome: &str) -> Result<String> {
    let output = stack.sidecar.run(&["doctor", "--json"]).await?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let checks = found.as_array().context("a list")?;
    let finding = checks.iter().find(|it| it["check"] == check);
    let finding = finding.with_context(|| format!("no {check}: {found:#}"))?;
    ensure!(finding["outcome"] == outcome, "{finding}");
    Ok(finding["message"].as_str().context("no message")?.to_owned())
}

#[tokio::test]
async fn doctor_tries_github_from_the_network_of_the_runners() -> Result<()> {
    let image = hostile_image()?;
    Stack::run(options(), async |stack| -> Result<()> {
        const CHECK: &str = "GitHub from runners of default";
        let without = finding(stack, CHECK, "skipped").await?;
        ensure!(without.contains("neither curl nor bash"), "{without}");
        // GitHub's sandbox listens on loopback alone, which the host's network reaches.
        stack.sidecar.configure("DOCKER_RUNNER_IMAGE", &image);
        let reached = finding(stack, CHECK, "ok").await?;
        ensure!(reached.contains("hosts are reached"), "{reached}");
        stack.sidecar.configure("DOCKER_NETWORK", "");
        let not_reached = finding(stack, CHECK, "failed").await?;
        let expected = format!("{}/ is not reached (", stack.sandbox.url());
        ensure!(not_reached.contains(&expected), "{not_reached}");
        ensure!(not_reached.contains("check Docker's network"), "{not_reached}");
        stack.sidecar.configure("DOCKER_EGRESS", "github.com");
        let egress = finding(stack, CHECK, "skipped").await?;
        ensure!(egress.contains("with its first runner"), "{egress}");

        let label = format!("dev.edgerunner.probe={}", stack.containers.instance());
        eventually("the containers have removed themselves", async || {
            Ok(labelled(stack.containers.docker(), &label).await?.is_empty().then_some(()))
        })
        .await
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn doctor_fixes_what_is_safe_once_it_is_confirmed() {
    let file = "[runner]\nrepositories = [\"acme/app\"]\n";
    let options = Options::default().file(file).sidecar("GITHUB_WEBHOOK_SECRET", SECRET);
    Stack::run(options, async |stack| -> Result<()> {
        // As if it were registered for another address: GitHub has none for this one.
        let url = url(stack);
        stack.sandbox.set_webhook_url("http://127.0.0.1:9/webhooks/github");
        stack.sidecar.configure("GITHUB_WEBHOOK_URL", &url);
        let missing = finding(stack, "webhook of repo:acme/app", "warning").await?;
        ensure!(missing.contains("edgerunner webhook create acme/app"), "{missing}");
        let addresses = stack.sidecar.file("github_addresses.yaml");
        let path = addresses.display().to_string();
        stack.sidecar.print(&["github-addresses", "--output", &path]).await?;
        let current = std::fs::read_to_string(&addresses)?;
        let first = current.lines().find(|line| line.contains("remote_ip")).context("no range")?;
        std::fs::write(&addresses, current.replacen(&format!("{first}\n"), "", 1))?;
        let check = format!("addresses in {path}");
        ensure!(finding(stack, &check, "warning").await?.contains("differ"), "not stale");

        let unconfirmed = fails(stack, &["doctor", "--fix"]).await?;
        for text in ["confirm with --yes", "create a webhook of repo:acme/app", &path] {
            ensure!(unconfirmed.contains(text), "{text}: {unconfirmed}");
        }
        ensure!(std::fs::read_to_string(&addresses)? != current, "it was changed");

        let fixed = stack.sidecar.run(&["doctor", "--fix", "--yes"]).await?;
        let said = String::from_utf8([fixed.stdout, fixed.stderr].concat())?;
        ensure!(fixed.status.success(), "{said}");
        ensure!(std::fs::read_to_string(&addresses)? == current, "{said}");
        let hooks = stack.sidecar.json(&["webhook", "list", "acme/app"]).await?;
        ensure!(hooks[0]["config"]["url"] == url, "{hooks}");
        finding(stack, &check, "ok").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn githubs_hosts_become_egress_of_a_valid_configuration_and_a_bad_answer_one_sentence() {
    Stack::run(options(), async |stack| -> Result<()> {
        let command = ["egress", "github"];
        let printed = stack.sidecar.print(&command).await?;
        for host in ["github.com", "*.actions.githubusercontent.com", "fulcio.githubapp.com"] {
            ensure!(printed.contains(&format!("  \"{host}\",\n")), "{host}: {printed}");
        }
        ensure!(!printed.contains("copilot") && !printed.contains("visualstudio"), "{printed}");
        let file = stack.sidecar.file("egress.toml");
        std::fs::write(&file, format!("[[pools]]\nname = \"closed\"\n{printed}"))?;
        let file = file.display().to_string();
        stack.sidecar.configure("DOCKER_NETWORK", "");
        stack.sidecar.print(&["--config", &file, "check"]).await?;

        let sentence = async |stack: &Stack, expected: &str| -> Result<()> {
            let said = fails(stack, &command).await?;
            ensure!(said.lines().count() == 1 && said.starts_with("edgerunner: "), "{said}");
            ensure!(said.contains(expected), "{said}");
            Ok(())
        };
        for (fault, expected) in [
            (Fault::NotFound, "the server has no /meta (404); check api_url"),
            (Fault::WebPage, "200 with a web page instead of GitHub's JSON; check api_url"),
        ] {
            let fault = RequestFault { path: Some("/meta".into()), ..fault.into() };
            stack.sandbox.set_faults(Faults { requests: vec![fault], ..Faults::default() });
            sentence(stack, expected).await?;
        }
        stack.sandbox.set_faults(Faults::default());
        let enterprise_server = format!("{}/api/v3", stack.sandbox.url());
        stack.sidecar.configure("GITHUB_API_URL", &enterprise_server);
        sentence(stack, "this GitHub server lists no hosts: use egress_mode").await?;
        let said = fails(stack, &["github-addresses"]).await?;
        ensure!(said.contains("GitHub returned no IP ranges"), "{said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn runners_are_removed_the_busy_ones_by_force_and_their_logs_are_shown() {
    let options = options().sidecar("RUNNER_MIN_IDLE", "1");
    Stack::run(options, async |stack| -> Result<()> {
        let first = idle_runner(stack).await?;
        stack.sidecar.print(&["runners", "logs", &first]).await?;
        stack.sidecar.print(&["runners", "remove", &first]).await?;
        let second = eventually("another takes its place", async || {
            Ok(Some(idle_runner(stack).await?).filter(|name| *name != first))
        })
        .await?;
        let gone = fails(stack, &["runners", "remove", &first]).await?;
        assert!(gone.contains("no such runner"), "{gone}");

        let job = stack.queue(60.0);
        stack.in_progress(job).await?;
        stack.busy(job).await?;
        let error = fails(stack, &["runners", "remove", &second]).await?;
        assert!(error.contains("remove it with --force"), "{error}");
        // Nothing may be left at the end.
        stack.sidecar.print(&["drain"]).await?;
        stack.sidecar.print(&["runners", "remove", &second, "--force"]).await?;
        stack.settled().await?;
        let shown = stack.sidecar.print(&["runners", "--all"]).await?;
        assert!(shown.contains("removed by force"), "{shown}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn every_format_names_the_same_things_and_a_pool_is_shown_with_what_waits_for_it() {
    let options = options().sidecar("RUNNER_MAX", "1");
    Stack::run(options, async |stack| -> Result<()> {
        let first = stack.queue(600.0);
        stack.busy(first).await?;
        let job = stack.queue(0.1);
        stack.waits_for(job, "pool_max").await?;
        let id = job.to_string();
        let sidecar = &stack.sidecar;
        let listed = sidecar.print(&["jobs", "-o", "name"]).await?;
        ensure!(listed == format!("{id}\n{first}\n"), "{listed}");
        ensure!(sidecar.print(&["pools", "-o", "name"]).await? == "default\n");
        for label in ["SELF-HOSTED", "nobody-has-this"] {
            let found = sidecar.print(&["jobs", "--label", label, "-oname"]).await?;
            ensure!(found.contains(&id) == (label == "SELF-HOSTED"), "{label}: {found}");
        }
        for command in [&["jobs"][..], &["jobs", "show", &id], &["pools", "show", "default"]] {
            let yaml = sidecar.print(&[command, &["-o", "yaml"]].concat()).await?;
            let yaml: Value = serde_saphyr::from_str(&yaml)?;
            let json = sidecar.json(command).await?;
            // Ages are not in it, so it is the same a moment later.
            ensure!(yaml == json, "{command:?}: {yaml}\n{json}");
        }
        let pool = sidecar.print(&["pools", "show", "default"]).await?;
        ensure!(pool.contains("Queued:        1\n") && pool.contains("acme/app"), "{pool}");
        let error = fails(stack, &["pools", "show", "gpu"]).await?;
        ensure!(error.contains("no pool gpu; the pools are default"), "{error}");
        let status = stack.sidecar.print(&["status"]).await?;
        ensure!(status.starts_with("Nothing is broken, and no job is blocked.\n"), "{status}");
        ensure!(status.contains("  1 job waiting (1 job, oldest"), "{status}");
        let calls = stack.sidecar.json(&["status"]).await?;
        ensure!(calls["attention"][0]["group"] == "waiting", "{calls}");
        stack.cancel(first).await?;
        stack.completed(job).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_is_opened_in_the_browser_and_without_one_its_address_is_printed() {
    Stack::run(options(), async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        let id = job.to_string();
        let url = stack.sidecar.json(&["jobs", "show", &id]).await?[0]["html_url"].clone();
        let url = url.as_str().context("no address")?;
        // Neither `xdg-open` nor anything else.
        stack.sidecar.configure("PATH", "/nowhere");
        let printed = stack.sidecar.print(&["jobs", "show", &id, "--web"]).await?;
        ensure!(printed == format!("{url}\n"), "{printed}");
        let page = stack.sidecar.print(&["jobs", "--state", "queued", "--web"]).await?;
        ensure!(page == format!("{}?jobs=queued\n", stack.sidecar.page()), "{page}");

        let browser = stack.sidecar.file("browser");
        let opened = stack.sidecar.file("opened");
        std::fs::write(&browser, format!("#!/bin/sh\necho \"$1\" > '{}'\n", opened.display()))?;
        std::fs::set_permissions(&browser, PermissionsExt::from_mode(0o755))?;
        stack.sidecar.configure("BROWSER", &browser.display().to_string());
        let printed = stack.sidecar.print(&["jobs", "show", &id, "--web"]).await?;
        ensure!(printed == format!("Opened {url} in your browser.\n"), "{printed}");
        eventually("the browser has the address", async || {
            let read = std::fs::read_to_string(&opened).unwrap_or_default();
            Ok((read.trim() == url).then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_backup_of_a_store_in_use_serves_in_its_place() {
    Stack::run(options(), async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        stack.settled().await?;
        let copy = stack.sidecar.file("copy.db").display().to_string();
        stack.sidecar.print(&["backup", &copy]).await?;
        let error = fails(stack, &["backup", &copy]).await?;
        assert!(error.contains("choose another name"), "{error}");

        stack.sidecar.terminate().await?;
        stack.sidecar.configure("STORE_PATH", &copy);
        stack.sidecar.start().await?;
        let jobs = stack.sidecar.print(&["jobs"]).await?;
        assert!(jobs.contains(&job.to_string()), "{jobs}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn pools_are_reloaded_and_an_invalid_file_changes_nothing() {
    let small = "[[pools]]\nname = \"small\"\nlabels = [\"small\"]\n";
    Stack::run(options().file(small), async |stack| -> Result<()> {
        let job = stack.queue_for("large");
        stack.waits_for(job, "no_pool_has_labels").await?;
        let file = stack.sidecar.file("edgerunner.toml");
        let logged = async |texts: &[&str]| {
            let what = format!("the log says {texts:?}");
            eventually(&what, async || Ok((stack.sidecar.log_lines(texts)? > 0).then_some(())))
                .await
        };
        std::fs::write(&file, "[[pools]]\nname = \"large\"\nlabel = [\"large\"]\n")?;
        stack.sidecar.reload()?;
        logged(&["SIGHUP", "the pools are unchanged", "label"]).await?;
        stack.waits_for(job, "no_pool_has_labels").await?;

        let large = "[server]\nhttp_address = \"127.0.0.1:1\"\n[store]\npath = \"/tmp/x\"\n\
                     [github]\ntimeout_seconds = 9\n\
                     [[pools]]\nname = \"large\"\nlabels = [\"large\"]\n";
        std::fs::write(&file, large)?;
        stack.sidecar.reload()?;
        stack.completed(job).await?;
        logged(&["only pools are reloaded", "github"]).await?;
        let pools = stack.sidecar.print(&["pools"]).await?;
        assert!(pools.contains("large") && !pools.contains("small"), "{pools}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn people_see_which_sidecar_plans_and_that_none_does() -> Result<()> {
    let mut pair = Pair::start(&[], &[("RUNNER_MAX", "7")]).await?;
    let other = &pair.sidecars[1];
    let listed = eventually("both are listed", async || {
        let listed = other.print(&["sidecars"]).await?;
        Ok((listed.contains(" plans ") && listed.contains(" accepts ")).then_some(listed))
    })
    .await?;
    ensure!(listed.lines().count() == 3, "{listed}");
    let status = other.print(&["status"]).await?;
    ensure!(status.contains(" plans (for ") && status.contains("term 1); "), "{status}");
    ensure!(status.contains(" also accepts deliveries"), "{status}");
    let status = other.status().await?;
    ensure!(status["sidecars"].as_array().is_some_and(|all| all.len() == 2), "{status}");
    let metrics = other.metrics().await?;
    ensure!(metrics.contains("edgerunner_planning 0\n"), "{metrics}");
    for planners in ["edgerunner_recovered", "edgerunner_runners", "edgerunner_jobs"] {
        ensure!(!metrics.contains(planners), "{planners}: {metrics}");
    }
    let report = diagnosis(other).await?;
    for text in ["Postgres ok version ", " are left; a sidecar needs 8", "clock ok", "(term 1)"] {
        ensure!(report.contains(text), "no {text}: {report}");
    }
    ensure!(report.contains("configuration [runner] warning that of "), "{report}");
    ensure!(!report.contains("configuration [github]"), "{report}");

    pair.take_lease_away()?;
    let why = eventually("none plans", async || {
        let answer = other.get("/api/v1/status").await?;
        let text = String::from_utf8(answer.body.into())?;
        Ok((answer.status == 503 && text.contains("No sidecar plans")).then_some(text))
    })
    .await?;
    ensure!(why.matches("accepts deliveries").count() == 2, "{why}");
    let listed = other.print(&["sidecars"]).await?;
    ensure!(listed.contains("No sidecar plans"), "{listed}");
    let report = diagnosis(other).await?;
    ensure!(report.contains("sidecars failed No sidecar plans."), "{report}");
    let planned = pair.sidecars[0].metrics().await?;
    ensure!(planned.contains("edgerunner_terms_lost_total 1\n"), "{planned}");
    ensure!(planned.contains("edgerunner_runners_max{pool=\"default\"} 0\n"), "{planned}");
    pair.free_lease()?;
    let planner = pair.planner().await?;
    let other = 1 - planner;

    pair.sidecars[planner].kill().await?;
    ensure!(pair.planner().await? == other, "the other one plans");
    eventually("the first is silent", async || {
        let status = pair.sidecars[other].print(&["status"]).await?;
        Ok(status.contains("\nSilent: ").then_some(()))
    })
    .await?;

    pair.postgres.stop()?;
    let report = diagnosis(&pair.sidecars[other]).await?;
    ensure!(report.contains("Postgres failed ") && report.contains("refused"), "{report}");
    eventually("the metrics show it", async || {
        let metrics = pair.sidecars[other].metrics().await?;
        Ok(metrics.contains("edgerunner_store_up 0\n").then_some(()))
    })
    .await
}

/// What `doctor` prints, with one blank between columns. GitHub does not answer, so it fails.
async fn diagnosis(sidecar: &Sidecar) -> Result<String> {
    let output = sidecar.run(&["doctor"]).await?;
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

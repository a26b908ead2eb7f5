//! How fast the filter hashes, beside OpenSSL on the same core.

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::stack::Stack;
use crate::stop::Stop;

use super::contest::{self, Plan};
use super::delivery::{Factory, Kind, LARGE_BYTES};
use super::one_worker::{Envoy, OneWorker};
use super::spread::Spread;

const PLAN: Plan = Plan { connections: 1, requests: 16, rounds: 0 };

pub(super) async fn measure(
    stop: &Stop,
    stack: &Stack,
    one_worker: &OneWorker,
    secret: &str,
    rounds: u32,
) -> Result<String> {
    let mut step = Step::start("hash");
    let native = native(stop, &mut step, rounds).await?;
    let side = |envoy, name| one_worker.side(stack, envoy, Kind::Large, name);
    let sides = [side(Envoy::Filter, "")?, side(Envoy::Buffering, "")?];
    let mut factory = Factory::new(secret)?;
    let results = contest::run(&mut step, &mut factory, &sides, &Plan { rounds, ..PLAN }).await?;
    step.done("");

    let [filter, plain] = results.as_slice() else {
        anyhow::bail!("a side is missing");
    };
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let bytes = LARGE_BYTES as f64;
    let per_second = |us: f64| bytes / us;
    let hashed = per_second(filter.all_cpu_us() - plain.all_cpu_us());
    let mut table = Table::new();
    table
        .load_preset(UTF8_BORDERS_ONLY)
        .set_header(["bodies of 20 MiB, CPU time of one worker", "MB/s"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut row = |name: &str, value: f64| {
        table.add_row([name.to_owned(), format!("{value:.0}")]);
    };
    row("plain Envoy: reads them", per_second(plain.all_cpu_us()));
    row("with the filter: reads and hashes them", per_second(filter.all_cpu_us()));
    row("the filter alone: copies and hashes them", hashed);
    row("native OpenSSL: hashes 16 KiB again and again", native);
    table.add_row(["  the filter to OpenSSL".to_owned(), format!("{:.2} ×", hashed / native)]);
    Ok(table.to_string())
}

/// MB of SHA-256 in a second.
async fn native(stop: &Stop, step: &mut Step, rounds: u32) -> Result<f64> {
    if version().await.is_none() {
        apt::install(stop, step, &["openssl"], "openssl").await?;
    }
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut command = Command::new("openssl");
        command.args(["speed", "-seconds", "1", "-bytes", "16384", "-evp", "sha256"]);
        let output = command::answer(command).await.context("openssl cannot measure itself")?;
        // "sha256         1807370.34k"
        let rate = output.lines().last().and_then(|line| {
            line.strip_prefix("sha256")?.trim().strip_suffix('k')?.parse::<f64>().ok()
        });
        rates.push(rate.context("openssl does not tell its speed")? / 1_000.0);
    }
    Ok(Spread::of(&rates).median)
}

async fn version() -> Option<String> {
    let mut command = Command::new("openssl");
    command.arg("version");
    command::answer(command).await
}

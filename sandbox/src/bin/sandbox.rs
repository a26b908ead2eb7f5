//! The command line of the sandbox.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use edgerunner_sandbox::{Sandbox, Settings, WebhookKind};
use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about = "A stand-in GitHub for edgerunner")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve GitHub's REST API, send webhooks and assign jobs to stand-in runners
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1:8082")]
    listen: SocketAddr,
    /// The URL to send webhooks to; without it, none are sent
    #[arg(long)]
    webhook_url: Option<String>,
    /// PEM file with the only certificate authority to trust for an https webhook URL
    #[arg(long, value_name = "FILE")]
    webhook_ca: Option<PathBuf>,
    /// The secret that webhooks are signed with
    #[arg(
        long,
        env = "GITHUB_WEBHOOK_SECRET",
        default_value = "sandbox-secret",
        hide_env_values = true
    )]
    webhook_secret: String,
    /// The valid personal access token
    #[arg(long, env = "GITHUB_TOKEN", default_value = "sandbox-token", hide_env_values = true)]
    token: String,
    /// The URL at which runners reach the sandbox, if not the address it listens on
    #[arg(long)]
    public_url: Option<String>,
    /// The URL at which your browser reaches the sandbox, for links to jobs (by default, the same)
    #[arg(long)]
    web_url: Option<String>,
    /// Queue a job of acme/app this often, such as 30s; the first one at the start
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    job_every: Option<Duration>,
    /// The webhook's target type, sent in X-GitHub-Hook-Installation-Target-Type
    #[arg(long, value_enum, default_value = "repository")]
    hook: WebhookKind,
    /// An organization or user that exists; repeatable (by default, all exist)
    #[arg(long = "owner")]
    owners: Vec<String>,
    /// The enterprise that the organizations belong to
    #[arg(long)]
    enterprise: Option<String>,
    /// The time that ids are derived from; sandboxes with the same time assign the same ids (by
    /// default, the time of the start)
    #[arg(long, value_name = "RFC 3339")]
    ids_since: Option<Timestamp>,
    /// The rate limit of each token
    #[arg(long, default_value_t = 5_000)]
    requests_per_hour: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let Command::Serve(serve) = Cli::parse().command;
    run(serve).await
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    let listener = TcpListener::bind(serve.listen).await.with_context(|| {
        format!("cannot listen on {}; choose another address with --listen", serve.listen)
    })?;
    let settings = Settings {
        webhook_url: serve.webhook_url,
        webhook_secret: serve.webhook_secret,
        webhook_roots: roots(serve.webhook_ca.as_deref())?,
        tokens: vec![serve.token],
        public_url: serve.public_url,
        web_url: serve.web_url,
        job_every: serve.job_every,
        webhook_kind: serve.hook,
        owners: serve.owners,
        enterprise: serve.enterprise,
        ids_since: serve.ids_since,
        requests_per_hour: serve.requests_per_hour,
        ..Settings::default()
    };
    let sandbox = Sandbox::start(listener, settings)?;
    tracing::info!(url = %sandbox.url(), "the sandbox is listening; /_sandbox/ lists its control API");
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminated.recv() => {}
    }
    sandbox.shutdown().await;
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<SignedDuration>().ok();
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a duration, such as 30s or 2m".to_owned())
}

fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca {
        let certificate = CertificateDer::from_pem_file(file);
        let certificate = certificate.with_context(|| {
            format!("--webhook-ca: {} does not contain a PEM certificate", file.display())
        })?;
        roots.add(certificate)?;
    }
    Ok(roots)
}

//! A stand-in GitHub on a port.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use edgerunner_sandbox::{HookKind, Sandbox, Settings};
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
    /// Answers GitHub's REST API, sends webhooks, hands jobs to stand-in runners
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    #[arg(long, default_value = "127.0.0.1:8082")]
    listen: SocketAddr,
    /// Where webhooks go; none are sent without it
    #[arg(long)]
    webhook_url: Option<String>,
    /// PEM file of the CA that a webhook URL with https is trusted by; no other is
    #[arg(long, value_name = "FILE")]
    webhook_ca: Option<PathBuf>,
    #[arg(
        long,
        env = "GITHUB_WEBHOOK_SECRET",
        default_value = "sandbox-secret",
        hide_env_values = true
    )]
    webhook_secret: String,
    /// The token that is accepted
    #[arg(long, env = "GITHUB_TOKEN", default_value = "sandbox-token", hide_env_values = true)]
    token: String,
    /// How runners reach the sandbox, if not at the address it listens on
    #[arg(long)]
    public_url: Option<String>,
    /// Where the webhook is said to be set up
    #[arg(long, value_enum, default_value = "repository")]
    hook: HookKind,
    /// Only these organizations and users exist (all do by default)
    #[arg(long = "owner")]
    owners: Vec<String>,
    /// The enterprise that the organizations are part of
    #[arg(long)]
    enterprise: Option<String>,
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
        format!("cannot listen on {}; choose another with --listen", serve.listen)
    })?;
    let settings = Settings {
        webhook_url: serve.webhook_url,
        webhook_secret: serve.webhook_secret,
        webhook_roots: roots(serve.webhook_ca.as_deref())?,
        tokens: vec![serve.token],
        public_url: serve.public_url,
        hook: serve.hook,
        owners: serve.owners,
        enterprise: serve.enterprise,
        requests_per_hour: serve.requests_per_hour,
        ..Settings::default()
    };
    let sandbox = Sandbox::start(listener, settings)?;
    tracing::info!(url = %sandbox.url(), "the sandbox answers; see /_sandbox/ for what it can do");
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminated.recv() => {}
    }
    sandbox.shutdown().await;
    Ok(())
}

fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca {
        let certificate = CertificateDer::from_pem_file(file);
        let certificate = certificate.with_context(|| {
            format!("--webhook-ca: {} must hold a certificate as PEM", file.display())
        })?;
        roots.add(certificate)?;
    }
    Ok(roots)
}

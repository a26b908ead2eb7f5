//! Sign-in before the page: a provider of OpenID Connect, and an Envoy with `sign-in.yaml`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use edgerunner_testkit::{Authority, Identity, Process, Programs, eventually, ports};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::tools;

/// The name of everything that a browser reaches.
const HOST: &str = "localhost";
const CLIENT_SECRET: &str = "client-secret-sesame";
/// The password of all people.
pub const PASSWORD: &str = "a-long-password";

/// How Envoy reaches the sidecar.
pub enum To<'a> {
    /// `sign-in.yaml`: the path of its socket.
    Socket(&'a Path),
    /// `sign-in-mtls.yaml`: its address, and the CA that signs both their certificates.
    MutualTls(SocketAddr, &'a Authority),
}

pub struct SignIn {
    envoy: Process,
    provider: Process,
    pub address: SocketAddr,
    pub provider_address: SocketAddr,
}

impl SignIn {
    pub async fn start(directory: &Path, to: To<'_>) -> Result<Self> {
        let (address, provider_address) = (ports::free()?, ports::free()?);
        let etc = directory.join("sign-in-etc");
        let authority = Authority::new()?;
        authority.issue(HOST)?.install(&etc.join("tls/server"), &authority)?;
        std::fs::create_dir_all(etc.join("sds"))?;
        std::fs::create_dir_all(etc.join("sign-in"))?;
        std::fs::write(etc.join("sign-in/client_secret"), CLIENT_SECRET)?;
        std::fs::write(etc.join("sign-in/cookie_secret"), uuid::Uuid::new_v4().to_string())?;
        for (name, text) in [
            ("server.yaml", include_str!("../../envoy/sds/server.yaml")),
            ("sign_in_client.yaml", include_str!("../../envoy/sds/sign_in_client.yaml")),
            ("sign_in_cookies.yaml", include_str!("../../envoy/sds/sign_in_cookies.yaml")),
            (
                "sign_in_sidecar_client.yaml",
                include_str!("../../envoy/sds/sign_in_sidecar_client.yaml"),
            ),
            ("sidecar_ca.yaml", include_str!("../../envoy/sds/sidecar_ca.yaml")),
        ] {
            let text = text.replace("/etc/envoy", &etc.display().to_string());
            std::fs::write(etc.join("sds").join(name), text)?;
        }
        let text = match &to {
            To::Socket(path) => {
                let shipped = include_str!("../../envoy/sign-in.yaml");
                replaced(shipped, "/run/edgerunner/sign-in.sock", &path.display().to_string())?
            }
            To::MutualTls(sidecar, authority) => {
                let client = authority.issue("envoy")?;
                client.install(&etc.join("tls/sign-in"), authority)?;
                client.install(&etc.join("tls/sidecar"), authority)?;
                let endpoint = |host: &str, port: u16| {
                    format!("address: {host}\n                      port_value: {port}")
                };
                let shipped = include_str!("../../envoy/sign-in-mtls.yaml");
                let host = sidecar.ip().to_string();
                replaced(shipped, &endpoint("edgerunner", 8444), &endpoint(&host, sidecar.port()))?
            }
        };
        let path = directory.join("sign-in.yaml");
        std::fs::write(&path, adapted(&text, &etc, address, provider_address)?)?;

        let server = etc.join("tls/server");
        let mut provider = tools::identity_provider()?;
        provider
            .arg(provider_address.port().to_string())
            .args([server.join("tls.crt"), server.join("tls.key")])
            .arg(CLIENT_SECRET)
            .arg(format!("https://{HOST}:{}/oauth2/callback", address.port()));
        let provider = Process::start("Canaille", provider, &directory.join("provider.log"))?;
        accepts("the provider", provider_address).await?;
        let programs = Programs::from_environment()?;
        let mut envoy = programs.command(&programs.envoy);
        envoy.arg("-c").arg(&path).args(["--log-level", "warning", "--concurrency", "1"]);
        envoy.args(["--use-dynamic-base-id"]);
        let envoy = Process::start("Envoy", envoy, &directory.join("sign-in-envoy.log"))?;
        accepts("Envoy", address).await?;
        Ok(Self { envoy, provider, address, provider_address })
    }

    /// Where people open the page.
    pub fn page(&self) -> String {
        format!("https://{HOST}:{}/", self.address.port())
    }

    /// Another site, as a browser sees it.
    pub fn provider_page(&self) -> String {
        format!("https://{HOST}:{}/", self.provider_address.port())
    }

    pub async fn end(self) -> Result<()> {
        self.envoy.end(Signal::TERM).await?;
        self.provider.end(Signal::TERM).await?;
        Ok(())
    }
}

/// The variables of a sidecar with a Unix socket for sign-in.
pub fn by_socket(path: &Path) -> [(&'static str, String); 2] {
    [
        ("SERVER_TRUSTED_NAMES", HOST.to_owned()),
        ("SERVER_SIGN_IN_ADDRESS", format!("unix:{}", path.display())),
    ]
}

/// The same with mutual TLS. Installs the sidecar's certificate in `directory`.
pub fn by_mutual_tls(
    directory: &Path,
    address: SocketAddr,
    authority: &Authority,
) -> Result<[(&'static str, String); 5]> {
    let identity: Identity = authority.issue("edgerunner")?;
    identity.install(directory, authority)?;
    let file = |name: &str| directory.join(name).display().to_string();
    Ok([
        ("SERVER_TRUSTED_NAMES", HOST.to_owned()),
        ("SERVER_SIGN_IN_ADDRESS", address.to_string()),
        ("SERVER_SIGN_IN_CERTIFICATE_FILE", file("tls.crt")),
        ("SERVER_SIGN_IN_KEY_FILE", file("tls.key")),
        ("SERVER_SIGN_IN_CLIENT_CA_FILE", file("ca.crt")),
    ])
}

/// A shipped file with the addresses and the CA of this machine.
fn adapted(text: &str, etc: &Path, listener: SocketAddr, provider: SocketAddr) -> Result<String> {
    let admin = ports::free()?;
    let of_provider = format!("{HOST}:{}", provider.port());
    let text = replaced(
        text,
        "address: 0.0.0.0\n          port_value: 8444",
        &format!("address: {}\n          port_value: {}", listener.ip(), listener.port()),
    )?;
    let text = replaced(&text, "port_value: 9901", &format!("port_value: {}", admin.port()))?;
    let text = replaced(
        &text,
        "address: login.example.com\n                      port_value: 443",
        &format!(
            "address: {}\n                      port_value: {}",
            provider.ip(),
            provider.port()
        ),
    )?;
    let ca = etc.join("tls/server/ca.crt").display().to_string();
    let text = replaced(&text, "/etc/ssl/certs/ca-certificates.crt", &ca)?;
    Ok(text
        .replace("https://login.example.com", &format!("https://{of_provider}"))
        .replace("login.example.com", HOST)
        .replace("/etc/envoy", &etc.display().to_string()))
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    let count = text.matches(from).count();
    ensure!(count == 1, "the configuration has `{from}` {count} times instead of once");
    Ok(text.replace(from, to))
}

async fn accepts(what: &str, address: SocketAddr) -> Result<()> {
    eventually(&format!("{what} listens"), async || {
        Ok(Some(TcpStream::connect(address).await.context("no connection")?))
    })
    .await?;
    Ok(())
}

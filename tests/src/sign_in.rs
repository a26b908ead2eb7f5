//! Sign-in before the page: a provider of OpenID Connect, and an Envoy with `sign-in.yaml`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use edgerunner_testkit::envoy_config::{in_etc, replaced};
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
            std::fs::write(etc.join("sds").join(name), in_etc(text, &etc))?;
        }
        let (shipped, sidecar) = match &to {
            To::Socket(path) => {
                let sidecar =
                    ("/run/edgerunner/sign-in.sock".to_owned(), path.display().to_string());
                (include_str!("../../envoy/sign-in.yaml"), sidecar)
            }
            To::MutualTls(sidecar, authority) => {
                let client = authority.issue("envoy")?;
                client.install(&etc.join("tls/sign-in"), authority)?;
                client.install(&etc.join("tls/sidecar"), authority)?;
                let endpoint = |host: &str, port: u16| {
                    format!("address: {host}\n                      port_value: {port}")
                };
                let own = endpoint(&sidecar.ip().to_string(), sidecar.port());
                let sidecar = (endpoint("edgerunner", 8444), own);
                (include_str!("../../envoy/sign-in-mtls.yaml"), sidecar)
            }
        };
        let path = directory.join("sign-in.yaml");
        let addresses = (address, provider_address);
        std::fs::write(&path, adapted(shipped, sidecar, &etc, addresses)?)?;

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

/// A shipped file with the addresses and the CA of this machine. `sidecar` is what it has in place of
/// the sidecar, and what it gets.
fn adapted(
    shipped: &str,
    sidecar: (String, String),
    etc: &Path,
    (listener, provider): (SocketAddr, SocketAddr),
) -> Result<String> {
    let admin = ports::free()?;
    let endpoint = |address: SocketAddr, indent: &str| {
        format!("address: {}\n{indent}port_value: {}", address.ip(), address.port())
    };
    let replacements = [
        sidecar,
        (
            "address: 0.0.0.0\n          port_value: 8444".to_owned(),
            endpoint(listener, "          "),
        ),
        ("port_value: 9901".to_owned(), format!("port_value: {}", admin.port())),
        (
            "address: login.example.com\n                      port_value: 443".to_owned(),
            endpoint(provider, "                      "),
        ),
        (
            "/etc/ssl/certs/ca-certificates.crt".to_owned(),
            etc.join("tls/server/ca.crt").display().to_string(),
        ),
    ];
    let text = replaced(shipped, &replacements)?
        .replace("https://login.example.com", &format!("https://{HOST}:{}", provider.port()))
        .replace("login.example.com", HOST);
    Ok(in_etc(&text, etc))
}

async fn accepts(what: &str, address: SocketAddr) -> Result<()> {
    eventually(&format!("{what} listens"), async || {
        Ok(Some(TcpStream::connect(address).await.context("no connection")?))
    })
    .await?;
    Ok(())
}

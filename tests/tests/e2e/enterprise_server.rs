//! An Enterprise Server with its own CA, reached through a proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use edgerunner_tests::{Authority, Options, Stack, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

const HOST: &str = "ghe.example";

/// The proxy, which also terminates the server's TLS. Its target is set once the sandbox
/// runs.
struct Proxy {
    address: SocketAddr,
    ca: String,
    requests: Arc<Mutex<Vec<String>>>,
    target: watch::Sender<Option<String>>,
}

impl Proxy {
    async fn start() -> Result<Self> {
        let ca = Authority::new()?;
        let acceptor = tls::acceptor(&ca.issue(HOST)?)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (set_target, target) = watch::channel(None);
        let heads = requests.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, target, heads) = (acceptor.clone(), target.clone(), heads.clone());
                tokio::spawn(async move {
                    // On any error the client's connection ends.
                    let _ = pass(client, acceptor, target, &heads).await;
                });
            }
        });
        Ok(Self { address, ca: ca.certificate, requests, target: set_target })
    }
}

async fn pass(
    mut client: TcpStream,
    acceptor: TlsAcceptor,
    mut target: watch::Receiver<Option<String>>,
    heads: &Mutex<Vec<String>>,
) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    heads.lock().expect("no panic").push(String::from_utf8(head)?);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut client = acceptor.accept(client).await?;
    let server = target.wait_for(Option::is_some).await?.clone().context("no target")?;
    copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await?;
    Ok(())
}

#[tokio::test]
async fn it_is_reached_once_its_ca_is_configured() {
    let proxy = Proxy::start().await.expect("a proxy");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, &proxy.ca).expect("a file");
    let options = Options::default()
        .sidecar("GITHUB_API_URL", &format!("https://{HOST}/api/v3"))
        .sidecar("HTTPS_PROXY", &format!("http://user:pass-sesame@{}", proxy.address))
        .sidecar("NO_PROXY", "localhost");
    Stack::run(options, async |stack| -> Result<()> {
        let sandbox = stack.sandbox.url();
        proxy.target.send_replace(sandbox.strip_prefix("http://").map(str::to_owned));

        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("ca_file"), "{message}");
        assert_eq!(stack.sandbox.calls().len(), 0);

        stack.sidecar.terminate().await?;
        stack.sidecar.configure("GITHUB_CA_FILE", &ca.display().to_string());
        stack.sidecar.start().await?;
        stack.completed(id).await?;
        stack.settled().await?;
        let calls = stack.sandbox.calls();
        assert!(calls.iter().all(|call| call.path.starts_with("/api/v3/")), "{calls:?}");
        let requests = proxy.requests.lock().expect("no panic");
        let expected = "CONNECT ghe.example:443 HTTP/1.1\r\n";
        assert!(requests.iter().all(|head| head.starts_with(expected)), "{requests:?}");
        assert!(!stack.sidecar.log()?.contains("pass-sesame"));
        Ok(())
    })
    .await;
}

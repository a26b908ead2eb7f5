//! TLS with a private CA, and proxies.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{Certificates, Proxy};

const HOST: &str = "ghe.example";

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    fn certificates(&self) -> Certificates {
        vec![self.0.der().clone()]
    }

    fn server(&self) -> ServerConfig {
        let names = vec![HOST.to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(names).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap()
    }
}

/// Terminates TLS in front of a server.
async fn tls_front(ca: &Ca, server: &Server) -> SocketAddr {
    let (acceptor, behind) = (TlsAcceptor::from(Arc::new(ca.server())), server.address);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                copy_bidirectional(&mut stream, &mut TcpStream::connect(behind).await?).await
            });
        }
    });
    address
}

/// A proxy that connects to one address, whichever is requested, and records all traffic.
struct ConnectProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    passed: Arc<Mutex<Vec<u8>>>,
}

impl ConnectProxy {
    async fn start(to: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, heads: Arc::default(), passed: Arc::default() };
        let (heads, passed) = (proxy.heads.clone(), proxy.passed.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (heads, passed) = (heads.clone(), passed.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(client.read_u8().await?);
                    }
                    heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                    client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await?;
                    let server = TcpStream::connect(to).await?;
                    let (mut from_server, mut to_server) = server.into_split();
                    let (mut from_client, mut to_client) = client.into_split();
                    tokio::spawn(
                        async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                    );
                    let mut buffer = [0; 4096];
                    loop {
                        let count = from_client.read(&mut buffer).await?;
                        if count == 0 {
                            return Ok::<_, std::io::Error>(());
                        }
                        passed.lock().unwrap().extend_from_slice(&buffer[..count]);
                        to_server.write_all(&buffer[..count]).await?;
                    }
                });
            }
        });
        proxy
    }

    fn to(&self, api_url: &str, credentials: &str) -> Option<Proxy> {
        let url = format!("http://{credentials}{}", self.address);
        Proxy::to(&api_url.parse().unwrap(), &url.into(), "").unwrap()
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_and_no_other() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = Server::always(201, &[], JIT_REPLY).await;
    let port = tls_front(&ca, &server).await.port();
    let github = |host: &str, ca| {
        let credential = credential(&format!("https://{host}:{port}/api/v3"));
        GitHub::new(&CredentialConfig { ca, ..credential }, TIMEOUT).unwrap()
    };
    let register = async |github: GitHub| github.jit_config(&organization(), &new_runner()).await;

    register(github("localhost", ca.certificates())).await.unwrap();
    assert_eq!(server.only().uri.path(), "/api/v3/orgs/acme/actions/runners/generate-jitconfig");

    for (host, ca, advice) in [
        ("localhost", Vec::new(), "set ca_file to a file with that CA's certificate"),
        ("localhost", other.certificates(), "set ca_file to a file with that CA's certificate"),
        ("127.0.0.1", ca.certificates(), "check api_url and the certificate there"),
    ] {
        let error = register(github(host, ca)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.message.ends_with(advice), "{error}");
    }
    assert_eq!(server.count(), 0, "nobody else was sent the token");
}

#[tokio::test]
async fn a_proxy_sees_only_the_hosts_name() {
    let ca = Ca::new();
    let server = Server::always(201, &[], JIT_REPLY).await;
    let proxy = ConnectProxy::start(tls_front(&ca, &server).await, "200 OK").await;
    let api_url = format!("https://{HOST}/api/v3");
    let through_proxy = |credentials| CredentialConfig {
        ca: ca.certificates(),
        proxy: proxy.to(&api_url, credentials),
        ..credential(&api_url)
    };
    for credentials in ["", "user:p%40ss@"] {
        let github = GitHub::new(&through_proxy(credentials), TIMEOUT).unwrap();
        github.jit_config(&organization(), &new_runner()).await.unwrap();
    }
    assert_eq!(server.seen.lock().unwrap()[0].header("host"), [HOST]);
    assert_eq!(server.count(), 2);
    let heads = proxy.heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT ghe.example:443 HTTP/1.1\r\n")));
    assert!(!heads[0].to_lowercase().contains("authorization"), "{}", heads[0]);
    assert!(heads[1].contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n"), "{}", heads[1]);
    let passed = proxy.passed.lock().unwrap();
    let holds = |text: &str| passed.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(passed.len() > 500 && !holds(TOKEN) && !holds("edge-1") && !holds("Bearer"));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_as_the_reason() {
    let ca = Ca::new();
    let server = Server::always(201, &[], JIT_REPLY).await;
    let front = tls_front(&ca, &server).await;
    let api_url = format!("https://{HOST}");
    let message = async |proxy| {
        let ca = ca.certificates();
        let credential = CredentialConfig { proxy, ca, ..credential(&api_url) };
        let github = GitHub::new(&credential, TIMEOUT).unwrap();
        let error = github.jit_config(&organization(), &new_runner()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(!format!("{error:?}").contains("p4ss"), "{error:?}");
        error.message
    };
    for answer in ["407 Proxy Authentication Required", "403 Forbidden"] {
        let proxy = ConnectProxy::start(front, answer).await;
        let message = message(proxy.to(&api_url, "user:p4ss@")).await;
        assert!(message.contains("check the proxy"), "{message}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://user:p4ss@{nobody}");
    let proxy = Proxy::to(&api_url.parse().unwrap(), &url.into(), "").unwrap();
    let message = message(proxy).await;
    assert!(message.contains("refused") && message.contains("check the proxy"), "{message}");
    assert_eq!(server.count(), 0);
}

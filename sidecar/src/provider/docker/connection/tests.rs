//! Connections to an Engine behind TLS and behind a socket, as the environment describes it.

use std::{
    fs,
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Json, Router};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    config::Config,
    provider::{ErrorKind, docker::Docker},
};

const VERSION: &str = r#"{"Version":"27.0.1","ApiVersion":"1.47"}"#;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, PEM.
fn issue(ca: &Issuer, name: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    [params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem()]
}

/// As Docker's manual lays it out.
fn certificates(directory: &Path, ca: &Issuer, client: Option<&Issuer>) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
    if let Some(issuer) = client {
        let [certificate, key] = issue(issuer, "client");
        fs::write(directory.join("cert.pem"), certificate).unwrap();
        fs::write(directory.join("key.pem"), key).unwrap();
    }
}

/// An Engine like `dockerd --tlsverify`. Returns its port.
async fn engine(ca: &Issuer) -> u16 {
    let [certificate, key] = issue(ca, "127.0.0.1");
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![
                rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap(),
            ],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            assert!(request.starts_with(b"GET /version HTTP/1.1\r\n"));
            let length = VERSION.len();
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{VERSION}");
            connection.write_all(reply.as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
        }
    });
    port
}

fn docker(variables: &[(&str, &str)]) -> Docker {
    let env = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let config = Config::load(None, &env).unwrap_or_else(|errors| panic!("{errors}"));
    Docker::connect(&config.engine, "edge")
}

async fn version(variables: &[(&str, &str)]) -> Result<String, String> {
    docker(variables).version().await.map(|it| it.version).map_err(|error| {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        error.message
    })
}

#[tokio::test]
async fn an_engine_behind_tls_gets_the_client_certificate() {
    let (ca, other) = (ca(), ca());
    let host = format!("tcp://127.0.0.1:{}", engine(&ca).await);
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    certificates(path(".docker").as_ref(), &ca, Some(&ca));
    certificates(path("no-client").as_ref(), &ca, None);
    certificates(path("other-client").as_ref(), &ca, Some(&other));
    certificates(path("other-engine").as_ref(), &other, Some(&ca));

    let expected = Ok("27.0.1".to_owned());
    let home = home.path().to_str().unwrap();
    assert_eq!(
        version(&[("DOCKER_HOST", &host), ("DOCKER_CERT_PATH", &path(".docker"))]).await,
        expected
    );
    let verify = [("DOCKER_HOST", &*host), ("DOCKER_TLS_VERIFY", "1"), ("HOME", home)];
    assert_eq!(version(&verify).await, expected);

    for (directory, problem) in [
        ("no-client", "CertificateRequired"),
        ("other-client", ""),
        ("other-engine", "invalid peer certificate"),
    ] {
        let error = version(&[("DOCKER_HOST", &host), ("DOCKER_CERT_PATH", &path(directory))])
            .await
            .unwrap_err();
        assert!(error.contains(problem), "{directory}: {error}");
        assert!(error.ends_with("and the files in docker.cert_path"), "{directory}: {error}");
    }
    // Plain HTTP is never sent where certificates are given, and fails without a crash.
    assert!(version(&[("DOCKER_HOST", &host)]).await.is_err());
}

#[tokio::test]
async fn a_socket_that_is_unusable_says_what_to_do_and_works_once_it_is_there() {
    let directory = TempDir::new().unwrap();
    let path: PathBuf = directory.path().join("docker.sock");
    let host = format!("unix://{}", path.display());
    let docker = docker(&[("DOCKER_HOST", &host)]);
    let problem = async || {
        let error = docker.version().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        error.message
    };
    let absent = problem().await;
    assert!(absent.contains("docker.sock: start Docker Engine, or correct"), "{absent}");

    // What `docker run --volume` makes of a socket that is not there.
    fs::create_dir(&path).unwrap();
    let no_socket = problem().await;
    assert!(no_socket.contains("is not a socket: remove it"), "{no_socket}");

    fs::remove_dir(&path).unwrap();
    drop(StdUnixListener::bind(&path).unwrap());
    let dead = problem().await;
    assert!(dead.contains("Connection refused"), "{dead}");
    assert!(dead.ends_with("docker.sock: start Docker Engine"), "{dead}");

    fs::remove_file(&path).unwrap();
    let version = json!({ "Version": "27.0.1", "ApiVersion": "1.47" });
    let router = Router::new().fallback(async || Json(version));
    tokio::spawn(axum::serve(UnixListener::bind(&path).unwrap(), router).into_future());
    assert_eq!(docker.version().await.unwrap().to_string(), "Docker Engine 27.0.1");
}

#[test]
fn a_socket_of_another_group_is_named_with_its_group() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("docker.sock");
    let _listener = StdUnixListener::bind(&path).unwrap();
    let group = fs::metadata(&path).unwrap().gid();
    let cause = io::Error::from(io::ErrorKind::PermissionDenied);
    let problem = no_socket(&path, Some(cause.kind()), &cause);
    let expected = format!("add this user to the group of that socket (docker, id {group})");
    assert!(problem.contains(&expected), "{problem}");
}

//! Headers, time limits and connections.

use super::*;

#[tokio::test]
async fn every_call_has_githubs_headers_once() {
    let server = Server::always(201, &[], JIT_REPLY).await;
    server.github().jit_config(&organization(), &new_runner()).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.header("accept"), ["application/vnd.github+json"]);
    assert_eq!(seen.header("x-github-api-version"), ["2022-11-28"]);
    assert_eq!(seen.header("user-agent"), [concat!("edgerunner/", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(seen.header("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(seen.header("content-type"), ["application/json"]);
}

#[tokio::test]
async fn a_hang_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = client(&format!("http://{}", listener.local_addr().unwrap()));
    let error = github.runners(&organization()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn at_most_twenty_calls_run_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = client(&format!("http://{}", listener.local_addr().unwrap()));
    let mut calls = tokio::task::JoinSet::new();
    for id in 0..50 {
        let github = github.clone();
        calls.spawn(async move { github.job("acme", "app", id).await });
    }
    let mut held = Vec::new();
    while let Ok(Ok((stream, _))) =
        tokio::time::timeout(Duration::from_millis(200), listener.accept()).await
    {
        held.push(stream);
    }
    assert_eq!(held.len(), 20);
}

#[tokio::test]
async fn a_registration_is_not_repeated_after_its_connection_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = client(&format!("http://{}", listener.local_addr().unwrap()));
    let connections = tokio::spawn(async move {
        let mut count = 0;
        while let Ok(Ok((mut stream, _))) =
            tokio::time::timeout(Duration::from_millis(200), listener.accept()).await
        {
            count += 1;
            let _ = stream.read(&mut [0; 4096]).await;
        }
        count
    });
    let error = github.jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(connections.await.unwrap(), 1);
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(&format!("http://{address}")).runners(&organization()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn an_unusable_configuration_is_an_error() {
    for (api_url, token) in [
        ("api.github.com", TOKEN),
        ("ftp://api.github.com", TOKEN),
        ("https://user:pass@api.github.com", TOKEN),
        ("https://api.github.com", "ghp_line\nbreak"),
    ] {
        let identity = Identity::Token(SecretString::from(token).into());
        let credential = CredentialConfig { identity, ..credential(api_url) };
        let error = GitHub::new(&credential, TIMEOUT).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(!error.message.contains("ghp_") && !error.message.contains("pass"), "{error}");
    }
}

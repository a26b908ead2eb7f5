//! Retries and rate limits: which calls are repeated, and which are not sent at all.

use futures_util::future::BoxFuture;

use super::*;

/// A server that fails so often before it answers.
async fn failing(times: usize, status: u16, headers: &'static [(&str, &str)]) -> Server {
    let left = Arc::new(Mutex::new(times));
    Server::start(move |seen| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return answer(status, headers, "");
        }
        match (&seen.method, seen.uri.path().rsplit('/').next()) {
            (&Method::GET, _) => answer(200, &[], r#"{"runners":[]}"#),
            (&Method::DELETE, _) => answer(204, &[], ""),
            (_, Some("registration-token")) => {
                answer(201, &[], registration_reply(Duration::from_secs(3600)))
            }
            _ => answer(201, &[], JIT_REPLY),
        }
    })
    .await
}

type Call = fn(GitHub) -> BoxFuture<'static, Option<Error>>;

async fn list(github: GitHub) -> Option<Error> {
    github.runners(&organization()).await.err()
}

async fn remove(github: GitHub) -> Option<Error> {
    github.remove_runner(&organization(), 7).await.err()
}

async fn token(github: GitHub) -> Option<Error> {
    github.registration_token(&organization()).await.err()
}

async fn register(github: GitHub) -> Option<Error> {
    github.jit_config(&organization(), &new_runner()).await.err()
}

#[tokio::test]
async fn harmless_calls_are_sent_up_to_three_times() {
    let calls: [Call; 3] =
        [|it| Box::pin(list(it)), |it| Box::pin(remove(it)), |it| Box::pin(token(it))];
    let each = calls.into_iter().flat_map(|call| {
        [(2, 500), (2, 502), (2, 503), (2, 504), (3, 500)].map(|(times, status)| async move {
            let server = failing(times, status, &[]).await;
            let error = call(server.patient_github()).await;
            assert_eq!(error.map(|error| error.kind), (times == 3).then_some(ErrorKind::Server));
            assert_eq!(server.count(), 3);
        })
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_registration_is_never_repeated() {
    for status in [500, 502, 503, 504] {
        let server = failing(1, status, &[]).await;
        assert_eq!(register(server.patient_github()).await.unwrap().kind, ErrorKind::Server);
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn a_call_that_github_refuses_or_postpones_is_not_repeated() {
    for (status, headers) in [
        (401, &[][..]),
        (403, &[]),
        (404, &[]),
        (422, &[]),
        (429, &[]),
        (503, &[("retry-after", "1")]),
    ] {
        let server = failing(1, status, headers).await;
        list(server.patient_github()).await.unwrap();
        assert_eq!(server.count(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_read_is_repeated_after_its_connection_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = patient_client(&format!("http://{}", listener.local_addr().unwrap()));
    let listed = tokio::spawn(list(github));
    for _ in 0..3 {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    }
    assert_eq!(listed.await.unwrap().unwrap().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_limit_on_one_call_pauses_all_calls_of_the_credential() {
    let reset = jiff::Timestamp::now().as_second() + 50;
    let reset: &'static str = reset.to_string().leak();
    let primary: &'static [(&str, &str)] =
        Vec::leak(vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)]);
    for (status, headers, longest) in [
        (403, &[("retry-after", "7")][..], 7),
        (429, &[("retry-after", "7")], 7),
        (429, &[], 60),
        (403, primary, 52),
    ] {
        let server = failing(1, status, headers).await;
        let github = server.patient_github();
        assert_eq!(list(github.clone()).await.unwrap().kind, ErrorKind::RateLimited);
        for call in [register(github.clone()).await, list(github.clone()).await] {
            let error = call.unwrap();
            assert_eq!(error.kind, ErrorKind::RateLimited);
            let wait = error.retry_after.unwrap();
            assert!(wait > Duration::ZERO && wait <= Duration::from_secs(longest + 1), "{wait:?}");
            assert!(error.message.contains("not sent"), "{error}");
        }
        assert_eq!(server.count(), 1);
        assert!(list(server.patient_github()).await.is_none(), "another credential is not held up");
    }
}

#[tokio::test]
async fn calls_are_sent_again_after_the_pause() {
    let server = failing(1, 403, &[("retry-after", "1")]).await;
    let github = server.patient_github();
    let first = list(github.clone()).await.unwrap();
    tokio::time::sleep(first.retry_after.unwrap()).await;
    assert!(register(github).await.is_none());
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn calls_in_the_queue_are_not_sent_during_a_pause() {
    let server = Server::always(429, &[("retry-after", "30")], "").await;
    let github = server.patient_github();
    let calls = (0..100).map(|_| register(github.clone()));
    let errors = futures_util::future::join_all(calls).await;
    assert!(errors.iter().flatten().all(|error| error.kind == ErrorKind::RateLimited));
    assert!(server.count() <= 20, "{}", server.count());
}

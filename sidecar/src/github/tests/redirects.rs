//! Redirects of renamed and transferred repositories.

use super::*;

const STATUSES: [u16; 4] = [301, 302, 307, 308];

/// A GitHub below `base` where `acme/app` is now `acme/new-name`, with the id 4711.
async fn renamed(base: &'static str, status: u16) -> Server {
    Server::start(move |seen| {
        let path = seen.uri.path_and_query().unwrap().as_str();
        let path = path.strip_prefix(base).unwrap();
        if let Some(rest) = path.strip_prefix("/repos/acme/app") {
            let host = seen.header("host")[0];
            let location = format!("http://{host}{base}/repositories/4711{rest}");
            let body = json!({ "message": "Moved Permanently", "url": location }).to_string();
            return answer(status, &[("location", &location)], body);
        }
        match (seen.method.as_str(), path) {
            ("GET", "/repositories/4711") => {
                answer(200, &[], r#"{"id":4711,"full_name":"acme/new-name"}"#)
            }
            ("POST", "/repositories/4711/actions/runners/generate-jitconfig") => {
                answer(201, &[], JIT_REPLY)
            }
            ("DELETE", "/repositories/4711/actions/runners/7") => answer(204, &[], ""),
            ("GET", "/repositories/4711/actions/runners?per_page=100") => {
                answer(200, &[], r#"{"runners":[]}"#)
            }
            _ => answer(403, &[], r#"{"message":"no"}"#),
        }
    })
    .await
}

fn sent(server: &Server) -> Vec<String> {
    let seen = server.seen.lock().unwrap();
    seen.iter().map(|seen| format!("{} {}", seen.method, seen.uri)).collect()
}

#[tokio::test]
async fn a_renamed_repository_is_followed_with_the_same_method_and_token() {
    for base in ["", "/api/v3"] {
        for status in STATUSES {
            let server = renamed(base, status).await;
            let github = client(&format!("{}{base}", server.url()));
            github.jit_config(&repository(), &new_runner()).await.unwrap();
            let removal = github.remove_runner(&repository(), 7).await.unwrap();
            assert_eq!(removal, RunnerRemoval::Removed);
            github.runners(&repository()).await.unwrap();
            let (old, new) =
                (format!("{base}/repos/acme/app"), format!("{base}/repositories/4711"));
            assert_eq!(
                sent(&server),
                [
                    format!("POST {old}/actions/runners/generate-jitconfig"),
                    format!("POST {new}/actions/runners/generate-jitconfig"),
                    // Once, for the name.
                    format!("GET {new}"),
                    format!("DELETE {old}/actions/runners/7"),
                    format!("DELETE {new}/actions/runners/7"),
                    format!("GET {old}/actions/runners?per_page=100"),
                    format!("GET {new}/actions/runners?per_page=100"),
                ]
            );
            let seen = server.seen.lock().unwrap();
            assert_eq!(seen[0].body, seen[1].body);
            seen.iter().for_each(statuses::check_headers);
        }
    }
}

#[tokio::test]
async fn an_error_after_a_redirect_names_the_new_repository() {
    let server = renamed("", 307).await;
    let github = server.github();
    for _ in 0..3 {
        let error = github.registration_token(&repository()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden);
        let names = "GitHub redirects acme/app, which was renamed or transferred, to acme/new-name";
        assert!(error.message.contains(names), "{error}");
    }
}

#[tokio::test]
async fn the_name_is_asked_for_once_even_if_github_refuses_it() {
    let server = Server::start(|seen| {
        let host = seen.header("host")[0];
        let path = seen.uri.path();
        match path.strip_prefix("/repos/acme/app") {
            Some(rest) => {
                let location = format!("http://{host}/repositories/4711{rest}");
                answer(307, &[("location", &location)], "")
            }
            None => answer(404, &[], r#"{"message":"Not Found"}"#),
        }
    })
    .await;
    let github = server.github();
    for _ in 0..3 {
        let error = github.jit_config(&repository(), &new_runner()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains("/repositories/4711"), "{error}");
    }
    let asked = paths(&server).iter().filter(|path| *path == "/repositories/4711").count();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_redirect_out_of_api_url_is_not_followed() {
    let thief = Server::always(201, &[], JIT_REPLY).await;
    for status in STATUSES {
        for base in ["", "/api/v3"] {
            let places = [
                format!("http://{}{base}/repositories/1", thief.address),
                "https://HOST/repositories/1".to_owned(),
                "ftp://HOST/repositories/1".to_owned(),
                "//HOST:1/repositories/1".to_owned(),
                "http://HOST/api/v3/../../login".to_owned(),
                String::new(),
                "repositories/1".to_owned(),
            ];
            let outside = (!base.is_empty()).then(|| "http://HOST/login".to_owned());
            for place in places.into_iter().chain(outside) {
                let server = Server::start(move |seen| {
                    let place = place.replace("HOST", seen.header("host")[0]);
                    answer(status, &[("location", &place)], "")
                })
                .await;
                let github = client(&format!("{}{base}", server.url()));
                let error = github.jit_config(&repository(), &new_runner()).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::UnexpectedResponse, "{error}");
                assert!(error.message.contains("not followed"), "{error}");
                assert_eq!(server.count(), 1, "{error}");
            }
        }
    }
    assert_eq!(thief.count(), 0);
}

#[tokio::test]
async fn a_second_redirect_is_an_error() {
    let server = Server::start(|seen| {
        let host = seen.header("host")[0];
        let location = format!("http://{host}{}/again", seen.uri.path());
        answer(307, &[("location", &location)], "")
    })
    .await;
    let error = server.github().jit_config(&repository(), &new_runner()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnexpectedResponse);
    assert!(error.message.contains("a second redirect"), "{error}");
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_relative_location_is_followed_below_the_base() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/api/v3/orgs/acme/actions/runners" => {
            answer(307, &[("location", "/api/v3/organizations/7/actions/runners?x=1")], "")
        }
        "/api/v3/organizations/7" => answer(200, &[], r#"{"login":"new-acme"}"#),
        _ => answer(200, &[], r#"{"runners":[]}"#),
    })
    .await;
    let github = client(&format!("{}/api/v3", server.url()));
    github.runners(&organization()).await.unwrap();
    assert_eq!(sent(&server)[1], "GET /api/v3/organizations/7/actions/runners?x=1");
}

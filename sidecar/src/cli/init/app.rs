//! Registers a GitHub App: a page on loopback sends the browser to GitHub, which sends it back
//! with a code for the App's key.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::{self, Next},
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::get,
};
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    answers::Answers,
    block_on,
    form::{Form, Owner, escaped, page},
    place::Place,
};
use crate::{
    config::CredentialConfig,
    github::{self, ErrorKind, NewApp, is_organization, register_app},
};

/// How long the person may take at GitHub.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long the browser may take to read the last page.
const LAST_PAGE_LIMIT: Duration = Duration::from_secs(3);
const CALLBACK: &str = "/callback";

/// A code that GitHub has sent, and where to say what became of it.
struct Code {
    code: String,
    /// `None` if it was pasted.
    browser: Option<oneshot::Sender<Outcome>>,
}

enum Outcome {
    /// Where to go on.
    Registered(String),
    Failed(String),
}

struct Page {
    form: Form,
    state: String,
    codes: mpsc::Sender<Code>,
}

/// `server`: the GitHub server and how to reach it.
pub(super) fn register(
    answers: &Answers,
    server: &CredentialConfig,
    call_limit: Duration,
    port: u16,
) -> Result<NewApp> {
    block_on(async {
        let owner = owner(&answers.place, server, call_limit).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
            format!("cannot listen on 127.0.0.1:{port}: choose another --port; nothing was written")
        })?;
        let port = listener.local_addr()?.port();
        let local = format!("http://127.0.0.1:{port}");
        let state = hex::encode(super::random()?);
        let redirect_url = format!("{local}{CALLBACK}");
        let form = Form::new(answers, &owner, &server.web_url, &redirect_url, &state);
        explain(&local, port, &form);
        let (codes, mut received) = mpsc::channel(1);
        read_pasted(&state, codes.clone());
        let page = Arc::new(Page { form, state, codes });
        let done = CancellationToken::new();
        let serving = axum::serve(listener, router(page))
            .with_graceful_shutdown(done.clone().cancelled_owned());
        let serving = tokio::spawn(serving.into_future());
        let exchange = async |code: &str| register_app(server, code, call_limit).await;
        let app = wait(&mut received, LIMIT, exchange).await;
        drop(received);
        done.cancel();
        // The browser may have gone away.
        let _ = timeout(LAST_PAGE_LIMIT, serving).await;
        app
    })
}

/// A private App can be installed only where it is registered.
async fn owner(place: &Place, server: &CredentialConfig, limit: Duration) -> Result<Owner> {
    let login = place.owner().context("a GitHub App cannot serve an enterprise")?;
    match place {
        Place::Repositories(_) => match is_organization(server, login, limit).await {
            Ok(true) => Ok(Owner::Organization(login.to_owned())),
            Ok(false) => Ok(Owner::Person),
            Err(error) if error.kind == ErrorKind::NotFound => {
                Err(error).context("nothing was written")
            }
            Err(error) => {
                eprintln!(
                    "edgerunner: {error}\nIf {login} is an organization, transfer the App to it \
                         before you install it.\n"
                );
                Ok(Owner::Person)
            }
        },
        _ => Ok(Owner::Organization(login.to_owned())),
    }
}

fn explain(local: &str, port: u16, form: &Form) {
    eprintln!(
        "To register the GitHub App, open this address in a browser on this machine:\n\n  {local}/\n\n\
         If the browser is on another machine, first forward the port to it:\n\n  \
         ssh -L {port}:127.0.0.1:{port} THIS-MACHINE\n\n\
         Or open the following address there, and in the end paste the address that the browser \
         shows then, which begins with {local}{CALLBACK}:\n\n  {}\n",
        form.address()
    );
}

/// Waits for the first code, and exchanges it.
async fn wait(
    codes: &mut mpsc::Receiver<Code>,
    limit: Duration,
    exchange: impl AsyncFnOnce(&str) -> Result<NewApp, github::Error>,
) -> Result<NewApp> {
    let Code { code, browser } = tokio::select! {
        Some(code) = codes.recv() => code,
        () = sleep(limit) => bail!(
            "no answer from GitHub within {} minutes: begin again; nothing was written",
            limit.as_secs().div_ceil(60)
        ),
    };
    let exchanged = exchange(&code).await;
    if let Some(browser) = browser {
        let outcome = match &exchanged {
            Ok(app) => Outcome::Registered(format!("{}/installations/new", app.html_url)),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        drop(browser.send(outcome));
    }
    exchanged.context("nothing was written")
}

fn router(page: Arc<Page>) -> Router {
    Router::new()
        .route("/", get(show_form))
        .route(CALLBACK, get(callback))
        .layer(middleware::from_fn(only_loopback))
        .with_state(page)
}

/// A page of another site must not read `state`, by a name of its own for this address.
async fn only_loopback(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let name = host.as_ref().map(Authority::host);
    match name {
        Some("localhost" | "127.0.0.1") => {
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            for (name, value) in [
                (header::CACHE_CONTROL, "no-store"),
                (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            response
        }
        _ => (StatusCode::MISDIRECTED_REQUEST, "unknown host: use 127.0.0.1\n").into_response(),
    }
}

async fn show_form(State(page): State<Arc<Page>>) -> Html<String> {
    Html(page.form.page())
}

async fn callback(State(page): State<Arc<Page>>, uri: Uri) -> Response {
    let code = match code_in(uri.query().unwrap_or_default(), &page.state) {
        Ok(code) => code,
        // Somebody else may have sent the browser here: the right answer may still come.
        Err(problem) => {
            eprintln!("edgerunner: {problem}");
            return failed(StatusCode::BAD_REQUEST, problem);
        }
    };
    let (browser, outcome) = oneshot::channel();
    if page.codes.send(Code { code, browser: Some(browser) }).await.is_err() {
        return failed(StatusCode::GONE, "a code was already used");
    }
    match outcome.await {
        // The code in this page's address is used up.
        Ok(Outcome::Registered(url)) => Redirect::to(&url).into_response(),
        Ok(Outcome::Failed(problem)) => failed(StatusCode::BAD_GATEWAY, &problem),
        Err(_) => failed(StatusCode::GONE, "a code was already used"),
    }
}

fn failed(status: StatusCode, problem: &str) -> Response {
    let content = format!("<p>{}</p>", escaped(problem));
    (status, Html(page("The GitHub App is not registered", &content))).into_response()
}

/// The code in the query of GitHub's redirect.
fn code_in(query: &str, state: &str) -> Result<String, &'static str> {
    let value = |name: &str| {
        let mut fields = query.split('&').filter_map(|field| field.split_once('='));
        let (_, value) = fields.find(|(field, _)| *field == name)?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let is_ours = value("state").is_some_and(|it| it.as_bytes().ct_eq(state.as_bytes()).into());
    if !is_ours {
        return Err("the answer does not belong to this registration (its state differs): open \
                    the address that was printed last, and continue from there");
    }
    let code = value("code").filter(|code| !code.is_empty());
    code.ok_or("GitHub's answer has no code: continue from the address that was printed")
}

/// The code in a line: GitHub's redirect, or the code alone.
fn code_of(line: &str, state: &str) -> Result<String, &'static str> {
    let line = line.trim();
    match line.split_once('?') {
        Some((_, query)) => code_in(query.split('#').next().unwrap_or_default(), state),
        None if !line.is_empty() && line.chars().all(|c| c.is_ascii_alphanumeric()) => {
            Ok(line.to_owned())
        }
        None => Err("paste the whole address that the browser shows, or the code in it"),
    }
}

/// Lines are read on a thread of their own, which ends with the process.
fn read_pasted(state: &str, codes: mpsc::Sender<Code>) {
    let state = state.to_owned();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match code_of(&line, &state) {
                Ok(code) => {
                    let _ = codes.blocking_send(Code { code, browser: None });
                    return;
                }
                Err(_) if line.trim().is_empty() && !io::stdin().is_terminal() => {}
                Err(problem) => eprintln!("edgerunner: {problem}"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_taken_from_a_redirect_of_this_registration_alone() {
        let code = |line: &str| code_of(line, "s-1");
        let redirect = "http://127.0.0.1:7/callback";
        assert_eq!(code(&format!("{redirect}?code=a%2Db&state=s-1\n")).as_deref(), Ok("a-b"));
        assert_eq!(code(&format!("{redirect}?state=s-1&code=ab#top")).as_deref(), Ok("ab"));
        assert_eq!(code(" 0a1b ").as_deref(), Ok("0a1b"));
        for (line, expected) in [
            ("?code=ab&state=s-2", "its state differs"),
            ("?code=ab", "its state differs"),
            ("?code=ab&state=s-1x", "its state differs"),
            ("?state=s-1", "has no code"),
            ("?code=&state=s-1", "has no code"),
            ("", "paste the whole address"),
            ("code: ab", "paste the whole address"),
        ] {
            let problem = code(line).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_who_never_confirms_is_not_waited_for_forever() {
        let (_codes, mut received) = mpsc::channel(1);
        let exchange = async |_: &str| -> Result<NewApp, github::Error> { unreachable!() };
        let error = wait(&mut received, LIMIT, exchange).await.err().unwrap().to_string();
        assert!(error.contains("within 15 minutes"), "{error}");
        assert!(error.contains("nothing was written"), "{error}");
    }
}

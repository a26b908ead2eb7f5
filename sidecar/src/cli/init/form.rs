//! The form by which a browser asks GitHub to register an App.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{answers::Answers, place::Place};
use edgerunner_scheduler::plan::Scope;

/// GitHub permits no longer name of an App.
const NAME_CHARS_MAX: usize = 34;

/// Where the App will be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The account that is logged in.
    Person,
    Organization(String),
}

pub(super) struct Form {
    /// GitHub's page for new Apps.
    pub(super) action: String,
    manifest: Value,
}

impl Form {
    /// `web_url`: of GitHub's pages. `redirect_url`: where GitHub sends the browser then, with
    /// `state`.
    pub(super) fn new(
        answers: &Answers,
        owner: &Owner,
        web_url: &str,
        redirect_url: &str,
        state: &str,
    ) -> Self {
        let web_url = web_url.trim_end_matches('/');
        let page = match owner {
            Owner::Person => format!("{web_url}/settings/apps/new"),
            Owner::Organization(login) => {
                format!("{web_url}/organizations/{login}/settings/apps/new")
            }
        };
        let name = answers.place.owner().unwrap_or_default();
        let home = match &answers.place {
            Place::Repositories(repositories) => repositories.first().map_or("", |it| it.as_str()),
            Place::Organization { login, .. } => login,
            Place::Enterprise { .. } => "",
        };
        let home = format!("{web_url}/{home}");
        let right = match answers.place.scope() {
            Scope::Organization => "organization_self_hosted_runners",
            Scope::Repository | Scope::Enterprise => "administration",
        };
        let url = answers.edge.url();
        let events: &[&str] = if url.is_some() { &["workflow_job"] } else { &[] };
        let name: String = format!("edgerunner-{name}").chars().take(NAME_CHARS_MAX).collect();
        let manifest = json!({
            "name": name.trim_end_matches('-'),
            "url": home,
            // GitHub wants a URL even of a webhook that is not active.
            "hook_attributes": { "url": url.unwrap_or(&home), "active": url.is_some() },
            "redirect_url": redirect_url,
            "public": false,
            "default_permissions": { right: "write", "actions": "read", "metadata": "read" },
            "default_events": events,
        });
        Self { action: format!("{page}?state={state}"), manifest }
    }

    /// A page with a button that sends the form.
    pub(super) fn page(&self) -> String {
        let (action, manifest) = (escaped(&self.action), escaped(&self.manifest.to_string()));
        page(
            "Register a GitHub App",
            &format!(
                "<p>GitHub will ask you to confirm the App's name. It fills in the rest.</p>\
                 <form action=\"{action}\" method=\"post\">\
                 <input type=\"hidden\" name=\"manifest\" value=\"{manifest}\">\
                 <button>Continue to GitHub</button></form>"
            ),
        )
    }

    /// The page as an address, for a browser that cannot reach this machine.
    pub(super) fn address(&self) -> String {
        format!("data:text/html,{}", utf8_percent_encode(&self.page(), NON_ALPHANUMERIC))
    }
}

/// `content` is HTML.
pub(super) fn page(title: &str, content: &str) -> String {
    let title = escaped(title);
    format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <body><h1>{title}</h1>{content}</body></html>"
    )
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::answers::{Credential, Edge};

    fn form(place: Place, edge: Edge, owner: &Owner) -> Form {
        let answers = Answers { place, credential: Credential::App, edge };
        Form::new(&answers, owner, "https://github.com/", "http://127.0.0.1:7/callback", "s-1")
    }

    #[test]
    fn the_app_has_the_rights_that_runners_need_and_its_own_webhook() {
        let url = "https://h.example.com/webhooks/github";
        let proxy = || Edge::Proxy { url: url.into() };
        let repository = Place::Repositories(vec!["acme/app".into()]);
        let form = form(repository.clone(), proxy(), &Owner::Person);
        assert_eq!(form.action, "https://github.com/settings/apps/new?state=s-1");
        let manifest = &form.manifest;
        assert_eq!(manifest["hook_attributes"], json!({"url": url, "active": true}));
        assert_eq!(manifest["default_permissions"]["administration"], "write");
        assert_eq!(manifest["default_events"], json!(["workflow_job"]));
        assert_eq!(manifest["url"], "https://github.com/acme/app");

        let login = "a-name-of-exactly-39-characters-in-all-";
        let place = Place::Organization { login: login.into(), repositories: Vec::new() };
        let form = self::form(place, proxy(), &Owner::Organization(login.into()));
        let expected =
            format!("https://github.com/organizations/{login}/settings/apps/new?state=s-1");
        assert_eq!(form.action, expected);
        let permissions = &form.manifest["default_permissions"];
        assert_eq!(permissions["organization_self_hosted_runners"], "write");
        assert!(form.manifest["name"].as_str().unwrap().len() <= NAME_CHARS_MAX);

        let form = self::form(repository, Edge::Polling, &Owner::Person);
        assert_eq!(form.manifest["hook_attributes"]["active"], false);
        assert_eq!(form.manifest["default_events"], json!([]));
    }

    #[test]
    fn no_text_leaves_its_attribute() {
        let place = Place::Repositories(vec!["acme/\"><script>".into()]);
        let page = form(place, Edge::Polling, &Owner::Person).page();
        assert!(!page.contains("<script>"), "{page}");
        assert_eq!(page.matches("<form ").count(), 1);
    }
}

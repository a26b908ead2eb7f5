//! Paths of GitHub's REST API.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{Error, ErrorKind};
use edgerunner_scheduler::{missed::WebhookId, model::Target};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One segment of a path. No text becomes two segments or none, or leads to a parent.
pub(super) fn segment(text: &str) -> impl Display {
    let set = if matches!(text, "." | "..") { NON_ALPHANUMERIC } else { SEGMENT };
    utf8_percent_encode(text, set)
}

pub(super) fn repository(owner: &str, name: &str) -> String {
    format!("/repos/{}/{}", segment(owner), segment(name))
}

pub(super) fn actions(target: &Target) -> String {
    match target {
        Target::Repository { owner, name } => format!("{}/actions", repository(owner, name)),
        Target::Organization(name) => format!("/orgs/{}/actions", segment(name)),
        Target::Enterprise(name) => format!("/enterprises/{}/actions", segment(name)),
    }
}

pub(super) fn runners(target: &Target) -> String {
    format!("{}/runners", actions(target))
}

/// The list of a target's webhooks.
pub(super) fn webhooks(call: &str, target: &Target) -> Result<String, Error> {
    match target {
        Target::Repository { owner, name } => Ok(format!("{}/hooks", repository(owner, name))),
        Target::Organization(login) => Ok(format!("/orgs/{}/hooks", segment(login))),
        Target::Enterprise(_) => {
            let problem = "GitHub's API has no webhooks of enterprises: use the enterprise's \
                           settings page";
            Err(Error::new(ErrorKind::Forbidden, call, problem))
        }
    }
}

pub(super) fn webhook(webhook: &WebhookId) -> String {
    match webhook {
        WebhookId::At { target: Target::Repository { owner, name }, id } => {
            format!("{}/hooks/{id}", repository(owner, name))
        }
        WebhookId::At { target: Target::Organization(login) | Target::Enterprise(login), id } => {
            format!("/orgs/{}/hooks/{id}", segment(login))
        }
        WebhookId::App => "/app/hook".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_every_path() {
        for (name, encoded) in [
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("a/../b", "a%2F..%2Fb"),
            ("a b?c#d%2e", "a%20b%3Fc%23d%252e"),
            (".github", ".github"),
            ("my.app_v-2~", "my.app_v-2~"),
            ("...", "..."),
        ] {
            let repository = Target::Repository { owner: name.into(), name: name.into() };
            let organization = Target::Organization(name.into());
            let enterprise = Target::Enterprise(name.into());
            let at = |target: &Target| webhook(&WebhookId::At { target: target.clone(), id: 7 });
            let webhooks = |target: &Target| webhooks("", target).unwrap();
            for (path, expected) in [
                (runners(&repository), format!("/repos/{encoded}/{encoded}/actions/runners")),
                (runners(&organization), format!("/orgs/{encoded}/actions/runners")),
                (runners(&enterprise), format!("/enterprises/{encoded}/actions/runners")),
                (webhooks(&repository), format!("/repos/{encoded}/{encoded}/hooks")),
                (webhooks(&organization), format!("/orgs/{encoded}/hooks")),
                (at(&repository), format!("/repos/{encoded}/{encoded}/hooks/7")),
                (at(&organization), format!("/orgs/{encoded}/hooks/7")),
            ] {
                assert_eq!(path, expected);
            }
        }
    }
}

//! Paths of GitHub's REST API.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{Error, ErrorKind};
use edgerunner_scheduler::{missed::WebhookId, model::Target};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn segment(text: &str) -> impl Display {
    utf8_percent_encode(text, SEGMENT)
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

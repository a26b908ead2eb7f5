//! Checks how the latest deliveries of each webhook were answered, as GitHub lists them.

use std::{collections::BTreeSet, time::Duration};

use super::{
    fix::Fix,
    report::{Outcome, Report},
};
use crate::{
    cli::{signed_webhook::webhook_secret, webhook::delivery_problem},
    config::{Config, CredentialConfig, Identity},
    github::{self, GitHub, clients::client_for, is_organization},
    missed,
};
use edgerunner_scheduler::{
    missed::{DeliveryAttempt, WebhookId},
    model::Target,
};

/// Of each webhook, the newest.
const LATEST: usize = 50;
const REFUSED: u16 = 401;

/// `url`: where GitHub sends webhooks, if that is known.
pub(super) async fn check(config: &Config, url: Option<&str>, report: &mut Report) {
    let mut hooks: BTreeSet<WebhookId> = config.missed_webhooks.hooks().collect();
    let has_app_hook = hooks.contains(&WebhookId::App);
    for (index, credential) in config.credentials.iter().enumerate() {
        let Ok(github) = GitHub::new(credential, config.github.timeout()) else { continue };
        if let Some(url) = url {
            let mut registered = registered(config, index, &github, url).await;
            registered.forget_persons(credential, config.github.timeout()).await;
            if !has_app_hook {
                report_missing(config, url, &registered, report);
            }
            hooks.extend(registered.hooks);
        }
        for hook in hooks.iter().filter(|hook| serves(config, index, credential, hook)) {
            check_hook(&github, hook, report).await;
        }
    }
}

fn serves(config: &Config, index: usize, credential: &CredentialConfig, hook: &WebhookId) -> bool {
    match hook {
        WebhookId::App => matches!(credential.identity, Identity::App { .. }),
        WebhookId::At { target, .. } => {
            let credentials = config.planner_credentials();
            edgerunner_scheduler::plan::credential_for_name(&credentials, target) == Some(index)
        }
    }
}

/// What GitHub lists of the places that pools name.
#[derive(Default)]
struct Registered {
    hooks: Vec<WebhookId>,
    /// Places without a webhook that sends to the URL.
    without: Vec<Target>,
    /// Places whose webhooks are not shown.
    hidden: Vec<Target>,
}

impl Registered {
    /// A person has no webhooks besides those of repositories.
    async fn forget_persons(&mut self, credential: &CredentialConfig, limit: Duration) {
        let mut hidden = Vec::new();
        for place in std::mem::take(&mut self.hidden) {
            let is_person = match &place {
                Target::Organization(login) => {
                    matches!(is_organization(credential, login, limit).await, Ok(false))
                }
                _ => false,
            };
            if !is_person {
                hidden.push(place);
            }
        }
        self.hidden = hidden;
    }
}

async fn registered(config: &Config, index: usize, github: &GitHub, url: &str) -> Registered {
    let settings = config.planner_settings();
    let places = missed::places(&settings.pools, &settings.credentials, index);
    let owners: BTreeSet<Target> = places
        .iter()
        .filter_map(|place| match place {
            Target::Repository { owner, .. } => Some(Target::Organization(owner.clone())),
            _ => None,
        })
        .filter(|owner| !places.contains(owner))
        .collect();
    let mut found = Registered::default();
    for place in places.iter().chain(&owners) {
        match github.webhooks(place).await {
            Ok(webhooks) => {
                let before = found.hooks.len();
                let ours = webhooks.into_iter().filter(|it| it.active && it.sends_to(url));
                let id = |it: github::RegisteredWebhook| WebhookId::At {
                    target: place.clone(),
                    id: it.id,
                };
                found.hooks.extend(ours.map(id));
                if found.hooks.len() == before {
                    found.without.push(place.clone());
                }
            }
            Err(_) => found.hidden.push(place.clone()),
        }
    }
    found.without.retain(|place| places.contains(place));
    found
}

fn report_missing(config: &Config, url: &str, found: &Registered, report: &mut Report) {
    for place in &found.without {
        let owner = match place {
            Target::Repository { owner, .. } => Target::Organization(owner.clone()),
            other => other.clone(),
        };
        let of_owner = found
            .hooks
            .iter()
            .any(|hook| matches!(hook, WebhookId::At { target, .. } if *target == owner));
        if of_owner {
            continue;
        }
        let name = match place {
            Target::Repository { owner, name } => format!("{owner}/{name}"),
            Target::Organization(name) | Target::Enterprise(name) => name.clone(),
        };
        let unsure = match found.hidden.contains(&owner) {
            true => ", unless one of its organization does, which this credential may not see",
            false => "",
        };
        let what =
            format!("no webhook sends to {url}{unsure}: run `edgerunner webhook create {name}`");
        report.warning(format!("webhook of {place}"), what);
        // It could be the second one.
        if unsure.is_empty() && webhook_secret(config).is_ok() && client_for(config, place).is_ok()
        {
            report.fix(Fix::CreateWebhook { target: place.clone(), url: url.to_owned() });
        }
    }
}

async fn check_hook(github: &GitHub, hook: &WebhookId, report: &mut Report) {
    let name = format!("deliveries of {hook}");
    match github.deliveries(hook, None).await {
        Ok(page) => {
            let latest = &page.items[..page.items.len().min(LATEST)];
            let (outcome, message) = assess(hook, latest);
            report.push(name, outcome, &message);
        }
        // Without the permission, or while GitHub is away, nothing is known of them.
        Err(error) => report.skipped(name, error),
    }
}

/// `latest`: the newest comes first.
fn assess(hook: &WebhookId, latest: &[DeliveryAttempt]) -> (Outcome, String) {
    let Some(newest) = latest.first() else {
        return (Outcome::Ok, "none in the last 3 days".to_owned());
    };
    let is_good = |attempt: &DeliveryAttempt| (200..300).contains(&attempt.status);
    let failed = latest.iter().filter(|attempt| !is_good(attempt)).count();
    let refused = latest.iter().filter(|attempt| attempt.status == REFUSED).count();
    let of = format!("of the latest {}, {failed} failed", latest.len());
    let of = match refused {
        0 => of,
        _ => format!("{of}, {refused} of them with {REFUSED}"),
    };
    let answered = format!("the newest was answered with {}; {of}", newest.status);
    if is_good(newest) {
        return (Outcome::Ok, answered);
    }
    let advice = match newest.status {
        REFUSED => {
            let test = match hook {
                WebhookId::App => "`edgerunner doctor`".to_owned(),
                WebhookId::At { .. } => format!("`edgerunner webhook ping {hook}`"),
            };
            format!(
                "its secret at GitHub differs from that of Envoy: set the same one at GitHub and as \
                 GITHUB_WEBHOOK_SECRET of Envoy, restart Envoy, and test it with {test}"
            )
        }
        status => delivery_problem(hook, status),
    };
    (Outcome::Failed, format!("{answered}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(statuses: &[u16]) -> Vec<DeliveryAttempt> {
        let attempt = |status: &u16| DeliveryAttempt {
            id: 1,
            guid: "guid".into(),
            at: 1,
            status: *status,
            event: "workflow_job".into(),
            action: "queued".into(),
        };
        statuses.iter().map(attempt).collect()
    }

    #[test]
    fn the_newest_delivery_decides_and_the_others_are_counted() {
        let hook: WebhookId = "repos/acme/app/hooks/7".parse().unwrap();
        let found = |statuses: &[u16]| assess(&hook, &attempts(statuses));
        assert_eq!(found(&[]), (Outcome::Ok, "none in the last 3 days".to_owned()));
        let (outcome, message) = found(&[202, 401, 502]);
        let expected =
            "the newest was answered with 202; of the latest 3, 2 failed, 1 of them with 401";
        assert_eq!((outcome, message.as_str()), (Outcome::Ok, expected));
        for (statuses, expected) in [
            (&[401, 202][..], "`edgerunner webhook ping repos/acme/app/hooks/7`"),
            (&[502], "GitHub did not reach Envoy"),
            (&[403], "edgerunner github-addresses"),
            (&[404], "/webhooks/github"),
            (&[503], "edgerunner serve"),
        ] {
            let (outcome, message) = found(statuses);
            assert!(outcome == Outcome::Failed && message.contains(expected), "{message}");
        }
        let (_, message) = assess(&WebhookId::App, &attempts(&[401]));
        assert!(message.ends_with("test it with `edgerunner doctor`"), "{message}");
    }
}

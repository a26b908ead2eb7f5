//! Webhooks that are registered at GitHub for this installation. Of one whose deliveries are all
//! refused nothing arrives, so it has to be asked for.

use std::collections::BTreeSet;

use tracing::debug;

use crate::github::{ErrorKind, GitHub};
use edgerunner_scheduler::{
    missed::WebhookId,
    model::Target,
    plan::{Credential, Pool, credential_for_name},
};

/// Each costs a request, unless nothing has changed there.
const TARGETS_MAX: usize = 20;

/// The repositories and organizations that pools name and this credential serves.
pub(crate) fn places(pools: &[Pool], credentials: &[Credential], index: usize) -> Vec<Target> {
    let mut places = BTreeSet::new();
    for pool in pools {
        places.extend(pool.known_targets());
        for pattern in &pool.repositories {
            if let Some((owner, name)) = pattern.exact() {
                places.insert(Target::Repository { owner: owner.into(), name: name.into() });
            }
        }
    }
    places
        .into_iter()
        .filter(|place| !matches!(place, Target::Enterprise(_)))
        .filter(|place| credential_for_name(credentials, place) == Some(index))
        .take(TARGETS_MAX)
        .collect()
}

/// Those that send to `url`. A credential need not have the permission to see them.
pub(super) async fn webhooks(github: &GitHub, places: &[Target], url: &str) -> Vec<WebhookId> {
    let mut found = Vec::new();
    for target in places {
        match github.webhooks(target).await {
            Ok(webhooks) => {
                let ours = webhooks.into_iter().filter(|it| it.active && it.sends_to(url));
                found.extend(ours.map(|it| WebhookId::At { target: target.clone(), id: it.id }));
            }
            Err(error) => {
                debug!(%error, "webhooks not listed");
                let is_about_target =
                    matches!(error.kind, ErrorKind::Forbidden | ErrorKind::NotFound);
                if !is_about_target {
                    break;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn only_places_that_pools_name_are_asked_and_each_by_its_own_credential() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edgerunner.toml");
        let text = r#"
            [[credentials]]
            name = "org"
            targets = ["acme"]
            token = "one"
            [[credentials]]
            name = "own"
            targets = ["acme/*", "octocat/*"]
            token = "two"
            [[pools]]
            name = "shared"
            scope = "organization"
            repositories = ["acme/app"]
            [[pools]]
            name = "all"
            repositories = ["octocat/*", "octocat/tool"]
        "#;
        std::fs::write(&file, text).unwrap();
        let settings = Config::load_to_serve(Some(&file), &|_| None).unwrap().planner_settings();
        let named = |index| -> Vec<String> {
            let places = places(&settings.pools, &settings.credentials, index);
            places.iter().map(Target::to_string).collect()
        };
        assert_eq!(named(0), ["org:acme"]);
        assert_eq!(named(1), ["repo:acme/app", "repo:octocat/tool"]);
    }
}

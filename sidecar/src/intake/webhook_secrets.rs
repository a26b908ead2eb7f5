//! Webhook secrets, for filters that do not get them from their environment.

use edgerunner_proto::v1::HookSecrets;
use tracing::warn;

use crate::{config::Webhook, secret::read_secret};

/// Returns the secrets of the requested webhooks. Files are read at each call, so a secret
/// is rotated by writing its file.
pub(super) fn secrets(webhooks: &[Webhook], hooks: &[String]) -> Vec<HookSecrets> {
    let mut found = Vec::new();
    for webhook in webhooks.iter().filter(|webhook| hooks.contains(&webhook.name)) {
        let mut secrets = Vec::new();
        for (index, file) in webhook.secret_files.iter().enumerate() {
            match read_secret(file) {
                Ok(secret) => secrets.push(secret.into()),
                // Other files exist only during a rotation.
                Err(error) if index == 0 => {
                    warn!(hook = webhook.name, file = %file.display(), error, "cannot read the current secret");
                }
                Err(_) => {}
            }
        }
        if !secrets.is_empty() {
            found.push(HookSecrets { hook: webhook.name.clone(), secrets });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secrets_are_those_of_the_files_at_the_moment() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["current", "previous"].map(|name| directory.path().join(name));
        let webhooks = [
            Webhook { name: "acme".into(), secret_files: files.to_vec() },
            Webhook { name: "other".into(), secret_files: files[..1].to_vec() },
        ];
        let requested = ["acme".to_owned(), "unknown".to_owned()];
        assert_eq!(secrets(&webhooks, &requested), []);

        fs::write(&files[0], "first\n").unwrap();
        let expected = |secrets: &[&str]| {
            let secrets = secrets.iter().map(|secret| (*secret).into()).collect();
            [HookSecrets { hook: "acme".into(), secrets }]
        };
        assert_eq!(secrets(&webhooks, &requested), expected(&["first"]));

        fs::write(&files[1], "first").unwrap();
        fs::write(&files[0], "second").unwrap();
        assert_eq!(secrets(&webhooks, &requested), expected(&["second", "first"]));

        fs::write(&files[0], "\n").unwrap();
        assert_eq!(secrets(&webhooks, &requested), expected(&["first"]));
    }
}

//! Webhook secrets, for filters that do not get them from their environment.

use std::sync::{Mutex, PoisonError};

use edgerunner_proto::v1::HookSecrets;
use secrecy::{ExposeSecret as _, SecretString};
use tracing::warn;

use crate::{
    config::Webhook,
    secret::{ReadError, SecretFile},
};

/// The webhooks and the files of their secrets, which are read at each call, so that a secret
/// is rotated by writing its file.
pub(crate) struct WebhookSecrets(Vec<(String, Vec<File>)>);

struct File {
    file: SecretFile,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// What was read last.
    secret: Option<SecretString>,
    /// Why it could not be read, which is logged once.
    error: Option<String>,
}

impl WebhookSecrets {
    pub(crate) fn new(webhooks: &[Webhook]) -> Self {
        let files = |webhook: &Webhook| {
            let files = webhook.secret_files.iter();
            files.map(|path| File { file: SecretFile::new(path), last: Mutex::default() }).collect()
        };
        Self(webhooks.iter().map(|webhook| (webhook.name.clone(), files(webhook))).collect())
    }

    /// The secrets of the requested webhooks.
    pub(super) async fn get(&self, hooks: &[String]) -> Vec<HookSecrets> {
        let mut found = Vec::new();
        for (hook, files) in self.0.iter().filter(|(name, _)| hooks.contains(name)) {
            let mut secrets = Vec::new();
            for (index, file) in files.iter().enumerate() {
                // Other files exist only during a rotation.
                let secret = file.secret(hook, index == 0).await;
                secrets.extend(secret.map(|secret| secret.expose_secret().into()));
            }
            if !secrets.is_empty() {
                found.push(HookSecrets { hook: hook.clone(), secrets });
            }
        }
        found
    }
}

impl File {
    /// A file that hangs may still hold what it held: without it, the filter would refuse
    /// genuine webhooks.
    async fn secret(&self, hook: &str, is_needed: bool) -> Option<SecretString> {
        let read = self.file.read().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (secret, error) = match read {
            Ok(secret) => (Some(secret), None),
            Err(ReadError::Late(error)) => (last.secret.clone(), Some(error)),
            Err(ReadError::Unusable(error)) => (None, Some(error).filter(|_| is_needed)),
        };
        if let Some(error) = error.as_ref().filter(|_| error != last.error) {
            let file = self.file.path.display();
            warn!(hook, %file, error, "cannot read the current secret");
        }
        *last = Last { secret: secret.clone(), error };
        secret
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time;

    use super::*;
    use crate::secret::READ_LIMIT;

    #[tokio::test]
    async fn secrets_are_those_of_the_files_at_the_moment() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["current", "previous"].map(|name| directory.path().join(name));
        let webhooks = WebhookSecrets::new(&[
            Webhook { name: "acme".into(), secret_files: files.to_vec() },
            Webhook { name: "other".into(), secret_files: files[..1].to_vec() },
        ]);
        let requested = ["acme".to_owned(), "unknown".to_owned()];
        assert_eq!(webhooks.get(&requested).await, []);

        fs::write(&files[0], "first\n").unwrap();
        let expected = |secrets: &[&str]| {
            let secrets = secrets.iter().map(|secret| (*secret).into()).collect();
            [HookSecrets { hook: "acme".into(), secrets }]
        };
        assert_eq!(webhooks.get(&requested).await, expected(&["first"]));

        fs::write(&files[1], "first").unwrap();
        fs::write(&files[0], "second").unwrap();
        assert_eq!(webhooks.get(&requested).await, expected(&["second", "first"]));

        fs::write(&files[0], "\n").unwrap();
        assert_eq!(webhooks.get(&requested).await, expected(&["first"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_keeps_its_secret() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("current");
        let webhook = Webhook { name: "acme".into(), secret_files: vec![file.clone()] };
        let webhooks = WebhookSecrets::new(&[webhook]);
        let hooks = ["acme".to_owned()];
        fs::write(&file, "first").unwrap();
        let before = webhooks.get(&hooks).await;
        assert_eq!(before.len(), 1);
        fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
        let (late, ()) = tokio::join!(webhooks.get(&hooks), time::advance(READ_LIMIT));
        assert_eq!(late, before);
        for _ in 0..1000 {
            assert_eq!(webhooks.get(&hooks).await, before);
        }
        // Lets the read end, and with it the test.
        fs::write(&file, "first").unwrap();
    }
}

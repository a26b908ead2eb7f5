//! Webhooks whose secrets the sidecar gives to the filter.

use super::{Webhook, document::Document};
use crate::{blocking::read_text, secret::SECRET_BYTES_MAX};

/// The filter accepts at most this many.
const SECRETS_MAX: usize = 4;

impl Document {
    pub(super) fn read_webhooks(&mut self) -> Vec<Webhook> {
        let mut webhooks: Vec<Webhook> = Vec::new();
        for pointer in self.tables("/webhooks") {
            let webhook: Webhook = self.read(&pointer);
            if webhooks.iter().any(|other| other.name == webhook.name) {
                let problem = "another webhook has this name: write a unique one";
                self.error(&format!("{pointer}/name"), problem);
            }
            let files = format!("{pointer}/secret_files");
            if !(1..=SECRETS_MAX).contains(&webhook.secret_files.len()) {
                let problem = format!("write a list of 1 to {SECRETS_MAX} file paths");
                self.error(&files, problem);
            }
            if let Some(error) = webhook
                .secret_files
                .first()
                .and_then(|file| read_text(file, SECRET_BYTES_MAX).err())
            {
                self.error(&format!("{files}/0"), format!("cannot read that file: {error}"));
            }
            webhooks.push(webhook);
        }
        webhooks
    }
}

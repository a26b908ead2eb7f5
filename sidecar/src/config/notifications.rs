//! Where messages are sent to.

use std::fmt;

use http::Uri;
use secrecy::{ExposeSecret as _, SecretString};

use super::{NotificationFormat, document::Document, sections::Notifications};

/// A receiver of messages. `Debug` leaves out its URL, which may be a secret.
#[derive(Clone)]
pub(crate) struct NotificationsConfig {
    pub url: Uri,
    pub secret: Option<SecretString>,
    pub format: NotificationFormat,
}

impl fmt::Debug for NotificationsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationsConfig").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Document {
    /// `None` if no messages are to be sent.
    pub(super) fn read_notifications(&mut self) -> Option<NotificationsConfig> {
        let Notifications { url, secret, format, .. } = self.read("/notifications");
        self.check_secret("/notifications/secret", secret.as_ref());
        let Some(url) = url else {
            if secret.is_some() {
                self.error("/notifications/secret", "a receiver is missing: also set url");
            }
            return None;
        };
        match parse(url.expose_secret()) {
            Ok(url) => Some(NotificationsConfig { url, secret, format }),
            Err(problem) => {
                self.error("/notifications/url", problem);
                None
            }
        }
    }
}

fn parse(url: &str) -> Result<Uri, &'static str> {
    let url: Uri = url.parse().map_err(|_| "write a URL that begins with https:// or http://")?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(url),
        (Some("http" | "https"), Some(_)) => {
            Err("write the URL without user and password: messages are signed with secret")
        }
        _ => Err("write a URL that begins with https:// or http://"),
    }
}

//! GitHub's published IP ranges.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub};

impl GitHub {
    /// The ranges that webhooks come from, each as `ADDRESS/PREFIX_LENGTH`.
    pub(crate) async fn webhook_addresses(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            hooks: Vec<String>,
        }
        let call = "reading GitHub's IP ranges";
        let response = self.send_as_self(call, Method::GET, "/meta").await?;
        let Reply { hooks } = self.client.read(call, &response, StatusCode::OK)?;
        Ok(hooks)
    }
}

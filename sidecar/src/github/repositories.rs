//! Repositories.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub, path};
use edgerunner_scheduler::model::{Target, Visibility};

impl GitHub {
    /// Who can see a repository.
    pub(crate) async fn visibility(
        &self,
        owner: &str,
        repository: &str,
    ) -> Result<Visibility, Error> {
        #[derive(Deserialize)]
        struct Reply {
            private: Option<bool>,
            visibility: Option<String>,
        }
        let call = format!("reading {owner}/{repository}");
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let path = path::repository(owner, repository);
        let response = self.send(&call, Method::GET, &path, None, target).await?;
        let reply: Reply = self.client.read(&call, &response, StatusCode::OK)?;
        Ok(Visibility::reported(reply.visibility.as_deref(), reply.private))
    }
}

//! Runners that are registered at GitHub.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub, path};
use edgerunner_scheduler::model::Target;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisteredRunner {
    pub id: u64,
    pub name: String,
    pub online: bool,
    pub busy: bool,
    /// Of its program; `None` if GitHub does not list it, as before its first connection.
    pub version: Option<String>,
}

/// What became of a registration that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunnerRemoval {
    Removed,
    NotFound,
    /// The runner is running a job, so GitHub keeps it.
    Busy,
}

impl RunnerRemoval {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::NotFound => "not_found",
            Self::Busy => "busy",
        }
    }
}

impl GitHub {
    pub(crate) async fn runners(&self, target: &Target) -> Result<Vec<RegisteredRunner>, Error> {
        self.list_runners(&format!("listing the runners of {target}"), target, "").await
    }

    pub(crate) async fn runner_named(
        &self,
        target: &Target,
        name: &str,
    ) -> Result<Option<RegisteredRunner>, Error> {
        let call = format!("looking up runner {name} of {target}");
        let filter = format!("name={}&", path::segment(name));
        let found = self.list_runners(&call, target, &filter).await?;
        // An older Enterprise Server ignores the filter.
        Ok(found.into_iter().find(|runner| runner.name.eq_ignore_ascii_case(name)))
    }

    async fn list_runners(
        &self,
        call: &str,
        target: &Target,
        filter: &str,
    ) -> Result<Vec<RegisteredRunner>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            runners: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            id: u64,
            name: String,
            status: String,
            busy: bool,
            /// Whatever it is: the list must not fail for it.
            #[serde(default)]
            version: serde_json::Value,
        }
        let path = format!("{}?{filter}per_page=100", path::runners(target));
        let pages: Vec<Reply> = self.pages(call, path, target).await?;
        let listed = pages.into_iter().flat_map(|page| page.runners);
        let runners = listed.map(|runner| RegisteredRunner {
            id: runner.id,
            name: runner.name,
            online: runner.status == "online",
            busy: runner.busy,
            version: runner.version.as_str().map(str::to_owned),
        });
        Ok(runners.collect())
    }

    pub(crate) async fn remove_runner(
        &self,
        target: &Target,
        id: u64,
    ) -> Result<RunnerRemoval, Error> {
        let call = format!("removing runner {id} of {target}");
        let path = format!("{}/{id}", path::runners(target));
        let response = self.send(&call, Method::DELETE, &path, None, target).await?;
        match response.status {
            StatusCode::NO_CONTENT => Ok(RunnerRemoval::Removed),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(RunnerRemoval::NotFound),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(RunnerRemoval::Busy),
            _ => Err(self.client.error(&call, &response)),
        }
    }
}

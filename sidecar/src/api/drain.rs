use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Api, Problem};
use crate::{control::Draining, driver::Input};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    /// `null`: all of them.
    pool: Option<String>,
}

pub(super) type Chosen = Result<Json<Choice>, JsonRejection>;

pub(super) async fn drain(
    State(api): State<Api>,
    chosen: Chosen,
) -> Result<Json<Draining>, Problem> {
    api.drain(chosen, true).await
}

pub(super) async fn resume(
    State(api): State<Api>,
    chosen: Chosen,
) -> Result<Json<Draining>, Problem> {
    api.drain(chosen, false).await
}

impl Api {
    async fn drain(&self, chosen: Chosen, draining: bool) -> Result<Json<Draining>, Problem> {
        let Json(Choice { pool }) = chosen.map_err(|rejection| Problem {
            status: rejection.status(),
            message: rejection.body_text(),
        })?;
        let pool = pool.map(|name| self.pool(&name)).transpose()?;
        let (reply, kept) = oneshot::channel();
        let input = Input::Drain { pool, draining, reply };
        self.driver.send(input).await.map_err(|_| Problem::stopping())?;
        kept.await.map_err(|_| Problem::stopping())?.map_err(|error| Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: format!("done, but a restart will undo it: {error}"),
        })?;
        Ok(Json(Draining::of(&self.snapshot().await?)))
    }

    fn pool(&self, name: &str) -> Result<usize, Problem> {
        self.pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
            Problem {
                status: StatusCode::NOT_FOUND,
                message: format!("there is no such pool; there are {}", names.join(", ")),
            }
        })
    }
}

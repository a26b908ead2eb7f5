//! The sidecars that share the store.

use std::time::{Duration, Instant};

use axum::{Json, extract::State, http::StatusCode};

use super::{Api, Problem};
use crate::control::{
    clock,
    command::{Command, CommandError},
    sidecars::{Overview, SidecarView},
    snapshot::Snapshot,
};

/// For what was read of the sidecars.
const OLD_AFTER: Duration = Duration::from_millis(500);

/// All sidecars that share the store and have reported in the last hour; empty with SQLite
///
/// Each of them has the same answer, also while none plans.
#[utoipa::path(get, path = "/api/v1/sidecars", responses((status = OK, body = [SidecarView])))]
pub(super) async fn sidecars(State(api): State<Api>) -> Result<Json<Vec<SidecarView>>, Problem> {
    Ok(Json(api.sidecars.look().await?.sidecars))
}

impl Api {
    /// That of the sidecar that plans, within 7 s.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, Problem> {
        let asked_at = Instant::now();
        // While the store is away, the one that plans answers for a few seconds more.
        let overview = match self.sidecars.look().await {
            Ok(overview) => overview,
            Err(_) => self.sidecars.last(),
        };
        let snapshot = match overview.nobody_plans {
            true => Err(CommandError::NoPlanner),
            false => self.request(Command::GetSnapshot).await?,
        };
        // Another one may have taken over meanwhile.
        let overview = match asked_at.elapsed() > OLD_AFTER {
            true => self.sidecars.look().await.unwrap_or(overview),
            false => overview,
        };
        match snapshot {
            Ok(snapshot) => Ok(Snapshot { sidecars: overview.sidecars, ..snapshot }),
            Err(CommandError::NoPlanner) => Err(nothing_is_planned(&overview)),
            Err(error) => Err(error.into()),
        }
    }
}

fn nothing_is_planned(overview: &Overview) -> Problem {
    let (title, text) = overview.why_nothing_is_planned(clock::now().wall);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{title}. {text}"))
}

//! Metrics, for Prometheus.

use axum::{extract::State, http::header, response::IntoResponse};

use super::{Api, Problem};
use crate::control::{command::Command, gauges};

pub(super) async fn scrape(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let figures = api.request(Command::GetFigures).await?;
    api.exported().set(figures.as_ref());
    gauges::set_sidecars(api.sidecars.gauged().as_ref());
    api.prometheus.run_upkeep();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, api.prometheus.render()))
}

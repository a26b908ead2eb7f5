//! Nodes: the machines of a Docker Swarm, and draining them.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};

use super::{
    Api, Problem,
    audit::Change,
    caller::Caller,
    problem::{ChangeResponses, ErrorBody},
};
use crate::{control::snapshot::NodeView, provider::Node};

/// Machines of the Docker Swarm, by name; empty without one
#[utoipa::path(get, path = "/api/v1/nodes", responses((status = OK, body = [NodeView])))]
pub(super) async fn nodes(State(api): State<Api>) -> Result<Json<Vec<NodeView>>, Problem> {
    Ok(Json(api.nodes().await?.into_iter().map(NodeView::from).collect()))
}

type Name = Result<Path<String>, PathRejection>;

/// Stop launching runners on a node
///
/// Its runners finish their jobs. Services of yours that run there move to other nodes.
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/drain",
    params(("name" = String, Path, description = "The node's name or ID")),
    responses(
        (status = OK, description = "The node, as it is now", body = NodeView),
        ChangeResponses,
        (
            status = CONFLICT,
            description = "Several nodes have this name, or the Swarm refuses",
            body = ErrorBody
        ),
    ),
    security(("api_token" = []))
)]
pub(super) async fn drain(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    name: Name,
) -> Result<Json<NodeView>, Problem> {
    api.drain_node(caller, name, true).await
}

/// Launch runners on a node again
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/resume",
    params(("name" = String, Path, description = "The node's name or ID")),
    responses(
        (status = OK, description = "The node, as it is now", body = NodeView),
        ChangeResponses,
        (
            status = CONFLICT,
            description = "Several nodes have this name, or the Swarm refuses",
            body = ErrorBody
        ),
    ),
    security(("api_token" = []))
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    name: Name,
) -> Result<Json<NodeView>, Problem> {
    api.drain_node(caller, name, false).await
}

impl Api {
    async fn nodes(&self) -> Result<Vec<Node>, Problem> {
        let (nodes, failed) = self.places.nodes().await;
        match failed.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(nodes),
        }
    }

    async fn drain_node(
        &self,
        caller: Caller,
        name: Name,
        draining: bool,
    ) -> Result<Json<NodeView>, Problem> {
        let Path(node) = name?;
        let change = Change {
            action: if draining { "drain_node" } else { "resume_node" },
            target: node.clone(),
        };
        let (places, drained) = (self.places.clone(), node.clone());
        let drain = async move { Ok(places.drain_node(&drained, draining).await?) };
        self.audited(caller, change, drain).await?;
        let found = self.nodes().await?.into_iter().find(|it| it.id == node || it.name == node);
        let found = found.ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "the node has just left the Swarm")
        })?;
        Ok(Json(found.into()))
    }
}

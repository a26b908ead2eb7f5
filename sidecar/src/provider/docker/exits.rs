//! Exits of runners' containers, from the Engine's stream of events.

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use futures_util::{Stream, StreamExt as _, stream};

use super::{Docker, error, from_bollard, is_dind};
use crate::provider::{
    error::{Error, ErrorKind},
    instance::Exit,
    labels,
};

/// Docker reports an exit a while before its list of containers shows it: a container listed
/// as running may have been reported already.
const OVERLAP: Duration = Duration::from_secs(10);
const INSPECTIONS_AT_ONCE_MAX: usize = 16;

impl Docker {
    pub(crate) fn exits(&self) -> impl Stream<Item = Result<Exit, Error>> + Send + use<> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.saturating_sub(OVERLAP);
        // Podman's filter knows its own name for the event alone, and its answer has Docker's.
        let filters = [("type", &["container"][..]), ("event", &["die", "died", "oom"][..])];
        let filters = filters.into_iter().map(|(name, values)| {
            let values: Vec<String> = values.iter().map(|it| (*it).to_owned()).collect();
            (name.to_owned(), values)
        });
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos())),
            until: None,
            filters: Some(filters.chain([self.filter(None)]).collect()),
        };
        let call = "watch containers";
        let ended = stream::once(async move {
            Err(error(ErrorKind::Unavailable, call, "Docker closed the stream of events"))
        });
        let docker = self.clone();
        let lacked_memory = Arc::clone(&self.lacked_memory);
        self.bollard
            .events(Some(options))
            .filter_map(move |event| {
                let exit = match event {
                    Ok(event) => {
                        lacked_memory.note(&event);
                        read(event).map(Ok)
                    }
                    Err(error) => Some(Err(from_bollard(call, &error))),
                };
                ready(exit)
            })
            .map(move |exit| {
                let docker = docker.clone();
                async move {
                    match exit {
                        Ok(Exit { runner, status }) => {
                            let status = docker.status_of_ended(&runner, status.code).await;
                            Ok(Exit { runner, status })
                        }
                        Err(error) => Err(error),
                    }
                }
            })
            .buffered(INSPECTIONS_AT_ONCE_MAX)
            .chain(ended)
            .scan(false, |failed, item| {
                let go_on = !*failed;
                *failed = item.is_err();
                async move { go_on.then_some(item) }
            })
    }
}

fn read(event: EventMessage) -> Option<Exit> {
    let attributes = event.actor?.attributes?;
    if event.action.as_deref() != Some("die") || is_dind(&attributes) {
        return None;
    }
    let code: i64 = attributes.get("exitCode")?.parse().ok()?;
    Some(Exit { runner: attributes.get(labels::RUNNER)?.clone(), status: code.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, attributes: serde_json::Value) -> EventMessage {
        serde_json::from_value(serde_json::json!({
            "Type": "container",
            "Action": action,
            "Actor": { "ID": "0f", "Attributes": attributes },
        }))
        .unwrap()
    }

    #[test]
    fn an_exit_is_read() {
        let labels = serde_json::json!({
            "dev.edgerunner.runner": "edge-1", "name": "edge-1", "exitCode": "137",
        });
        let expected = Exit { runner: "edge-1".into(), status: 137.into() };
        assert_eq!(read(event("die", labels)), Some(expected));
    }

    #[test]
    fn other_events_are_ignored() {
        assert_eq!(read(event("die", serde_json::json!({ "name": "db", "exitCode": "0" }))), None);
        let ours = serde_json::json!({ "dev.edgerunner.runner": "edge-1", "exitCode": "0" });
        for action in ["start", "destroy", "oom"] {
            assert_eq!(read(event(action, ours.clone())), None);
        }
        let engine = serde_json::json!({
            "dev.edgerunner.runner": "edge-1", "dev.edgerunner.role": "dind", "exitCode": "0",
        });
        assert_eq!(read(event("die", engine)), None);
    }
}

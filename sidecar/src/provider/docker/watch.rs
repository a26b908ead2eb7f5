use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt, stream};

use super::labels::Labels;
use super::{Cause, Docker, Error, labels};

/// What happened to a runner's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub runner: String,
    pub container_id: String,
    pub kind: ChangeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Started,
    Died { exit_code: i64 },
    Removed,
}

/// Docker tells of an exit a while before its list of containers does: what a survey
/// saw running may have been told of already.
const OVERLAP: Duration = Duration::from_secs(10);

impl Docker {
    /// What happens from now on, and what happened just before, also if the stream is
    /// polled later. It ends
    /// with an error when Docker goes away: then watch again and survey, in
    /// this order, for what happened in between.
    pub(crate) fn watch(
        &self,
        instance: &str,
    ) -> impl Stream<Item = Result<Change, Error>> + Send + use<> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.saturating_sub(OVERLAP);
        let events = ["start", "die", "destroy"].map(str::to_owned).to_vec();
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos())),
            until: None,
            filters: Some(
                [
                    ("type".to_owned(), vec!["container".to_owned()]),
                    ("event".to_owned(), events),
                    Labels::filter(instance),
                ]
                .into(),
            ),
        };
        let call = "watch containers";
        let ended = stream::once(async move {
            Err(Error::new(Cause::DaemonUnreachable, call, "Docker ended the stream of events"))
        });
        self.bollard
            .events(Some(options))
            .filter_map(move |event| async move {
                match event {
                    Ok(event) => read(event).map(Ok),
                    Err(error) => Some(Err(Error::from_bollard(call, &error))),
                }
            })
            .chain(ended)
            .scan(false, |failed, item| {
                let go_on = !*failed;
                *failed = item.is_err();
                async move { go_on.then_some(item) }
            })
    }
}

fn read(event: EventMessage) -> Option<Change> {
    let actor = event.actor?;
    let attributes = actor.attributes?;
    if labels::is_dind(&attributes) {
        return None;
    }
    let kind = match event.action.as_deref()? {
        "start" => ChangeKind::Started,
        "die" => ChangeKind::Died { exit_code: attributes.get("exitCode")?.parse().ok()? },
        "destroy" => ChangeKind::Removed,
        _ => return None,
    };
    let runner = attributes.get(labels::RUNNER)?.clone();
    Some(Change { runner, container_id: actor.id?, kind })
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
    fn the_three_changes_are_read() {
        let labels = serde_json::json!({
            "dev.edgerunner.runner": "edge-1", "name": "edge-1", "exitCode": "137",
        });
        for (action, kind) in [
            ("start", ChangeKind::Started),
            ("die", ChangeKind::Died { exit_code: 137 }),
            ("destroy", ChangeKind::Removed),
        ] {
            let expected = Change { runner: "edge-1".into(), container_id: "0f".into(), kind };
            assert_eq!(read(event(action, labels.clone())), Some(expected));
        }
    }

    #[test]
    fn other_events_are_passed_over() {
        assert_eq!(read(event("start", serde_json::json!({ "name": "db" }))), None);
        let ours = serde_json::json!({ "dev.edgerunner.runner": "edge-1" });
        assert_eq!(read(event("oom", ours)), None);
        let engine = serde_json::json!({
            "dev.edgerunner.runner": "edge-1", "dev.edgerunner.role": "dind", "exitCode": "0",
        });
        assert_eq!(read(event("die", engine)), None);
    }
}

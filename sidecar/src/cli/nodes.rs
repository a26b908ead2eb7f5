//! `edgerunner nodes`, with `drain` and `resume`.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    client::Client,
    output::{Output, Table, Width, names_in, parse, print, printable},
};
use crate::{control::snapshot::NodeView, provider::node::Condition};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Launch no more runners on a node, for example before you restart it. Its runners finish
    /// their jobs. Lasts until `resume`.
    Drain {
        /// Name of the node, as shown by `edgerunner nodes`, or its ID.
        name: String,
    },
    /// Launch runners on a node again.
    Resume {
        /// Name of the node, as shown by `edgerunner nodes`, or its ID.
        name: String,
    },
}

impl Arguments {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        let change = |name: &str, verb: &str| -> Result<NodeView> {
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            parse(client.post(&format!("/api/v1/nodes/{name}/{verb}"), &json!({}))?)
        };
        match &self.command {
            None => self.output.show(
                || client.get("/api/v1/nodes"),
                |nodes| names_in(nodes, "name"),
                table,
            ),
            Some(Command::Drain { name }) => print(&drained(&change(name, "drain")?)),
            Some(Command::Resume { name }) => print(&resumed(&change(name, "resume")?)),
        }
    }
}

fn drained(NodeView { name, runners, .. }: &NodeView) -> String {
    let finish = match runners {
        0 => String::new(),
        1 => "its runner finishes, ".to_owned(),
        _ => format!("its {runners} runners finish, "),
    };
    printable(format!("{name} is drained: {finish}nothing new is launched there.")) + "\n"
}

fn resumed(node: &NodeView) -> String {
    let text = match problem(node) {
        None => format!("{} is active: runners are launched there again.", node.name),
        Some(problem) => {
            format!("{} is active, but nothing is launched there yet. {problem}", node.name)
        }
    };
    printable(text) + "\n"
}

/// What keeps runners away from a node that is not drained.
fn problem(node: &NodeView) -> Option<String> {
    let NodeView { name, state, message, engine, .. } = node;
    if node.condition == Condition::Down.as_str() {
        let why = if message.is_empty() { String::new() } else { format!(": {message}") };
        return Some(format!("{name} is {state}{why}"));
    }
    node.too_old.then(|| {
        format!(
            "{name} has Docker Engine {engine}: install 23.0.3 or newer to launch runners there"
        )
    })
}

/// How many nodes there are, and how many of them take no runners.
pub(super) fn summary(nodes: &[NodeView]) -> String {
    let mut text = format!("Nodes: {}", nodes.len());
    for (condition, words) in [
        (Condition::Down, "down"),
        (Condition::TooOld, "with an Engine that is too old"),
        (Condition::Drained, "drained"),
    ] {
        let count = nodes.iter().filter(|node| node.condition == condition.as_str()).count();
        if count > 0 {
            _ = write!(text, ", {count} {words}");
        }
    }
    text
}

fn table(nodes: &Value, width: Width) -> Result<String> {
    let nodes: Vec<NodeView> = parse(nodes.clone())?;
    if nodes.is_empty() {
        return Ok("No nodes: [swarm] is not configured.\n".into());
    }
    let problems: Vec<String> = nodes.iter().filter_map(problem).collect();
    let names = ["NODE", "STATE", "AVAILABILITY", "ROLE", "ENGINE", "CPUS", "MEMORY", "RUNNERS"];
    let mut table = Table::new(names, &[1, 2]).cut(&[(0, 12)]).optional(&[4, 3, 6]);
    for node in nodes {
        table.push([
            node.name.clone(),
            node.state.clone(),
            node.availability.clone(),
            node.role().to_owned(),
            node.engine.clone(),
            format!("{} of {}", node.reserved_cpus, node.cpus),
            format!("{} of {} GiB", gib(node.reserved_memory_mib), gib(node.memory_mib)),
            node.runners.to_string(),
        ]);
    }
    let mut text = table.within(width);
    if !problems.is_empty() {
        text.push('\n');
    }
    for problem in problems {
        text += &(printable(problem) + "\n");
    }
    Ok(text)
}

/// With at most one decimal.
fn gib(mib: u64) -> f64 {
    (mib as f64 / 102.4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use serde_json::to_value;

    use super::*;
    use crate::provider::{Node, node::Availability};

    fn nodes() -> Vec<NodeView> {
        let busy = Node {
            manager: true,
            leader: true,
            reserved_cpus: 2.5,
            reserved_memory_mib: 1536,
            runners: 3,
            ..Node::example("build-1")
        };
        let down = Node {
            state: "down".into(),
            message: "heartbeat\u{1b} failure".into(),
            ..Node::example("build-2")
        };
        let old = Node { too_old: true, engine: "20.10.24".into(), ..Node::example("build-3") };
        let drained = Node { availability: Availability::Drain, ..Node::example("build-4") };
        [busy, down, old, drained].map(NodeView::from).into()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn nodes_are_listed_with_their_room_and_what_keeps_runners_away() {
        let text = plain(&table(&to_value(nodes()).unwrap(), Width::FULL).unwrap());
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "NODE STATE AVAILABILITY ROLE ENGINE CPUS MEMORY RUNNERS",
                "build-1 ready active leader 26.1.5 2.5 of 4 1.5 of 8 GiB 3",
                "build-2 down active worker 26.1.5 0 of 4 0 of 8 GiB 0",
                "build-3 ready active worker 20.10.24 0 of 4 0 of 8 GiB 0",
                "build-4 ready drain worker 26.1.5 0 of 4 0 of 8 GiB 0",
                "",
                "build-2 is down: heartbeat failure",
                "build-3 has Docker Engine 20.10.24: install 23.0.3 or newer to launch runners there",
            ]
        );
        assert!(table(&json!([]), Width::FULL).unwrap().starts_with("No nodes"));
    }

    #[test]
    fn a_change_says_what_follows_from_it() {
        let [busy, down, _, drained] = &nodes()[..] else { panic!() };
        assert_eq!(
            super::drained(busy),
            "build-1 is drained: its 3 runners finish, nothing new is launched there.\n"
        );
        assert_eq!(
            super::drained(&NodeView { runners: 1, ..busy.clone() }),
            "build-1 is drained: its runner finishes, nothing new is launched there.\n"
        );
        assert_eq!(super::drained(drained), "build-4 is drained: nothing new is launched there.\n");
        assert_eq!(resumed(busy), "build-1 is active: runners are launched there again.\n");
        assert_eq!(
            resumed(down),
            "build-2 is active, but nothing is launched there yet. build-2 is down: heartbeat  failure\n"
        );
    }

    #[test]
    fn a_summary_counts_the_nodes_that_take_no_runners() {
        let all = nodes();
        assert_eq!(summary(&all), "Nodes: 4, 1 down, 1 with an Engine that is too old, 1 drained");
        assert_eq!(summary(&all[..1]), "Nodes: 1");
    }
}

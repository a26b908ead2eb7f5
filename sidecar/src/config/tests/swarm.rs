//! Docker Swarm: its section, and pools that run there.

use super::*;
use crate::config::ProviderName;

const LAUNCHER: &str = "launcher_image = \"registry.example.com/edgerunner:1\"";

#[test]
fn a_pool_chooses_where_its_runners_run() {
    let file = format!(
        r#"
        [docker]
        host = "unix:///run/other.sock"
        [swarm]
        {LAUNCHER}
        [[pools]]
        name = "here"
        [[pools]]
        name = "there"
        provider = "swarm"
        placement = ["node.labels.disk==ssd", "node.role != manager"]
        spread_over = ["node.labels.rack"]
        "#
    );
    let config = load(&file, &[]).unwrap();
    let providers: Vec<_> = config.pools.iter().map(|pool| pool.provider).collect();
    assert_eq!(providers, [ProviderName::Docker, ProviderName::Swarm]);
    let planned: Vec<_> = config.pools.iter().map(|pool| pool.planner_pool().provider).collect();
    assert_eq!(planned, [0, 1]);
    assert_eq!(config.planner_settings().providers, ["Docker", "Docker Swarm"]);
    // The Engine is a manager unless others are named.
    let managers = |config: Config| {
        let managers = config.swarm.unwrap().managers;
        managers.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(managers(config), ["unix:///run/other.sock"]);
    let named = ("SWARM_MANAGERS", "unix:///run/one.sock,tcp://127.0.0.1:2375");
    let config = load(&file, &[named]).unwrap();
    assert_eq!(managers(config), ["unix:///run/one.sock", "tcp://127.0.0.1:2375"]);
}

#[test]
fn without_a_swarm_there_is_one_provider() {
    assert_eq!(load("", &[]).unwrap().planner_settings().providers, ["Docker"]);
    let found = errors("[[pools]]\nname = \"a\"\nprovider = \"swarm\"", &[]);
    assert_errors(&found, &["3: pools[0].provider: provider = \"swarm\" needs a section [swarm]"]);
}

#[test]
fn settings_of_a_swarm_that_cannot_work_are_errors() {
    let file = r#"
[swarm]
managers = ["ssh://build-1", "tcp://10.0.0.1:2376"]
docker_socket = "docker.sock"
[[pools]]
name = "a"
provider = "swarm"
placement = ["disk=ssd", "node.labels.disk==ssd"]
spread_over = ["rack"]
"#;
    assert_errors(
        &errors(file, &[]),
        &[
            "3: swarm.managers[0]: ssh:// is not supported",
            "3: swarm.managers[1]: without TLS, everyone on the network between could take over \
             10.0.0.1: set swarm.cert_path",
            "2: swarm.launcher_image: write the image of edgerunner that every node can pull",
            "4: swarm.docker_socket: write an absolute path",
            "8: pools[0].placement[0]: write NAME==VALUE or NAME!=VALUE",
            "9: pools[0].spread_over[0]: write a label of nodes such as node.labels.rack",
        ],
    );
}

/// Its launcher hands out nothing: the planner does not know the devices of a node.
#[test]
fn gpus_of_a_node_are_named_and_not_counted() {
    let file = format!(
        "docker.host_gpus = [\"0\"]\n[swarm]\n{LAUNCHER}\n[[pools]]\nname = \"p\"\n\
         provider = \"swarm\"\n"
    );
    for gpus in ["\"all\"", "[\"0\"]", "[\"nvidia.com/gpu=all\"]"] {
        load(&format!("{file}gpus = {gpus}\n"), &[]).unwrap();
    }
    let reported = errors(&format!("{file}gpus = 1\n"), &[]);
    let expected = "7: pools[0].gpus: which GPUs of a node are free is not known before Docker";
    assert_errors(&reported, &[expected]);
}

//! Kubernetes: its section, and pools whose runners are pods.

use super::*;
use crate::config::ProviderName;

#[test]
fn pools_choose_their_provider_and_each_has_its_place() {
    let file = r#"
        [kubernetes]
        namespace = "runners"
        [[pools]]
        name = "pods"
        provider = "kubernetes"
        placement = ["disk==ssd", "example.com/spot != true"]
        spread_over = ["topology.kubernetes.io/zone"]
        gpus = 1
        [[pools]]
        name = "here"
    "#;
    let config = load(file, &[]).unwrap();
    let providers: Vec<_> = config.pools.iter().map(|pool| pool.provider).collect();
    assert_eq!(providers, [ProviderName::Kubernetes, ProviderName::Docker]);
    assert_eq!(config.planner_settings().providers, ["Docker", "Kubernetes"]);
    let planned: Vec<_> = config.pools.iter().map(|pool| pool.planner_pool().provider).collect();
    assert_eq!(planned, [1, 0]);
    // The cluster hands them out.
    assert_eq!(config.pools[0].planner_pool().devices, 0);
    let named = ("KUBERNETES_NAMESPACE", "other");
    let config = load(file, &[named]).unwrap();
    assert_eq!(config.kubernetes.unwrap().namespace.as_deref(), Some("other"));
    // Behind a Swarm it has another place.
    let file = format!("{file}\n[swarm]\nlauncher_image = \"edgerunner:1\"\n");
    let config = load(&file, &[]).unwrap();
    assert_eq!(config.planner_settings().providers, ["Docker", "Docker Swarm", "Kubernetes"]);
    assert_eq!(config.pools[0].place, 2);
}

/// Kubernetes sets these in every pod.
#[test]
fn the_variables_of_a_pod_are_no_settings() {
    for (name, value) in [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_PORT", "tcp://10.0.0.1:443"),
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.0.0.1"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edgerunner.db").display().to_string();
        let set = [("GITHUB_TOKEN", "token"), ("STORE_PATH", path.as_str()), (name, value)];
        let env = |name: &str| variable(&set, name);
        let config = Config::load_on_this_machine(None, &env, &[name.to_owned()]).unwrap();
        assert!(config.kubernetes.is_none(), "{name}");
    }
}

#[test]
fn without_a_cluster_no_pool_can_run_there() {
    let found = errors("[[pools]]\nname = \"a\"\nprovider = \"kubernetes\"", &[]);
    let expected = "3: pools[0].provider: provider = \"kubernetes\" needs a section [kubernetes]";
    assert_errors(&found, &[expected]);
}

#[test]
fn settings_of_a_cluster_that_cannot_work_are_errors() {
    let file = r#"
[kubernetes]
namespace = "Runners"
context = "prod"
[scheduler]
instance = "-ci"
[[pools]]
name = "a-"
provider = "kubernetes"
placement = ["disk=ssd"]
spread_over = ["node labels"]
parked = 1
repositories = ["acme/app"]
"#;
    assert_errors(
        &errors(file, &[]),
        &[
            "3: kubernetes.namespace: write 1 to 63 characters",
            "4: kubernetes.context: a context is one of a kubeconfig file",
            "6: scheduler.instance: it is part of the names of pods",
            "8: pools[0].name: it is part of the names of pods",
            "10: pools[0].placement[0]: write LABEL==VALUE or LABEL!=VALUE",
            "11: pools[0].spread_over[0]: write a label of nodes",
            "12: pools[0].parked: runners in Kubernetes cannot be parked",
        ],
    );
}

#[test]
fn what_a_pod_does_not_have_is_refused_with_what_to_do() {
    let template = TempFile::new("spec: {nodeNames: x}");
    let template = template.path().display().to_string();
    for (setting, expected) in [
        ("ulimits = [\"nofile=65536\"]", "ulimits: a pod has no such limits"),
        ("pids = 100", "pids: a pod has no such limit: set podPidsLimit"),
        ("init = true", "init: a pod has no init process of its own: set shareProcessNamespace"),
        ("log_driver = \"journald\"", "log_driver: the nodes keep the logs of pods"),
        ("log_options = { a = \"b\" }", "log_options: the nodes keep the logs of pods"),
        ("network = \"build\"", "network: pods are in the network of the cluster"),
        ("egress = [\"github.com\"]", "egress: edgerunner does not check what pods connect to"),
        ("egress_mode = \"observe\"", "egress_mode: edgerunner does not check"),
        ("tool_cache = \"pool\"", "tool_cache: runners in Kubernetes have no tool cache"),
        ("devices = [\"/dev/kvm\"]", "devices: pods get devices from device plugins"),
        ("docker = \"socket\"", "docker: nodes of Kubernetes have no Docker Engine"),
        ("gpus = \"all\"", "gpus: Kubernetes chooses the GPUs of each runner"),
        ("gpus = 1\ndocker = \"dind\"", "gpus: the Engine of docker = \"dind\" would not"),
        (
            "docker = \"dind\"\nruntime = \"a\"\ndind_runtime = \"b\"",
            "dind_runtime: a pod has one runtime class",
        ),
        ("user = \"runner\"", "user: Kubernetes does not know the names of an image's users"),
        (
            "dns = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\"]",
            "dns: Kubernetes accepts at most 3",
        ),
        ("platform = \"arm64\"", "platform: nodes have an operating system and an architecture"),
        ("extra_hosts = [\"a:host-gateway\"]", "extra_hosts[0]: write HOST:ADDRESS with an IP"),
        ("tmpfs = [\"/tmp:exec\"]", "tmpfs[0]: the only option in Kubernetes is the size"),
        ("volumes = [\"a:/a:z\"]", "volumes[0]: write CLAIM:/DESTINATION"),
        ("env = { \"1A\" = \"x\" }", "env.1A: Kubernetes accepts names of letters"),
        (
            &format!("pod_template = \"{template}\""),
            "pod_template: pods have no field spec.nodeNames: correct that file",
        ),
    ] {
        let file = format!(
            "[kubernetes]\n[[pools]]\nname = \"a\"\nprovider = \"kubernetes\"\n{setting}\n"
        );
        let found = errors(&file, &[]);
        let [error] = &found[..] else { panic!("{setting}: {found:?}") };
        assert!(error.contains(&format!("pools[0].{expected}")), "{setting}: {error}");
    }
}

//! The pods and secrets of some pools, in files that `cargo xtask test lints` checks against the
//! schemas of Kubernetes.

use expect_test::{ExpectFile, expect_file};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use super::*;
use crate::{
    config::{Config, PodTemplate, PoolConfig, Registry},
    provider::{
        kubernetes::secret::secret,
        labels::Labels,
        order::{Images, Script},
    },
};

/// With everything that a pod can have.
const EVERYTHING: &str = r#"
[kubernetes]
[[pools]]
name = "big"
provider = "kubernetes"
placement = ["disk == ssd", "spot!=true"]
spread_over = ["topology.kubernetes.io/zone"]
docker = "dind"
dind_runtime = "kata"
registry_mirrors = ["https://mirror.example.com"]
insecure_registries = ["registry.example.com:5000"]
dind_args = ["--mtu=1400"]
dns = ["10.0.0.2"]
extra_hosts = ["a.example.com:10.0.0.3", "b.example.com:10.0.0.3"]
cpus = 1.5
memory_mib = 4096
shm_mib = 256
user = "1001:123"
cap_add = ["cap_sys_ptrace"]
allow_new_privileges = true
platform = "linux/arm64"
volumes = ["cache:/cache", "/srv/data:/data:ro"]
tmpfs = ["/tmp:size=64m"]
pull_policy = "always"
stop_grace_seconds = 30
"#;

fn pool(text: &str) -> PoolConfig {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edgerunner.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), &|_| None).unwrap().pools.remove(0)
}

fn order_of(pool: &PoolConfig, registries: &[Registry]) -> Order {
    let labels = Labels {
        instance: "ci".into(),
        pool: pool.name.clone(),
        runner: format!("ci-{}-1", pool.name),
        host: "github.com".into(),
        target: "repo:acme/app".into(),
        launched_unix_ms: 1_700_000_000_123,
        ..Labels::default()
    };
    let env = vec![
        ("API_KEY".to_owned(), "overridden".into()),
        ("ACTIONS_RUNNER_INPUT_JITCONFIG".to_owned(), "sesame".into()),
        ("API_KEY".to_owned(), "s3cret".into()),
    ];
    Order::new(labels, Images::new(&pool.container, registries), pool, env, 17)
}

fn owner() -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: "ci-runners".into(),
        uid: "0d6c2f1e".into(),
        ..OwnerReference::default()
    }
}

/// The file of this name, from the root: tests are also run without Cargo.
fn expect(name: &str) -> ExpectFile {
    const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/provider/kubernetes/pod");
    expect_file![format!("{DIRECTORY}/{name}.json")]
}

fn written<T: serde::Serialize>(object: &T, expected: &ExpectFile) -> Value {
    let value = serde_json::to_value(object).unwrap();
    expected.assert_eq(&format!("{value:#}\n"));
    value
}

#[test]
fn the_default_is_confined_and_has_no_credentials_in_its_pod() {
    let pool = pool("");
    let pod = pod(&order_of(&pool, &[]), &owner()).unwrap();
    let value = written(&pod, &expect("default"));
    let spec = &value["spec"];
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(spec["automountServiceAccountToken"], false);
    let runner = &spec["containers"][0];
    assert_eq!(runner["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(runner["securityContext"]["capabilities"]["drop"][0], "ALL");
    assert_eq!(runner["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    // The image's entrypoint stays, as with Docker.
    assert_eq!(runner["args"][0], "/home/runner/run.sh");
    assert!(runner["command"].is_null());
    assert!(!value.to_string().contains("s3cret"));
}

#[test]
fn every_setting_that_a_pod_can_have_reaches_it() {
    let mut pool = pool(EVERYTHING);
    pool.container.gpus = None;
    pool.pod_template = Some(
        PodTemplate::parse(
            "metadata: {labels: {team: build}}\nspec:\n  tolerations: [{key: ci, operator: \
             Exists}]\n  priorityClassName: ci\n  containers:\n  - name: runner\n    resources: \
             {requests: {cpu: 500m}}\n",
        )
        .unwrap(),
    );
    let pod = pod(&order_of(&pool, &[]), &owner()).unwrap();
    let value = written(&pod, &expect("everything"));
    let spec = &value["spec"];
    assert_eq!(spec["runtimeClassName"], "kata");
    assert_eq!(spec["priorityClassName"], "ci");
    assert_eq!(spec["nodeSelector"]["kubernetes.io/arch"], "arm64");
    assert_eq!(spec["nodeSelector"]["disk"], "ssd");
    let runner = &spec["containers"][0];
    assert_eq!(runner["resources"]["limits"]["cpu"], "1500m");
    assert_eq!(runner["resources"]["requests"]["cpu"], "500m");
    assert_eq!(runner["securityContext"]["capabilities"]["add"][0], "SYS_PTRACE");
    // Its runtime makes that needless.
    let engine = &spec["initContainers"][1];
    assert_eq!(engine["securityContext"]["privileged"], false);
    assert_eq!(engine["restartPolicy"], "Always");
    let mounts = |container: &Value| -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts.map(|it| it["mountPath"].as_str().unwrap().to_owned()).collect()
    };
    for shared in ["/cache", "/data", "/home/runner/_work", "/home/runner/externals", "/var/run"] {
        for container in [runner, engine] {
            assert!(mounts(container).contains(&shared.to_owned()), "{shared}");
        }
    }
    assert!(!mounts(engine).contains(&"/opt/edgerunner".to_owned()));
}

#[test]
fn gpus_are_a_resource_of_the_runner() {
    let mut pool = pool("");
    pool.container.gpus = Some(crate::config::Gpus::Number(2));
    let pod = pod(&order_of(&pool, &[]), &owner()).unwrap();
    let limits = pod.spec.unwrap().containers.remove(0).resources.unwrap().limits.unwrap();
    assert_eq!(limits["nvidia.com/gpu"].0, "2");
}

#[test]
fn an_engine_is_privileged_unless_its_runtime_makes_that_needless() {
    let pool =
        pool("[kubernetes]\n[runner]\nprovider = \"kubernetes\"\n[docker]\ndocker = \"dind\"");
    let pod = pod(&order_of(&pool, &[]), &owner()).unwrap();
    let value = written(&pod, &expect("dind"));
    assert_eq!(value["spec"]["initContainers"][1]["securityContext"]["privileged"], true);
}

#[test]
fn a_secret_has_the_environment_the_files_and_the_logins() {
    let pool = pool("");
    let mut registry = Registry::default();
    (registry.host, registry.username) = ("ghcr.io".into(), "ci".into());
    registry.password = Some("s3cret".into());
    let mut order = order_of(&pool, &[registry]);
    let path = "/opt/edgerunner/job-started.sh".to_owned();
    order.scripts.push(Script { path, content: b"true".to_vec() });
    let mut created = pod(&order, &owner()).unwrap();
    created.metadata.uid = Some("7c1d".into());
    let spec = created.spec.as_ref().unwrap();
    let pull = &spec.image_pull_secrets.as_ref().unwrap()[0];
    assert_eq!(pull.name, "ci-default-1");
    let files = spec.volumes.as_ref().unwrap()[0].secret.as_ref().unwrap();
    let names: Vec<&str> =
        files.items.as_ref().unwrap().iter().map(|item| item.path.as_str()).collect();
    assert_eq!(names, ["job-started.sh", "runner"]);

    let secret = secret(&order, &created);
    let value = written(&secret, &expect("secret"));
    assert_eq!(value["metadata"]["ownerReferences"][0]["uid"], "7c1d");
    let data = secret.data.unwrap();
    assert_eq!(data["env.API_KEY"].0, b"s3cret");
    let logins: Value = serde_json::from_slice(&data[".dockerconfigjson"].0).unwrap();
    assert_eq!(logins["auths"]["ghcr.io"]["username"], "ci");
}

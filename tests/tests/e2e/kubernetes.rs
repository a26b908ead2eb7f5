//! `packaging/kubernetes/`: the types of its resources, and its filter configurations in a real
//! Envoy.

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Options, SECRET, Stack, Webhook, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::command_line::check;

const SIDECAR: &str = include_str!("../../../packaging/kubernetes/edgerunner.yaml");
const TWO_SIDECARS: &str = include_str!("../../../packaging/kubernetes/high-availability.yaml");
const RUNNERS: &str = include_str!("../../../packaging/kubernetes/runners.yaml");
const ENVOY: &str = include_str!("../../../packaging/kubernetes/envoy.yaml");
const ISTIO: &str = include_str!("../../../packaging/kubernetes/istio.yaml");
const ENVOY_GATEWAY: &str = include_str!("../../../packaging/kubernetes/envoy-gateway.yaml");

/// The name of Envoy's options for HTTP to a cluster.
const HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn resources(text: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(text)?)
}

fn resource(text: &str, kind: &str) -> Result<Value> {
    let found = resources(text)?.into_iter().find(|resource| resource["kind"] == kind);
    found.with_context(|| format!("no {kind}"))
}

/// Fails if the type lacks a field: deserialization drops it.
fn is_known_as<T: DeserializeOwned + Serialize>(resource: &Value) -> Result<()> {
    let known: T = serde_json::from_value(resource.clone())?;
    let known = serde_json::to_value(known)?;
    ensure!(known == *resource, "{resource:#} is read as {known:#}");
    Ok(())
}

#[test]
fn kubernetes_knows_every_field_of_the_sidecars_resources() -> Result<()> {
    let files = [SIDECAR, TWO_SIDECARS, RUNNERS, ENVOY].map(resources);
    for resource in files.into_iter().collect::<Result<Vec<_>>>()?.concat() {
        match resource["kind"].as_str().context("no kind")? {
            "Namespace" => is_known_as::<Namespace>(&resource)?,
            "Secret" => is_known_as::<Secret>(&resource)?,
            "ConfigMap" => is_known_as::<ConfigMap>(&resource)?,
            "PersistentVolumeClaim" => is_known_as::<PersistentVolumeClaim>(&resource)?,
            "Deployment" => is_known_as::<Deployment>(&resource)?,
            "Service" => is_known_as::<Service>(&resource)?,
            "NetworkPolicy" => is_known_as::<NetworkPolicy>(&resource)?,
            "ServiceAccount" => is_known_as::<ServiceAccount>(&resource)?,
            "Role" => is_known_as::<Role>(&resource)?,
            "RoleBinding" => is_known_as::<RoleBinding>(&resource)?,
            "PodDisruptionBudget" => is_known_as::<PodDisruptionBudget>(&resource)?,
            kind => anyhow::bail!("{kind} is not checked"),
        }
    }
    Ok(())
}

/// What the EnvoyPatchPolicy adds to the resources of Envoy of this kind, which is one.
fn envoy_gateways_patches(kind: &str, name: &str) -> Result<Vec<Value>> {
    let policy = resource(ENVOY_GATEWAY, "EnvoyPatchPolicy")?;
    let mut operations = Vec::new();
    for patch in policy["spec"]["jsonPatches"].as_array().context("no patches")? {
        let of_kind = patch["type"].as_str().and_then(|it| it.rsplit('.').next()) == Some(kind);
        if of_kind {
            ensure!(patch["name"] == name && patch["operation"]["op"] == "add", "{patch:#}");
            operations.push(patch["operation"].clone());
        }
    }
    ensure!(!operations.is_empty(), "no patches of {kind}");
    Ok(operations)
}

/// The filter that the Envoy Gateway generates from the EnvoyExtensionPolicy, with the
/// EnvoyPatchPolicy applied.
fn envoy_gateways_filter() -> Result<Value> {
    let policy = resource(ENVOY_GATEWAY, "EnvoyExtensionPolicy")?;
    let name = "envoy.filters.http.wasm/envoyextensionpolicy/edgerunner/edgerunner/wasm/0";
    let wasm = &policy["spec"]["wasm"][0];
    let mut config = json!({
        "name": wasm["name"],
        "vm_config": { "vm_id": name, "runtime": "envoy.wasm.runtime.v8", "code": {} },
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": wasm["config"].to_string(),
        },
        "fail_open": wasm["failOpen"],
    });
    for operation in envoy_gateways_patches("Listener", "edgerunner/edgerunner/https")? {
        let place = format!("..http_filters[?match(@.name, '{name}')].typed_config.config");
        ensure!(operation["jsonPath"] == place, "{operation:#}");
        let field = operation["path"].as_str().and_then(|path| path.strip_prefix('/'));
        config[field.context("no field")?] = operation["value"].clone();
    }
    let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
    Ok(json!({ "name": name, "typed_config": { "@type": wasm, "config": config } }))
}

fn istios_filter() -> Result<Value> {
    let filter = resource(ISTIO, "EnvoyFilter")?;
    let patches = filter["spec"]["configPatches"].as_array().context("no patches")?;
    let added = patches.iter().find(|patch| patch["applyTo"] == "EXTENSION_CONFIG");
    Ok(added.context("no filter")?["patch"]["value"].clone())
}

/// The fields that the Envoy Gateway sets in the sidecar's cluster.
fn envoy_gateways_cluster() -> Result<Value> {
    let policy = resource(ENVOY_GATEWAY, "BackendTrafficPolicy")?;
    let check = &policy["spec"]["healthCheck"];
    let active = &check["active"];
    ensure!(active["type"] == "GRPC", "{active}");
    let keepalive = &policy["spec"]["http2"]["connectionKeepalive"];
    let seconds = |duration: &Value| {
        let ms: Option<u32> =
            duration.as_str().and_then(|text| text.strip_suffix("ms")?.parse().ok());
        let ms = ms.with_context(|| format!("{duration} are no milliseconds"))?;
        anyhow::Ok(format!("{}s", f64::from(ms) / 1_000.0))
    };
    let mut cluster = json!({
        "health_checks": [{
            "timeout": seconds(&active["timeout"])?,
            "interval": seconds(&active["interval"])?,
            "unhealthy_threshold": active["unhealthyThreshold"],
            "healthy_threshold": active["healthyThreshold"],
            "grpc_health_check": { "service_name": active["grpc"]["service"] },
        }],
        "common_lb_config": { "healthy_panic_threshold": { "value": check["panicThreshold"] } },
        "typed_extension_protocol_options": { HTTP: {
            "@type": format!("type.googleapis.com/{HTTP}"),
            "explicit_http_config": { "http2_protocol_options": {
                "connection_keepalive": {
                    "interval": seconds(&keepalive["interval"])?,
                    "timeout": keepalive["timeout"],
                },
            } },
        } },
    });
    let name = &resource(ENVOY_GATEWAY, "EnvoyExtensionPolicy")?["spec"]["wasm"][0]["config"];
    let name = name["sidecar"]["cluster"].as_str().context("no cluster")?;
    for operation in envoy_gateways_patches("Cluster", name)? {
        let path = operation["path"].as_str().and_then(|path| path.rsplit_once('/'));
        let (parent, field) = path.context("no path")?;
        cluster.pointer_mut(parent).context("nothing there")?[field] = operation["value"].clone();
    }
    Ok(cluster)
}

fn istios_cluster() -> Result<Value> {
    let filter = resource(ISTIO, "EnvoyFilter")?;
    let patches = filter["spec"]["configPatches"].as_array().context("no patches")?;
    let merged =
        patches.iter().find(|patch| patch["applyTo"] == "CLUSTER").context("no cluster")?;
    let name = istios_filter()?["typed_config"]["config"]["configuration"]["value"].to_string();
    let cluster = merged["match"]["cluster"]["name"].as_str().context("no name")?;
    ensure!(name.contains(cluster), "{name} does not name {cluster}");
    Ok(merged["patch"]["value"].clone())
}

/// An Envoy with a cluster for the sidecar, named as in the filter's configuration, with these
/// fields.
fn envoy(mut filter: Value, fields: &Value) -> Result<String> {
    let config = &mut filter["typed_config"]["config"];
    config["vm_config"]["code"] =
        json!({ "local": { "filename": "/etc/envoy/edgerunner_filter.wasm" } });
    let settings = config["configuration"]["value"].as_str().context("no configuration")?;
    let settings: Value = serde_json::from_str(settings)?;
    let cluster = &settings["sidecar"]["cluster"];
    let fields = fields.as_object().context("no fields")?.iter();
    let fields: String = fields.map(|(name, value)| format!("      {name}: {value}\n")).collect();
    Ok(format!(
        r#"
admin:
  address: {{socket_address: {{address: 127.0.0.1, port_value: 9901}}}}
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: 8080}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: gateway
                http_filters:
                  - {filter}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - name: webhooks
                      domains: ["*"]
                      routes:
                        - match: {{path_separated_prefix: /webhooks/github}}
                          route: {{cluster: {cluster}}}
                          request_body_buffer_limit: 27262976
  clusters:
    - name: {cluster}
      alt_stat_name: edgerunner_sidecar
      connect_timeout: 1s
      load_assignment:
        cluster_name: {cluster}
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 50051}}}}}}
{fields}"#
    ))
}

#[tokio::test]
async fn the_configuration_of_two_sidecars_in_a_cluster_is_valid() -> Result<()> {
    let secrets = tempfile::TempDir::new()?;
    let path = |name: &str| secrets.path().join(name);
    for name in ["postgres-password", "github-token", "webhook-secret"] {
        std::fs::write(path(name), "sesame")?;
    }
    let configuration = resource(TWO_SIDECARS, "ConfigMap")?["data"]["edgerunner.toml"]
        .as_str()
        .context("no configuration")?
        .replace("/run/secrets/edgerunner", &secrets.path().display().to_string());
    let (output, printed) = check(&configuration, &[]).await?;
    ensure!(output.status.success() && !printed.contains("warning:"), "{printed}");
    Ok(())
}

/// Gateways and rolling updates need more than valid fields.
#[test]
fn two_sidecars_in_a_cluster_are_never_stopped_together() -> Result<()> {
    let deployment = &resource(TWO_SIDECARS, "Deployment")?["spec"];
    let budget = &resource(TWO_SIDECARS, "PodDisruptionBudget")?["spec"];
    ensure!(deployment["replicas"] == 2 && budget["minAvailable"] == 1);
    ensure!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0);
    let labels = &deployment["template"]["metadata"]["labels"];
    let services: Vec<Value> =
        resources(TWO_SIDECARS)?.into_iter().filter(|it| it["kind"] == "Service").collect();
    for selector in services.iter().map(|service| &service["spec"]["selector"]) {
        ensure!(selector == labels, "{selector} does not select {labels}");
    }
    // The gateways' configurations name the one, an Envoy of one's own the other.
    let headless = services.iter().map(|service| service["spec"]["clusterIP"] == "None");
    ensure!(headless.collect::<Vec<_>>() == [false, true], "{services:?}");
    ensure!(budget["selector"]["matchLabels"] == *labels);
    Ok(())
}

/// Uses a sidecar configured as in the cluster, from which the filter gets its secret.
async fn accepts_only_genuine_deliveries(filter: Value, cluster: &Value) -> Result<()> {
    let secrets = tempfile::TempDir::new()?;
    std::fs::write(secrets.path().join("webhook-secret"), SECRET)?;
    let configuration = resource(SIDECAR, "ConfigMap")?["data"]["edgerunner.toml"]
        .as_str()
        .context("no configuration")?
        .replace("/run/secrets/edgerunner", &secrets.path().display().to_string());
    let options = Options::default().file(&configuration).own_envoy(envoy(filter, cluster)?);
    // Of the containers of other tests.
    let options = options.sidecar("DOCKER_NETWORK", "");
    Stack::run(options, async |stack| -> Result<()> {
        eventually("the filter has the secret", async || {
            Ok((stack.send(&Webhook::job(1)).await?.status == 202).then_some(()))
        })
        .await?;
        let forged = stack.send(&Webhook::job(2).signed_with("another secret")).await?;
        assert_eq!(forged.outcome(), "signature_mismatch");
        let large = Webhook::new("workflow_job", vec![b' '; 20 << 20]);
        assert_eq!(stack.send(&large).await?.outcome(), "payload_malformed");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn istios_filter_takes_webhooks() -> Result<()> {
    accepts_only_genuine_deliveries(istios_filter()?, &istios_cluster()?).await
}

#[tokio::test]
async fn envoy_gateways_filter_takes_webhooks() -> Result<()> {
    accepts_only_genuine_deliveries(envoy_gateways_filter()?, &envoy_gateways_cluster()?).await
}

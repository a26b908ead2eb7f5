//! `packaging/kubernetes/`: its resources against published schemas, and its filter
//! configurations in a real Envoy.

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Options, SECRET, Stack, Webhook, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SIDECAR: &str = include_str!("../../../packaging/kubernetes/edgerunner.yaml");
const ISTIO: &str = include_str!("../../../packaging/kubernetes/istio.yaml");
const ENVOY_GATEWAY: &str = include_str!("../../../packaging/kubernetes/envoy-gateway.yaml");

const SCHEMAS: [(&str, &str); 3] = [
    ("networking.istio.io", include_str!("../../schemas/istio.json")),
    ("gateway.networking.k8s.io", include_str!("../../schemas/gateway-api.json")),
    ("gateway.envoyproxy.io", include_str!("../../schemas/envoy-gateway.json")),
];

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
    for resource in resources(SIDECAR)? {
        match resource["kind"].as_str().context("no kind")? {
            "Namespace" => is_known_as::<Namespace>(&resource)?,
            "Secret" => is_known_as::<Secret>(&resource)?,
            "ConfigMap" => is_known_as::<ConfigMap>(&resource)?,
            "PersistentVolumeClaim" => is_known_as::<PersistentVolumeClaim>(&resource)?,
            "Deployment" => is_known_as::<Deployment>(&resource)?,
            "Service" => is_known_as::<Service>(&resource)?,
            "NetworkPolicy" => is_known_as::<NetworkPolicy>(&resource)?,
            kind => anyhow::bail!("{kind} is not checked"),
        }
    }
    Ok(())
}

/// Makes unknown fields an error; Kubernetes drops them.
fn reject_unknown_fields(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut)
        && !properties.is_empty()
    {
        properties.values_mut().for_each(reject_unknown_fields);
        schema.entry("additionalProperties").or_insert(false.into());
    }
    for below in ["items", "additionalProperties"] {
        schema.get_mut(below).map(reject_unknown_fields);
    }
}

#[test]
fn gateways_know_every_field_of_their_resources() -> Result<()> {
    for resource in [resources(ISTIO)?, resources(ENVOY_GATEWAY)?].concat() {
        let kind = resource["kind"].as_str().context("no kind")?;
        let version = resource["apiVersion"].as_str().context("no apiVersion")?;
        let schemas = SCHEMAS.iter().find(|(group, _)| {
            version.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'))
        });
        let (_, schemas) = schemas.with_context(|| format!("no schemas for {version}"))?;
        let mut schemas: Value = serde_json::from_str(schemas)?;
        let schema = schemas.get_mut(kind).with_context(|| format!("no schema for {kind}"))?;
        reject_unknown_fields(schema);
        let validator = jsonschema::validator_for(schema)?;
        let errors: Vec<String> = validator
            .iter_errors(&resource["spec"])
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(errors.is_empty(), "{kind}: {}", errors.join("; "));
    }
    Ok(())
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
    let patches = resource(ENVOY_GATEWAY, "EnvoyPatchPolicy")?;
    for patch in patches["spec"]["jsonPatches"].as_array().context("no patches")? {
        let operation = &patch["operation"];
        let place = format!("..http_filters[?match(@.name, '{name}')].typed_config.config");
        ensure!(operation["op"] == "add" && operation["jsonPath"] == place, "{patch:#}");
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

/// An Envoy with a cluster for the sidecar, named as in the filter's configuration.
fn envoy(mut filter: Value) -> Result<String> {
    let config = &mut filter["typed_config"]["config"];
    config["vm_config"]["code"] =
        json!({ "local": { "filename": "/etc/envoy/edgerunner_filter.wasm" } });
    let settings = config["configuration"]["value"].as_str().context("no configuration")?;
    let settings: Value = serde_json::from_str(settings)?;
    let cluster = &settings["sidecar"]["cluster"];
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
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{http2_protocol_options: {{}}}}
"#
    ))
}

/// Uses a sidecar configured as in the cluster, from which the filter gets its secret.
async fn accepts_only_genuine_deliveries(filter: Value) -> Result<()> {
    let secrets = tempfile::TempDir::new()?;
    std::fs::write(secrets.path().join("webhook-secret"), SECRET)?;
    let configuration = resource(SIDECAR, "ConfigMap")?["data"]["edgerunner.toml"]
        .as_str()
        .context("no configuration")?
        .replace("/run/secrets/edgerunner", &secrets.path().display().to_string());
    let options = Options::default().file(&configuration).own_envoy(envoy(filter)?);
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
    accepts_only_genuine_deliveries(istios_filter()?).await
}

#[tokio::test]
async fn envoy_gateways_filter_takes_webhooks() -> Result<()> {
    accepts_only_genuine_deliveries(envoy_gateways_filter()?).await
}

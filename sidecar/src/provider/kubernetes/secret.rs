//! The Secret beside a runner's pod: its environment, its files, and the logins for its images.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::{
    ByteString,
    api::core::v1::{KeyToPath, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use secrecy::ExposeSecret as _;
use serde_json::{Map, json};

use crate::provider::{
    labels,
    order::{Order, RegistryLogin, Script},
};

const VARIABLE: &str = "env.";
/// A file with the runner's name. There is always a file to mount, because the kubelet then waits
/// for the Secret before it does anything else.
const NAME: &str = "runner";
const LOGINS: &str = ".dockerconfigjson";
/// How Docker's configuration names its own registry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// The key of a variable's value.
pub(super) fn key_of(variable: &str) -> String {
    format!("{VARIABLE}{variable}")
}

/// The files that the runner sees.
pub(super) fn files(order: &Order) -> Vec<KeyToPath> {
    let names = order.scripts.iter().map(file_name).chain([NAME.to_owned()]);
    names.map(|name| KeyToPath { key: name.clone(), path: name, ..KeyToPath::default() }).collect()
}

/// Owned by the pod, so that it goes with it.
pub(super) fn secret(order: &Order, pod: &Pod) -> Secret {
    let runner = &order.labels.runner;
    let value = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data: BTreeMap<String, ByteString> =
        order.env.iter().map(|it| (key_of(&it.name), value(it.value.expose_secret()))).collect();
    let scripts = order.scripts.iter();
    data.extend(scripts.map(|script| (file_name(script), ByteString(script.content.clone()))));
    data.insert(NAME.to_owned(), value(runner));
    let has_logins = !order.images.logins.is_empty();
    if has_logins {
        data.insert(LOGINS.to_owned(), value(&docker_config(&order.images.logins)));
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(runner.clone()),
            labels: Some([(labels::INSTANCE.to_owned(), order.labels.instance.clone())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: runner.clone(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                block_owner_deletion: None,
                controller: None,
            }]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        // Of this type, a pod can pull images with it.
        type_: has_logins.then(|| "kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// The environment that a Secret holds, as `NAME=value`.
pub(super) fn environment(secret: Secret) -> Vec<String> {
    let data = secret.data.unwrap_or_default().into_iter();
    data.filter_map(|(key, ByteString(value))| {
        let name = key.strip_prefix(VARIABLE)?;
        Some(format!("{name}={}", String::from_utf8_lossy(&value)))
    })
    .collect()
}

fn file_name(script: &Script) -> String {
    let name = Path::new(&script.path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn docker_config(logins: &[RegistryLogin]) -> String {
    let auths: Map<_, _> = logins
        .iter()
        .map(|login| {
            let RegistryLogin { host, username, password } = login;
            let password = password.as_ref().map_or("", |it| it.expose_secret());
            let (hub, address) = DOCKER_HUB;
            let server = if host == hub { address } else { host };
            let auth = BASE64_STANDARD.encode(format!("{username}:{password}"));
            let entry = json!({ "username": username, "password": password, "auth": auth });
            (server.to_owned(), entry)
        })
        .collect();
    json!({ "auths": auths }).to_string()
}

"""Fails if a resource of a gateway has a field that its published schema does not know."""

import json
import pathlib
import sys

from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

SCHEMAS = {
    "networking.istio.io": "istio",
    "gateway.networking.k8s.io": "gateway-api",
    "gateway.envoyproxy.io": "envoy-gateway",
}
MANIFESTS = ["istio", "envoy-gateway"]


def reject_unknown_fields(schema):
    """Makes unknown fields an error; Kubernetes drops them."""
    if not isinstance(schema, dict):
        return
    if schema.get("properties"):
        for field in schema["properties"].values():
            reject_unknown_fields(field)
        schema.setdefault("additionalProperties", False)
    for below in ["items", "additionalProperties"]:
        reject_unknown_fields(schema.get(below))


problems = []
for name in MANIFESTS:
    path = pathlib.Path(f"packaging/kubernetes/{name}.yaml")
    for resource in YAML(typ="safe", pure=True).load_all(path):
        kind, group = resource["kind"], resource["apiVersion"].split("/")[0]
        schemas = json.loads(pathlib.Path(f"tests/schemas/{SCHEMAS[group]}.json").read_text())
        reject_unknown_fields(schemas[kind])
        for error in Draft202012Validator(schemas[kind]).iter_errors(resource["spec"]):
            problems.append(f"{path}: {kind}: {error.json_path}: {error.message}")
if problems:
    sys.exit("\n".join(problems))

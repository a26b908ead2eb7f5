"""Renders the Helm chart with several values into the directory that is its argument."""

import pathlib
import platform
import sys

import yaml

if platform.machine() != "x86_64":
    print("the chart is not rendered: Helm's library is published for x86-64 alone")
    sys.exit()

import helm_python

CHART = "packaging/helm/edgerunner"
VALUES = {
    "default": {},
    "two": {
        "replicas": 2,
        "store": {"url": "postgres://edgerunner@postgres.example/edgerunner"},
        "envoy": {"enabled": True, "resources": {"limits": {"memory": "2Gi"}}},
        "resources": {"limits": {"memory": "512Mi"}},
    },
    "other-names": {
        "instance": "ci",
        "runners": {"namespace": "ci", "create": False},
        "store": {"storageClass": "fast"},
        "envoy": {"enabled": True, "service": {"type": "ClusterIP", "annotations": {"a": "b"}}},
    },
}

directory = pathlib.Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
with open("packaging/kubernetes/runners.yaml") as file:
    role = next(it for it in yaml.safe_load_all(file) if it["kind"] == "Role")

for name, values in VALUES.items():
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="edgerunner", namespace="edgerunner")
    resources = [it for text in files.values() for it in yaml.safe_load_all(text) if it]
    (directory / f"{name}.yaml").write_text(yaml.safe_dump_all(resources))
    if name != "other-names":
        rendered = next(it for it in resources if it["kind"] == "Role")
        assert rendered["rules"] == role["rules"], "the chart permits something else"

try:
    with helm_python.Chart.load(CHART) as chart:
        chart.render({"replicas": 2}, name="edgerunner", namespace="edgerunner")
except Exception as error:
    assert "set store.url" in str(error), error
else:
    raise AssertionError("two sidecars cannot share a store in SQLite")

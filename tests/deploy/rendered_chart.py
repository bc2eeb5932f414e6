"""The chart as Helm renders it, for the tests of its resources and of its values."""

from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "dualfocus"
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    **{path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))},
}
# The oldest and the newest that the chart is for.
VERSIONS = ("1.27.0", kubernetes_validate.latest_version())
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}

every_case = pytest.mark.parametrize("case", list(CASES))


def files(values: dict[str, Any], name: str = "demo") -> dict[str, str]:
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(values, name=name, namespace="prod")
    return {Path(name).name: text for name, text in rendered.items()}


def render(values: dict[str, Any], name: str = "demo") -> dict[str, dict[str, Any]]:
    """Return what is rendered, by its kind: there is at most one of each."""
    texts = [text for name, text in files(values, name).items() if name.endswith(".yaml")]
    resources = [resource for text in texts for resource in yaml.safe_load_all(text) if resource]
    kinds = [resource["kind"] for resource in resources]
    assert len(kinds) == len(set(kinds))
    return dict(zip(kinds, resources, strict=True))


def pod(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = resources["Deployment"]["spec"]["template"]["spec"]
    return spec


def server(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (container,) = pod(resources)["containers"]
    return dict(container)


def merged(case: str) -> dict[str, Any]:
    with helm.Chart.load(CHART) as chart:
        return chart.merge_values(CASES[case])

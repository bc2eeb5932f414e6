"""The chart: rendered by Helm's own library, checked against Kubernetes' schemas and against the server."""

import base64
import math
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from dualfocus_server.settings import Settings
from prometheus_client import REGISTRY
from rendered_chart import (
    CASES,
    CHART,
    DEFAULTS,
    DEPLOY,
    OF_OPERATORS,
    VERSIONS,
    every_case,
    files,
    merged,
    pod,
    render,
    server,
)


def test_the_cases_are_those_that_were_promised() -> None:
    assert set(CASES) == {"default", "single-gpu", "tensor-parallel", "many-replicas"}


@every_case
def test_lint_has_nothing_to_say(case: str) -> None:
    report = helm.lint(CHART, CASES[case], strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


RELEASES = ["a" * 53, "b" * 50 + "--c", "c" * 51 + ".d", "7b", "7b-dualfocus", "v1.2", "1." + "d" * 51, "2024"]


@pytest.mark.parametrize("release", RELEASES)
def test_every_releases_name_makes_names_in_kubernetes(release: str) -> None:
    """Those of services hold no dots, and begin with a letter."""
    for resource in render(CASES["many-replicas"], release).values():
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", resource["metadata"]["name"])
        assert resource["metadata"]["labels"]["app.kubernetes.io/instance"] == release


NUMBERS = {
    "secret": {"keys": {"existingSecret": "2024"}},
    "key": {"keys": {"values": ["sesame"], "secretKey": "1"}},
    "hub": {"model": {"from": "hub", "name": "a/b", "hub": {"tokenSecret": "2024", "tokenKey": "1"}}},
    "claims": {
        "model": {"from": "volume", "name": "a", "volume": {"existingClaim": "7"}},
        "cache": {"existingClaim": "8"},
    },
    "class": {"model": {"from": "volume", "name": "a", "volume": {"claim": {"size": "9Gi", "storageClass": "1"}}}},
    "folder": {"model": {"from": "volume", "name": "a", "volume": {"hostPath": "/srv/models, big"}}},
    "namespace": {"networkPolicy": {"enabled": True, "monitoringNamespace": "2024"}},
}


@pytest.mark.parametrize("values", NUMBERS.values(), ids=list(NUMBERS))
def test_names_may_look_like_numbers(values: dict[str, Any]) -> None:
    resources = render(values)
    for kind in resources.keys() - OF_OPERATORS:
        kubernetes_validate.validate(resources[kind], VERSIONS[0], strict=True)
    folders = [volume["hostPath"]["path"] for volume in pod(resources)["volumes"] if "hostPath" in volume]
    assert folders in ([], ["/srv/models, big"])


@every_case
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_is_rendered(case: str, version: str) -> None:
    resources = render(CASES[case])
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= set(resources)
    for kind, resource in resources.items():
        if kind not in OF_OPERATORS:
            kubernetes_validate.validate(resource, version, strict=True)


@every_case
def test_the_server_takes_the_flags(case: str, accepted: Callable[[list[str]], Settings]) -> None:
    accepted(server(render(CASES[case]))["args"])


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"model": {"from": "volume", "name": "a/b", "volume": {"hostPath": "/m"}}}, "/models/a/b"),
        ({"model": {"from": "hub", "name": "org/name"}}, "org/name"),
        ({"model": {"servedName": "ours"}}, "--served-model-name=ours"),
        ({"gpu": {"count": 8}}, "--tensor-parallel-size=8"),
        ({"gpu": {"count": 8, "tensorParallel": 2}}, "--tensor-parallel-size=2"),
        ({"keys": {"values": ["k"]}}, "--api-key-file=/etc/dualfocus/keys"),
        ({"keys": {"existingSecret": "ours", "secretKey": "list"}}, "--api-key-file=/etc/dualfocus/list"),
        ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "--metrics-open"),
        ({"server": {"flags": ["--max-questions=8"]}}, "--max-questions=8"),
        ({"server": {"host": "::"}}, "--host=::"),
    ],
)
def test_values_become_flags(values: dict[str, Any], flag: str, accepted: Callable[[list[str]], Settings]) -> None:
    args = server(render(values))["args"]
    accepted(args)
    assert flag in args
    assert flag not in server(render({}))["args"]


@every_case
def test_probes_ask_what_the_server_answers(case: str, paths: set[str]) -> None:
    container = server(render(CASES[case]))
    (port,) = container["ports"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["path"] for probe in asked.values()} <= paths
    assert {probe["port"] for probe in asked.values()} == {port["name"]}
    assert (asked["liveness"]["path"], asked["readiness"]["path"]) == ("/health", "/ready")
    entry = (DEPLOY.parent / "Dockerfile").read_text().partition("ENTRYPOINT")[2].splitlines()[0]
    assert f'"--port", "{port["containerPort"]}"' in entry


@pytest.mark.parametrize("seconds", [DEFAULTS["probes"]["startupSeconds"], 10, 605, 7200])
def test_a_model_has_its_time_to_load(seconds: int) -> None:
    resources = render({"probes": {"startupSeconds": seconds}})
    probe = server(resources)["startupProbe"]
    assert probe["failureThreshold"] == math.ceil(seconds / probe["periodSeconds"])
    assert resources["Deployment"]["spec"]["progressDeadlineSeconds"] > seconds


def test_a_7b_has_its_time_to_load_by_default() -> None:
    # 15 GB at 20 MB/s, and as long again for the compiler.
    assert DEFAULTS["probes"]["startupSeconds"] >= 1500


@pytest.mark.parametrize("drain", [0, 0.5, 30, 120, 86400])
@pytest.mark.parametrize("leave", [0, 10])
def test_the_grace_is_enough_for_leaving_and_draining(
    drain: float, leave: int, accepted: Callable[[list[str]], Settings]
) -> None:
    resources = render({"server": {"drainTimeout": drain, "leaveSeconds": leave}})
    settings = accepted(server(resources)["args"])
    assert settings.drain_timeout == drain
    assert server(resources)["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(leave)]
    left = pod(resources)["terminationGracePeriodSeconds"] - leave - settings.drain_timeout
    assert 20 <= left <= 21


def test_draining_is_the_servers_own_by_default() -> None:
    assert DEFAULTS["server"]["drainTimeout"] == Settings().drain_timeout


@every_case
def test_nothing_is_allowed_that_is_not_needed(case: str) -> None:
    spec = pod(render(CASES[case]))
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {spec['securityContext']['runAsUser']}:" in (DEPLOY.parent / "Dockerfile").read_text()
    assert server(render(CASES[case]))["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@every_case
def test_what_the_image_writes_to_is_mounted(case: str) -> None:
    resources = render(CASES[case])
    mounted = {mount["mountPath"]: mount for mount in server(resources)["volumeMounts"]}
    assert {"/var/cache/dualfocus", "/tmp", "/dev/shm"} <= set(mounted)
    assert {mount["name"] for mount in mounted.values()} == {volume["name"] for volume in pod(resources)["volumes"]}


@every_case
def test_gpus_are_asked_for_and_used(case: str, accepted: Callable[[list[str]], Settings]) -> None:
    count = merged(case)["gpu"]["count"]
    container = server(render(CASES[case]))
    assert container["resources"]["limits"]["nvidia.com/gpu"] == count
    assert (f"--tensor-parallel-size={count}" in container["args"]) is (count > 1)


def test_without_a_gpu_none_is_asked_for() -> None:
    assert set(server(render({"gpu": {"count": 0}}))["resources"]["limits"]) == {"memory"}


def test_tensors_are_shared_in_memory() -> None:
    volumes = {volume["name"]: volume for volume in pod(render(CASES["tensor-parallel"]))["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}


@pytest.mark.parametrize(
    ("volume", "source"),
    [
        ({"existingClaim": "models"}, {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}),
        ({"hostPath": "/srv/models"}, {"hostPath": {"path": "/srv/models", "type": "Directory"}}),
        (
            {"claim": {"size": "30Gi"}},
            {"persistentVolumeClaim": {"claimName": "demo-dualfocus-models", "readOnly": True}},
        ),
    ],
)
def test_models_come_from_a_volume(volume: dict[str, Any], source: dict[str, Any]) -> None:
    resources = render({"model": {"from": "volume", "name": "ours", "volume": volume}})
    mounted = {mount["name"]: mount for mount in server(resources)["volumeMounts"]}
    assert mounted["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert {"name": "models", **source} in pod(resources)["volumes"]
    if "claim" in volume:
        claim = resources["PersistentVolumeClaim"]
        kubernetes_validate.validate(claim, VERSIONS[-1], strict=True)
        assert claim["metadata"]["name"] == "demo-dualfocus-models"
    else:
        assert "PersistentVolumeClaim" not in resources


def test_a_hubs_token_comes_from_its_secret_and_no_hub_is_asked_otherwise() -> None:
    assert server(render(CASES["tensor-parallel"]))["env"] == [
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub-token", "key": "token"}}}
    ]
    assert server(render(CASES["single-gpu"]))["env"] == [{"name": "HF_HUB_OFFLINE", "value": "1"}]


def test_keys_lie_in_a_secret_and_nowhere_else() -> None:
    resources = render(CASES["many-replicas"])
    assert base64.b64decode(resources["Secret"]["data"]["keys"]) == b"first-key\nsecond-key"
    assert "first-key" not in "".join(files(CASES["many-replicas"]).values())
    secrets = [volume["secret"] for volume in pod(resources)["volumes"] if "secret" in volume]
    assert [secret["secretName"] for secret in secrets] == [resources["Secret"]["metadata"]["name"]]


def test_a_secret_that_is_there_is_used() -> None:
    resources = render(CASES["single-gpu"])
    assert "Secret" not in resources
    assert {"name": "keys", "secret": {"secretName": "dualfocus-keys", "defaultMode": 0o440}} in pod(resources)[
        "volumes"
    ]


@every_case
def test_everything_means_the_same_pods(case: str) -> None:
    resources = render(CASES[case])
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        resources["Deployment"]["spec"]["selector"]["matchLabels"],
        resources["Service"]["spec"]["selector"],
        resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod(resources)["topologySpreadConstraints"]),
    ]
    assert all(selector.items() <= labels and len(selector) == 2 for selector in selectors)


def known_metrics() -> set[str]:
    from dualfocus_server.telemetry.metrics import watch_places  # which registers them

    watch_places(lambda: (0, 0))
    return {metric.name for metric in REGISTRY.collect() if metric.name.startswith("dualfocus_")}


def test_replicas_follow_the_projects_own_metrics_by_hpa() -> None:
    resources = render({"autoscaling": {"by": "hpa", "minReplicas": 2, "questions": 24}})
    scaler = resources["HorizontalPodAutoscaler"]
    kubernetes_validate.validate(scaler, VERSIONS[-1], strict=True)
    metrics = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert metrics == {"dualfocus_questions_running", "dualfocus_questions_waiting"} & known_metrics()
    assert scaler["spec"]["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]
    assert "replicas" not in resources["Deployment"]["spec"]


def test_replicas_follow_the_projects_own_metrics_by_keda() -> None:
    resources = render(CASES["many-replicas"])
    spec = resources["ScaledObject"]["spec"]
    trigger = spec["triggers"][0]["metadata"]
    pods = '{namespace="prod", service="demo-dualfocus"}'
    named = ("dualfocus_questions_running", "dualfocus_questions_waiting")
    assert trigger["query"] == " + ".join(f"sum({name}{pods})" for name in named)
    assert set(named) <= known_metrics()
    assert trigger["threshold"] == "24"
    assert trigger["ignoreNullValues"] == "false"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 16)
    assert spec["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]
    assert "replicas" not in resources["Deployment"]["spec"]


def test_replicas_are_those_asked_for_otherwise() -> None:
    assert render({"replicas": 3})["Deployment"]["spec"]["replicas"] == 3


def test_replicas_are_spread() -> None:
    spread = pod(render(CASES["many-replicas"]))["topologySpreadConstraints"]
    assert {each["topologyKey"]: each["whenUnsatisfiable"] for each in spread} == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }
    # Neither a rollout's old pods nor nodes whose taints keep them off are counted.
    assert all(each["matchLabelKeys"] == ["pod-template-hash"] for each in spread)
    assert all(each["nodeTaintsPolicy"] == "Honor" for each in spread)
    assert {each["maxSkew"] for each in spread} == {1}


@every_case
def test_replicas_that_must_be_spread_are_kept_to_the_nodes_with_gpus(case: str) -> None:
    spec = pod(render(CASES[case]))
    must = any(each["whenUnsatisfiable"] == "DoNotSchedule" for each in spec["topologySpreadConstraints"])
    assert "nodeSelector" in spec or not must
    # What `nodeSelector` leaves out is not counted, unless this says otherwise.
    assert not any("nodeAffinityPolicy" in each for each in spec["topologySpreadConstraints"])


def test_the_rules_are_those_of_prometheus() -> None:
    rule = render(CASES["many-replicas"])["PrometheusRule"]
    rules = (DEPLOY / "prometheus" / "rules" / "dualfocus.yml").read_text()
    own = 'up{job="dualfocus",namespace="prod",service="demo-dualfocus"}'
    assert rule["spec"] == yaml.safe_load(rules.replace('up{job="dualfocus"}', own))
    assert rule["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(("seconds", "minutes"), [(10, 6), (1800, 35), (7200, 125)])
def test_a_model_that_still_may_load_raises_no_alert(seconds: int, minutes: int) -> None:
    values = {"probes": {"startupSeconds": seconds}, "monitoring": {"rules": {"enabled": True}}}
    groups = render(values)["PrometheusRule"]["spec"]["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts["DualFocusStillDown"]["for"] == f"{minutes}m"


def test_a_packed_chart_holds_the_rules(tmp_path: Path) -> None:
    with helm.Chart.load(CHART) as chart:
        packed = chart.save(tmp_path)
    with helm.Chart.load(packed) as chart:
        texts = chart.render(CASES["many-replicas"], name="demo", namespace="prod").values()
    assert any("alert: DualFocusDown" in text for text in texts)


def test_the_monitor_scrapes_the_service_under_the_name_that_rules_know(paths: set[str]) -> None:
    resources = render(CASES["many-replicas"])
    spec = resources["ServiceMonitor"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= resources["Service"]["metadata"]["labels"].items()
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in {port["name"] for port in resources["Service"]["spec"]["ports"]}
    assert endpoint["path"] in paths
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": scraped["job_name"]}]


def egress_ports(values: dict[str, Any]) -> set[int]:
    egress = render(values)["NetworkPolicy"]["spec"]["egress"]
    return {port["port"] for rule in egress for port in rule["ports"]}


def test_the_network_is_closed_but_for_what_was_asked() -> None:
    assert egress_ports({}) == {53}
    assert egress_ports({"model": {"from": "hub", "name": "a"}}) == {53, 80, 443}
    assert egress_ports({"networkPolicy": {"internet": True}}) == {53, 80, 443}
    assert egress_ports(CASES["tensor-parallel"]) == {53, 80, 443, 4317}
    assert "NetworkPolicy" not in render({"networkPolicy": {"enabled": False}})
    internet = render({"networkPolicy": {"internet": True}})["NetworkPolicy"]["spec"]["egress"][1]["to"][0]["ipBlock"]
    closed = [ip_network(network) for network in internet["except"]]
    for metadata in ("169.254.169.254", "168.63.129.16", "192.0.0.192", "100.100.100.200", "10.0.0.1"):
        assert any(ip_address(metadata) in network for network in closed), metadata


def test_who_may_ask_is_the_namespace_or_who_is_named() -> None:
    (rule,) = render({})["NetworkPolicy"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {}}]
    named = [{"namespaceSelector": {"matchLabels": {"team": "vision"}}}]
    policy = {"from": named, "monitoringNamespace": "monitoring"}
    (rule,) = render({"networkPolicy": policy})["NetworkPolicy"]["spec"]["ingress"]
    watching = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert rule["from"] == [*named, watching]


def test_the_notes_say_what_runs_and_how_to_ask() -> None:
    notes = files(CASES["single-gpu"])["NOTES.txt"]
    assert "llava-dualfocus-7b from a volume" in notes
    assert "Authorization: Bearer" in notes
    assert "without a key" in files({})["NOTES.txt"]


def test_the_chart_is_of_the_projects_version() -> None:
    with helm.Chart.load(CHART) as chart:
        version = chart.metadata["appVersion"]
    assert f'version = "{version}"' in (DEPLOY.parent / "pyproject.toml").read_text()

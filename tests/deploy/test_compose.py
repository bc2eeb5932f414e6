"""deploy/compose, read as compose reads it: every variable with its default."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dualfocus_server.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
DEPLOY = FOLDER.parent
TEXT = (FOLDER / "compose.yaml").read_text()
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
COMPOSE = yaml.safe_load(VARIABLE.sub(lambda found: found[2], TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = ("gpu", "cpu")


def inner_ports(service: str) -> list[str]:
    return [port.rpartition(":")[2] for port in SERVICES[service]["ports"]]


def test_every_variable_is_in_the_example_with_its_default() -> None:
    lines = [line for line in (FOLDER / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    written = dict(line.split("=", 1) for line in lines)
    used: dict[str, set[str]] = {}
    for name, default in VARIABLE.findall(TEXT):
        used.setdefault(name, set()).add(default)
    assert used == {name: {value} for name, value in written.items()}


@pytest.mark.parametrize("service", list(SERVICES))
def test_what_is_mounted_is_there(service: str) -> None:
    for volume in SERVICES[service]["volumes"]:
        source, _, _ = volume.partition(":")
        if source.startswith("../"):
            assert (FOLDER / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"] or source == "./models"


@pytest.mark.parametrize("service", list(SERVICES))
def test_every_service_is_held_short(service: str) -> None:
    asked = SERVICES[service]
    assert (asked["restart"], asked["read_only"], asked["tmpfs"]) == ("unless-stopped", True, ["/tmp"])
    assert asked["cap_drop"] == ["ALL"]
    assert asked["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in asked["ports"])


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_images_of_others_are_pinned_and_asked_for_their_health(service: str) -> None:
    assert re.fullmatch(r"docker\.io/[\w/]+:v?\d+\.\d+\.\d+", SERVICES[service]["image"])
    assert f":{inner_ports(service)[0]}/" in SERVICES[service]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("service", SERVERS)
def test_the_server_is_built_here_and_comes_up_by_its_profile(service: str) -> None:
    dockerfile = (FOLDER / SERVICES[service]["build"]["context"] / "Dockerfile").read_text()
    assert f" AS {SERVICES[service]['build']['target']}\n" in dockerfile
    assert SERVICES[service]["profiles"] == [service]


def test_what_watches_comes_up_with_any_profile() -> None:
    assert not [name for name in SERVICES if name not in SERVERS and "profiles" in SERVICES[name]]


@pytest.mark.parametrize("service", SERVERS)
def test_the_server_takes_the_flags_and_stops_after_its_questions(
    service: str, accepted: Callable[[list[str]], Settings]
) -> None:
    settings = accepted(shlex.split(SERVICES[service]["command"]))
    assert settings.metrics_open
    assert int(SERVICES[service]["stop_grace_period"].removesuffix("s")) > settings.drain_timeout
    given = VARIABLE.sub(
        lambda found: {"DUALFOCUS_MODEL": "/models/mine", "DUALFOCUS_FLAGS": "--timeout 60"}[found[1]],
        yaml.safe_load(TEXT)["services"][service]["command"],
    )
    assert accepted(shlex.split(given)).timeout == 60


def test_a_gpu_is_asked_for_by_its_service_alone() -> None:
    assert SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "deploy" not in SERVICES["cpu"]


@pytest.mark.parametrize("service", SERVERS)
def test_prometheus_scrapes_the_server_by_its_name(service: str) -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    aliases = SERVICES[service]["networks"]["default"]["aliases"]
    assert targets == [f"{aliases[0]}:{inner_ports(service)[0]}"]


def test_prometheus_finds_its_rules() -> None:
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"])
    assert mounted["../prometheus/prometheus.yml"] == "/etc/prometheus/prometheus.yml"
    assert mounted["../prometheus/rules"] == "/etc/prometheus/rules"
    named = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["rule_files"]
    assert all(list((DEPLOY / "prometheus").glob(pattern)) for pattern in named)


def test_grafana_asks_prometheus_by_its_name_and_finds_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == f"http://prometheus:{inner_ports('prometheus')[0]}"
    provider = yaml.safe_load((provisioning / "dashboards" / "dualfocus.yaml").read_text())["providers"][0]
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert provider["options"]["path"] == mounted["../grafana/dashboards"]

"""The rules and the dashboard, on a real Prometheus that scrapes a real server under load."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from asking import About, ask
from openai import BadRequestError, OpenAI
from running_server import PATIENCE, Server
from unit.local_web import respond, serving

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "dualfocus.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "dualfocus.json").read_text())

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="SKIPPED, UNTESTED: rules and dashboard need Debian's package prometheus"
)


def expressions() -> list[Any]:
    """What every panel of the dashboard asks, with its variables filled in as Grafana does."""
    return [
        pytest.param(
            re.sub(r"\$(job|namespace|service)", ".*", target["expr"].replace("$__rate_interval", "1m")),
            id=f"{panel['title']}-{n}",
        )
        for panel in DASHBOARD["panels"]
        for n, target in enumerate(panel.get("targets", ()))
    ]


@pytest.fixture(scope="module")
def gpu_exporter() -> Iterator[str]:
    """Names GPU memory as NVIDIA's exporter does."""
    memory = b'DCGM_FI_DEV_FB_USED{gpu="0"} 20000\nDCGM_FI_DEV_FB_FREE{gpu="0"} 60000\n'
    with serving({"/metrics": respond(body=memory, Content_Type="text/plain")}) as web:
        yield web.address.removeprefix("http://")


@pytest.fixture(scope="module")
def prometheus(server: Server, gpu_exporter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with the repository's rules. A scrape may take as long as lies between two of them."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    config["rule_files"] = [str(RULES)]
    jobs = {"dualfocus": server.url.removeprefix("http://"), "gpu": gpu_exporter}
    config["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in jobs.items()
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = _free_address()
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *flags, f"--web.listen-address={address}"], stderr=log, stdout=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=PATIENCE) as client:
            _until_ready(client, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _until_ready(client: httpx.Client, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if client.get("/-/ready").is_success:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def load(prometheus: httpx.Client, client: OpenAI, about: About) -> Callable[[], None]:
    """Asks what every panel counts: all modes, and an error."""

    def once() -> None:
        for mode in ("dual", "regions", "search", "adaptive", "macro", "micro", "off"):
            ask(client, about("astronaut", "What is on the badge?"), {"mode": mode}, max_tokens=4)
        with pytest.raises(BadRequestError):
            ask(client, about("astronaut", "What?"), {"mode": "none"})

    return once


def _result(prometheus: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    return [row for row in answer["data"]["result"] if row["value"][1] != "NaN"]


def _until_known(prometheus: httpx.Client, expression: str, load: Callable[[], None]) -> None:
    """Ask the server until Prometheus has data: a rate takes two scrapes, with questions between them."""
    until = time.monotonic() + PATIENCE
    while not _result(prometheus, expression):
        assert time.monotonic() < until, f"no data: {expression}"
        load()
        time.sleep(0.2)


@pytest.mark.parametrize("expression", expressions())
def test_every_panel_has_data(prometheus: httpx.Client, load: Callable[[], None], expression: str) -> None:
    _until_known(prometheus, expression, load)


def test_every_recorded_series_has_data(prometheus: httpx.Client, load: Callable[[], None]) -> None:
    recorded = [
        rule["record"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    assert len(recorded) == 8
    for name in recorded:
        if name != "dualfocus:degraded:share":  # nothing was degraded
            _until_known(prometheus, name, load)


def test_alerts_are_known_and_quiet(prometheus: httpx.Client) -> None:
    rules = prometheus.get("/api/v1/rules", params={"type": "alert"}).json()["data"]["groups"]
    alerts = {rule["name"]: rule for group in rules for rule in group["rules"]}
    assert len(alerts) == 8
    # A slow machine may be slow, and miss a scrape; for minutes, which is what is told of, it does not.
    states = {name: alert["state"] for name, alert in alerts.items()}
    may_wait = ("DualFocusDown", "DualFocusStillDown", "DualFocusSlow")
    assert {states.pop(name) for name in may_wait} <= {"inactive", "pending"}
    assert set(states.values()) == {"inactive"}
    assert {alert["health"] for alert in alerts.values()} <= {"ok", "unknown"}


def test_rules_pass_their_own_tests() -> None:
    for command in (["check", "rules", RULES], ["check", "config", DEPLOY / "prometheus" / "prometheus.yml"]):
        subprocess.run(["promtool", *command], check=True, capture_output=True)
    tests = DEPLOY / "prometheus" / "tests" / "dualfocus.yml"
    done = subprocess.run(
        ["promtool", "test", "rules", tests], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rate_holds_four_scrapes() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    chart = yaml.safe_load((DEPLOY / "helm" / "dualfocus" / "values.yaml").read_text())
    intervals = {config["global"]["scrape_interval"], chart["monitoring"]["serviceMonitor"]["interval"]}
    longest = max(int(interval.removesuffix("s")) for interval in intervals)
    windows = re.findall(r"rate\(.*?\[(\d+)m\]\)", RULES.read_text())
    assert windows
    assert min(map(int, windows)) * 60 >= 4 * longest


def test_every_alert_has_a_test_and_is_described() -> None:
    alerts = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
    ]
    tests = yaml.safe_load((DEPLOY / "prometheus" / "tests" / "dualfocus.yml").read_text())["tests"]
    raised = {case["alertname"] for test in tests for case in test["alert_rule_test"] if "exp_alerts" in case}
    assert raised == {alert["alert"] for alert in alerts}
    assert all({"summary", "description"} == set(alert["annotations"]) for alert in alerts)

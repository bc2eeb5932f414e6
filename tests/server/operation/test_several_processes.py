"""`--api-server-count 2`: two processes before one engine are one server to whoever asks it."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from asking import CHAT, About, check_log
from odd_values import check_ready
from running_server import PATIENCE, Server, engine_process, frozen_engine, start_server, wait_until

pytestmark = pytest.mark.slow

TWO = ("--api-server-count", "2")
KEYS = ("--api-key", "one", "other", "--admin-api-key", "admin")
LIMITS = ("--max-questions", "2", "--max-queued", "1", "--max-questions-per-key", "2")
# A connection that was closed would be made anew to any of them.
KEPT_OPEN = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600"}
TURNS = 3
PHOTOS = ("coffee", "chelsea")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("two") / "log"
    environment = {**KEPT_OPEN, "VLLM_SERVER_DEV_MODE": "1"}
    running = start_server(log, *TWO, *KEYS, *LIMITS, "--drain-timeout", str(PATIENCE), environment=environment)
    yield running
    running.process.kill()  # where the last test has not ended it


def answering(server: Server) -> list[psutil.Process]:
    """The processes that answer requests, in their order."""
    children = psutil.Process(server.process.pid).children()
    return sorted((child for child in children if "APIServer" in " ".join(child.cmdline())), key=name_of)


def name_of(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def connected(server: Server, to: psutil.Process, key: str = "one") -> httpx.Client:
    """Return a client whose one connection is to that process."""
    with ExitStack() as others:  # kept meanwhile, so that the next one is another's
        for _ in range(100):
            http = httpx.Client(
                base_url=server.url,
                timeout=PATIENCE,
                headers={"Authorization": f"Bearer {key}"},
                limits=httpx.Limits(max_connections=1, keepalive_expiry=None),
            )
            stream = http.get("/health").extensions["network_stream"]
            port = stream.get_extra_info("client_addr")[1]
            if any(connection.raddr and connection.raddr.port == port for connection in to.net_connections("tcp")):
                return http
            others.callback(http.close)
    raise AssertionError("it takes no connection")


@pytest.fixture(scope="module")
def each(server: Server) -> Iterator[list[httpx.Client]]:
    """A client of each process."""
    clients = [connected(server, process) for process in answering(server)]
    assert len(clients) == 2
    return clients


def body(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"messages": messages, "max_tokens": 4, **more}


def asked(http: httpx.Client, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Ask, and return the answer."""
    answer = http.post(CHAT, json=body(messages, **more))
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def total(http: httpx.Client, name: str) -> float:
    """Add up what a metric says under all its labels."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def refused(http: httpx.Client, messages: list[dict[str, Any]]) -> tuple[int, str]:
    answer = http.post(CHAT, json=body(messages))
    return answer.status_code, answer.json()["error"]["message"]


def test_keys_are_asked_for_by_each(server: Server, each: list[httpx.Client], about: About) -> None:
    for process in answering(server):
        with closing(connected(server, process, key="wrong")) as http:
            assert refused(http, about("coffee", "What?"))[0] == 401
    for http in each:
        check_ready(http)
        assert http.get("/v1/models").status_code == 200


def test_metrics_are_of_all_whichever_is_asked(each: list[httpx.Client], about: About) -> None:
    asked(each[0], about("moon", "What is it?"))  # what was never counted is not there
    names = ("dualfocus_questions_total", "dualfocus_question_seconds_count", "vllm:request_success_total")
    before = [total(each[0], name) for name in names]
    for times, http in zip((1, 2), each, strict=True):
        for _ in range(times):
            asked(http, about("moon", "What is it?"))
    for http in each:
        grown = [total(http, name) - value for name, value in zip(names, before, strict=True)]
        assert grown == [3, 3, 3 * TURNS]
        assert total(http, "dualfocus_unfinished_turns") == 0
        text = http.get("/metrics").text
        memory = re.findall(r'^process_resident_memory_bytes\{process="(\w+)"\}', text, re.MULTILINE)
        assert sorted(memory) == ["0", "1", "parent"]
        assert len(re.findall(r"^dualfocus_questions_running ", text, re.MULTILINE)) == 1
        assert len(re.findall(r"^vllm:num_requests_running\{", text, re.MULTILINE)) == 1


def test_limits_hold_over_both(server: Server, each: list[httpx.Client], about: About) -> None:
    of_one = about("coffee", "What?")
    processes = answering(server)
    others = [connected(server, process, key="other") for process in processes]
    with ThreadPoolExecutor(3) as threads, frozen_engine(server):
        running: list[Future[dict[str, Any]]] = [threads.submit(asked, http, of_one) for http in each]
        watch = connected(server, processes[0]), connected(server, processes[1])
        wait_until(lambda: total(watch[0], "dualfocus_questions_running") == 2)
        for http in watch:
            assert refused(http, of_one)[0] == 429
            assert "one client" in refused(http, of_one)[1]
        running.append(threads.submit(asked, others[0], of_one))
        wait_until(lambda: total(watch[1], "dualfocus_questions_waiting") == 1)
        for process, http in zip(processes, watch, strict=True):
            assert total(http, "dualfocus_questions_running") == 2
            assert http.get("/load").json() == {"server_load": 3}
            with closing(connected(server, process, key="other")) as more:
                status, why = refused(more, of_one)
            assert (status, "all the server takes" in why) == (429, True)
    assert all(future.result(PATIENCE)["choices"] for future in running)
    assert each[0].get("/load").json() == {"server_load": 0}


def test_a_picture_that_was_sent_through_one_is_named_through_the_other(
    each: list[httpx.Client], image_part: Callable[[str], dict[str, Any]]
) -> None:
    for number in range(4):  # names are some the one's to know, and some the other's
        uuid = f"picture {number}"
        for to, part in (
            (each[number % 2], image_part("coffee") | {"uuid": uuid}),
            (each[1 - number % 2], {"type": "image_url", "image_url": None, "uuid": uuid}),
        ):
            content = [part, {"type": "text", "text": "What is it?"}]
            assert asked(to, [{"role": "user", "content": content}])["dualfocus"]["micro"]


def test_a_known_picture_is_processed_once_by_each_and_encoded_once(each: list[httpx.Client], about: About) -> None:
    """What vLLM's cache that one process shares with its engine would save: the second process's processing."""
    seen = []
    for http in (each[0], each[0], each[1], each[1]):
        queries, hits = (total(http, f"vllm:mm_cache_{name}_total") for name in ("queries", "hits"))
        turns = asked(http, about("rocket", "What is it?"))["dualfocus"]["turns"]
        wait_until(lambda http=http, queries=queries: total(http, "vllm:mm_cache_queries_total") > queries)
        missed = (total(http, "vllm:mm_cache_queries_total") - queries) - (
            total(http, "vllm:mm_cache_hits_total") - hits
        )
        seen.append((missed, sum(turn["encoder_runs"] for turn in turns.values())))
    assert seen == [(2, 2), (0, 0), (2, 0), (0, 0)]


def test_administrators_put_the_engine_asleep_by_one_and_wake_it_by_the_other(
    server: Server, each: list[httpx.Client], about: About
) -> None:
    admins = [connected(server, process, key="admin") for process in answering(server)]
    assert admins[0].post("/sleep", params={"level": 0}).status_code == 200
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(asked, each[0], about("coffee", "What?"))
        wait_until(lambda: total(admins[1], "dualfocus_questions_waiting") == 1)
        assert admins[1].get("/is_sleeping").json() == {"is_sleeping": True}
        assert {http.get("/ready").json()["error"]["code"] for http in admins} == {"asleep"}
        assert admins[1].post("/wake_up").json()["status"] == "awake"
        assert asking.result(PATIENCE)["choices"]
    before = total(each[1], "vllm:mm_cache_hits_total")
    assert admins[0].post("/reset_mm_cache").status_code == 200
    assert asked(each[1], about("coffee", "What?"))["choices"]
    assert total(each[1], "vllm:mm_cache_hits_total") - before < TURNS + 1, "the other process has not forgotten"


def test_told_to_stop_each_finishes_what_it_has(server: Server, each: list[httpx.Client], about: About) -> None:
    probes = [connected(server, process) for process in answering(server)]
    with ThreadPoolExecutor(2) as threads:
        with frozen_engine(server):
            running = [threads.submit(asked, http, about("coffee", "Tell.")) for http in each]
            wait_until(lambda: total(probes[0], "dualfocus_questions_running") == 2)
            os.killpg(server.process.pid, signal.SIGTERM)  # as most supervisors do: the parent is to say what it means
            for http in probes:
                wait_until(lambda http=http: http.get("/ready").status_code == 503)
                assert http.get("/health").status_code == 200
                assert refused(http, about("coffee", "What?"))[0] == 503
        assert all(future.result(PATIENCE)["choices"] for future in running)
    assert server.process.wait(PATIENCE) == 0
    check_log(server)


@pytest.mark.parametrize("killed", ["engine", "process"])
def test_one_that_is_killed_ends_all(tmp_path: Path, about: About, killed: str) -> None:
    server = start_server(tmp_path / "log", *TWO, environment=KEPT_OPEN)
    processes = answering(server)
    victim = engine_process(server) if killed == "engine" else processes[1].pid
    with ThreadPoolExecutor(1) as threads, ExitStack() as open_clients:
        http, watch = (open_clients.enter_context(closing(connected(server, processes[0]))) for _ in range(2))
        with frozen_engine(server):
            asking = threads.submit(http.post, CHAT, json=body(about("coffee", "What?")))
            wait_until(lambda: total(watch, "dualfocus_questions_running") == 1)
            os.kill(victim, signal.SIGKILL)
            answer = asking.result(PATIENCE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
    assert server.process.wait(PATIENCE) == 1
    log = server.log.read_text()
    why = "The engine's process has ended" if killed == "engine" else r"\(APIServer_1\) has ended \(exit code -9\)"
    assert len(re.findall(f"CRITICAL.*{why}.* The server stops", log)) == log.count("CRITICAL") == 1
    wait_until(lambda: not any(process.is_running() for process in processes))

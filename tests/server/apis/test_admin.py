"""Administrators' routes on a running server: questions go on while caches are reset, and no secret is told."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asking import CHAT
from hostile_images import data_url, png
from odd_values import check_ready
from running_server import PATIENCE, Server, start_server

ADMIN, ORDINARY = {"Authorization": "Bearer admins-key"}, {"Authorization": "Bearer ordinary-key"}
SECRETS = {"HF_TOKEN": "hub-token-of-ours", "SOME_PASSWORD": "password-of-ours"}
ASKED = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_API_KEY": "ordinary-key"}
RESETS = ("/reset_mm_cache", "/reset_encoder_cache", "/reset_prefix_cache")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in vLLM's development mode, with keys for both."""
    log = tmp_path_factory.mktemp("admin") / "log"
    flags = ("--admin-api-key", "admins-key", "--max-model-len", "512")
    running = start_server(log, *flags, environment={**ASKED, **SECRETS})
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def web(served: Server) -> Iterator[httpx.Client]:
    """A client with an administrator's key."""
    with httpx.Client(base_url=served.url, timeout=PATIENCE, headers=ADMIN) as http:
        yield http


def question(side: int, mode: str) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": data_url(png(side, side))}}
    content = [picture, {"type": "text", "text": "What is it?"}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4, "dualfocus": {"mode": mode}}


async def test_questions_go_on_while_caches_are_reset(served: Server) -> None:
    """Pictures known and new, by two looks and by vLLM: its image cache must not take one for sent that is not."""
    bodies = [question(side, mode) for _ in range(5) for side in (8, 9, 10) for mode in ("dual", "off", "macro")]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE, limits=limits) as http:

        async def reset(path: str) -> list[int]:
            return [(await http.post(path, headers=ADMIN)).status_code for _ in range(5)]

        asking = [http.post(CHAT, json=body, headers=ORDINARY) for body in bodies]
        *answers, first, second, third = await asyncio.gather(*asking, *map(reset, RESETS))
    assert first == second == third == [200] * 5
    for answer in answers:
        assert isinstance(answer, httpx.Response)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_reset_forgets_what_was_computed(web: httpx.Client) -> None:
    """Counted: a known picture costs no encoder run, one that was forgotten costs it again."""
    body = question(21, "macro")

    def runs() -> Any:
        return web.post(CHAT, json=body).json()["dualfocus"]["turns"]["macro"]["encoder_runs"]

    assert [runs(), runs()] == [1, 0]
    for path in RESETS:
        assert web.post(path).status_code == 200
    assert [runs(), runs()] == [1, 0]


@pytest.mark.parametrize("level", [0, 1])
async def test_questions_wait_while_the_engine_sleeps(served: Server, level: int) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE, headers=ADMIN) as http:
        assert (await http.post(f"/sleep?level={level}")).json() == {"status": "sleeping", "level": level}
        asking = [asyncio.create_task(http.post(CHAT, json=question(8, mode))) for mode in ("dual", "off")]
        while (await http.get("/load")).json()["server_load"] < 2:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0.02)
        assert (await http.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert not any(task.done() for task in asking)
        assert (await http.post("/reset_mm_cache")).status_code == 200
        assert (await http.post("/wake_up")).json()["status"] == "awake"
        assert [(await task).status_code for task in asking] == [200, 200]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_told(web: httpx.Client, form: str) -> None:
    answer = web.get(f"/server_info?config_format={form}")
    assert answer.status_code == 200
    assert "512" in answer.text
    for secret in (*SECRETS.values(), "ordinary-key", "admins-key"):
        assert secret not in answer.text


def test_who_has_an_ordinary_key_is_told_what_is_needed(served: Server) -> None:
    for path in (*RESETS, "/sleep", "/wake_up", "/collective_rpc", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        assert httpx.post(f"{served.url}{path}", headers=ORDINARY).status_code == 403
        assert httpx.post(f"{served.url}{path}").status_code == 401


def test_what_can_not_be_done_ends_nothing(web: httpx.Client) -> None:
    asked: list[tuple[str, Any]] = [
        ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/nowhere"}),
        ("/v1/unload_lora_adapter", {"lora_name": "a"}),
        ("/v1/unload_lora_adapter", {}),
        ("/collective_rpc", {"method": "no_such_method"}),
        ("/collective_rpc", {"method": 3, "args": 3}),
        ("/collective_rpc", {}),
        ("/collective_rpc", []),
        ("/sleep?level=3", None),
        ("/sleep?mode=x", None),
        ("/wake_up?tags=x", None),
        ("/release_kv_cache_memory", None),
        ("/server_info?config_format=x", None),
    ]
    for path, body in asked:
        answer = web.post(path, json=body)
        assert answer.status_code != 200 or path.startswith("/wake_up"), path
        assert set(answer.json()) == {"error"} or path.startswith("/wake_up"), path
        check_ready(web)
        assert web.post(CHAT, json=question(8, "dual")).status_code == 200

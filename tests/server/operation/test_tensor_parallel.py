"""`dualfocus serve --tensor-parallel-size 2` on the CPU: 16 questions at once, both looks, boxes drafted."""

import asyncio
import json
import os
import re
from pathlib import Path

import httpx
from dualfocus_server.startup.startup_message import example_curl
from running_server import PATIENCE, start_server

# Of those that vLLM's CPU workers have each to itself: bound by itself it wants a memory node for every worker.
CORES = sorted(os.sched_getaffinity(0))
FLAGS = ("--tensor-parallel-size", "2", "--distributed-executor-backend", "mp", "--draft-boxes")


async def test_a_model_on_two_workers_looks_twice_and_drafts_its_boxes(tmp_path: Path) -> None:
    binding = {"VLLM_CPU_OMP_THREADS_BIND": f"{CORES[0]}|{CORES[-1]}"}
    running = start_server(tmp_path / "log", *FLAGS, model=(), environment=binding)
    body = json.loads(re.findall(r"-d '(.*)'", example_curl(running.url))[0])
    try:
        async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE) as http:
            asking = [http.post("/v1/chat/completions", json=body) for _ in range(16)]
            answers = [response.json() for response in await asyncio.gather(*asking)]
    finally:
        running.process.terminate()
        assert running.process.wait(PATIENCE) == 0
    assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"42"}
    grounding = [answer["dualfocus"]["turns"]["grounding"] for answer in answers]
    assert all(answer["dualfocus"]["winner"] == "micro" for answer in answers)
    assert all(turn["engine_steps"] < turn["completion_tokens"] for turn in grounding), "nothing was drafted"

"""What is measured of the server's own process: pictures that no cache knows, CPU seconds, stages."""

import asyncio
import base64
import io
import os
import time

import httpx
from fastapi import FastAPI
from PIL import Image

from loadtests.ceiling.__main__ import cpu_seconds
from loadtests.ceiling.loop_hold import PATH, LoopHold
from loadtests.ceiling.pictures import SIZES, jpeg_url
from loadtests.ceiling.stages import OTHER, shares
from loadtests.ceiling.threads import by_purpose, cpu_by_thread


def test_pictures_differ_in_their_bytes_and_can_be_read() -> None:
    size = next(iter(SIZES))
    files = [base64.b64decode(jpeg_url(size, number).partition(",")[2]) for number in (0, 16, 32)]
    assert len(set(files)) == 3
    pictures = [Image.open(io.BytesIO(file)) for file in files]
    assert {(picture.format, picture.size) for picture in pictures} == {("JPEG", SIZES[size][:2])}
    assert len({picture.tobytes() for picture in pictures}) == 1


def test_work_counts_as_cpu_seconds_and_sleep_does_not() -> None:
    before = cpu_seconds(os.getpid())
    time.sleep(0.2)
    slept = cpu_seconds(os.getpid())
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert cpu_seconds(os.getpid()) - slept > slept - before


def test_a_stack_is_its_innermost_known_frames_and_waiting_is_no_work() -> None:
    stacks = [
        "run (asyncio/runners.py:118);open (dualfocus_engine/pictures/picture_cache.py:73);"
        "_decode_whole (dualfocus_engine/pictures/pictures.py:169);load (PIL/ImageFile.py:425) 6",
        "run (dualfocus_server/startup/runtime.py:67);add_request_async (vllm/v1/engine/core_client.py:1298) 3",
        "main (x.py:1) 1",
        "_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:81) 90",
    ]
    assert shares(stacks) == {"decoding": 0.6, "to and from the engine": 0.3, OTHER: 0.1}


def test_threads_are_told_by_what_they_are_there_for() -> None:
    names = {"1": "MainThread", "2": "picture_0", "3": "picture_1", "4": "ThreadPoolExecutor-4_0"}
    before, after = {"1": 1.0, "2": 2.0}, {"1": 1.5, "2": 4.0, "3": 1.0, "4": 0.25, "5": 0.125}
    found = {"event loop": 0.5, "pictures": 3.0, "vLLM's threads": 0.25, "all other threads": 0.125}
    assert by_purpose(before, after, names) == found
    assert sum(cpu_by_thread(os.getpid()).values()) > 0


async def test_longest_hold_is_the_loops_own_work() -> None:
    app = LoopHold(FastAPI())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        await client.get(PATH)
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        await asyncio.sleep(0.01)
        assert (await client.get(PATH)).json() >= 200
        await client.get(PATH)
        time.sleep(0.2)  # noqa: ASYNC251 (it holds the loop, and computes nothing)
        await asyncio.sleep(0.01)
        assert (await client.get(PATH)).json() < 200

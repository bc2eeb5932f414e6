"""The page's routes: open to all, only what is there, and held to a strict policy."""

from typing import Any

import httpx
import pytest
from dualfocus_server.playground import PATH, playground_folder, playground_routes

from ..api.test_app import application, client

ROUTES = [route.path for route in playground_routes()]


async def get(path: str, **settings: Any) -> httpx.Response:
    async with client(application(**settings)) as http:
        return await http.get(path)


@pytest.mark.parametrize("path", ROUTES)
async def test_it_is_served_without_a_key(path: str) -> None:
    answer = await get(path)
    assert answer.status_code == (307 if path.endswith("/") else 200)


async def test_nothing_but_its_files_is() -> None:
    for path in (
        f"{PATH}/nothing.js",
        f"{PATH}/../../pyproject.toml",
        f"{PATH}/%2e%2e/__init__.py",
        f"{PATH}/index.html",
    ):
        assert (await get(path)).status_code == 401, path


async def test_it_is_held_to_a_policy() -> None:
    answer = await get(PATH)
    directives = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert directives == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("page.js", "text/javascript"),
        ("style.css", "text/css"),
        ("sample.png", "image/png"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_each_file_has_its_type(name: str, media_type: str) -> None:
    answer = await get(f"{PATH}/{name}")
    assert answer.headers["Content-Type"].partition(";")[0] == media_type
    assert answer.content == (playground_folder() / name).read_bytes()


async def test_every_file_is_small_enough_to_be_read() -> None:
    assert all(len(file.read_bytes().splitlines()) < 200 for file in playground_folder().glob("*.*s"))


async def test_it_is_found_under_a_proxys_prefix() -> None:
    for path in ROUTES:
        assert (await get(f"/api{path}", root_path="/api")).status_code == (await get(path)).status_code, path
    assert (await get("/api/playground/", root_path="/api")).headers["Location"] == "../playground"


async def test_it_can_be_left_out() -> None:
    async with client(application(playground=False)) as http:
        for path in ROUTES:
            assert (await http.get(path)).status_code == 401, path
            assert (await http.get(path, headers={"Authorization": "Bearer good"})).status_code == 404, path

"""The page at `/playground`: files of `clients/playground`, read once, each a route that needs no key.

The page asks like any other client, with the key that the person types in.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

PATH = "/playground"
_INDEX = "index.html"
# Not guessed by the machine's list of types: with `nosniff` a script of another type is not run.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # another version of the server may answer at the next visit
}


def playground_folder() -> Path:
    """Return the folder of the page's files: inside the package where a wheel was installed, else the checkout's."""
    here = Path(__file__).resolve()
    installed = here.parent / "playground"
    return installed if installed.is_dir() else here.parents[2] / "clients" / "playground"


def playground_routes() -> list[Route]:
    """Return the page's routes. Raises FileNotFoundError where its files are missing."""
    files = sorted(path for path in playground_folder().iterdir() if path.suffix in _TYPES)
    if not any(path.name == _INDEX for path in files):
        raise FileNotFoundError(f"{playground_folder()} holds no {_INDEX}.")
    routes = [_file(f"{PATH}/{path.name}", path) for path in files if path.name != _INDEX]
    # Its links are relative, so that they hold under a proxy's prefix: `playground/page.js`, seen from `/playground`.
    return [_file(PATH, playground_folder() / _INDEX), Route(f"{PATH}/", _to_the_page, methods=["GET"]), *routes]


def _file(path: str, file: Path) -> Route:
    content, media_type = file.read_bytes(), _TYPES[file.suffix]

    async def send(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(path, send, methods=["GET"])


async def _to_the_page(request: Request) -> Response:
    return RedirectResponse("../playground")

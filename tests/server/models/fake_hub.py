"""A model hub on loopback that has one model: the files of a folder."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The running hub: where it is, and what it was asked for so far."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def fake_hub(model: str, folder: Path) -> Iterator[Hub]:
    """Serve a folder's files as `model` of a hub, at any revision."""
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0].strip("/")
            if path.startswith(f"api/models/{model}"):
                is_tree = path.startswith(f"api/models/{model}/tree/")
                self._answer(json.dumps(_tree(folder) if is_tree else _card(model, folder)).encode())
                return
            file = folder / path.rpartition("/")[2]
            if path.startswith(f"{model}/resolve/") and file.is_file():
                self._answer(file.read_bytes())
            else:
                self._answer(b"", 404)

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{len(body):040x}"')
            self.send_header("Content-Length", str(len(body)))
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _card(model: str, folder: Path) -> dict[str, object]:
    names = [{"rfilename": file["path"]} for file in _tree(folder)]
    return {"id": model, "modelId": model, "sha": COMMIT, "private": False, "tags": [], "siblings": names}


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
        for file in sorted(folder.iterdir())
    ]

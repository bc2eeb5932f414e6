"""A real HTTP server on the loopback interface, which counts who reached it. Tests of all folders use it."""

import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Page = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """Pages by path; `requests` are the paths that were asked for, `headers` what came with the last one."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self.headers: dict[str, str] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                web.connections += 1
                super().setup()

            def do_GET(self) -> None:
                web.requests.append(self.path)
                web.headers = {name.lower(): value for name, value in self.headers.items()}
                pages.get(self.path, respond(404, b"nothing here"))(self)

            do_POST = do_GET  # noqa: N815 (http.server's name)

            def log_message(self, *given: object) -> None:
                """Nothing is printed."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *given: object) -> None:
                """A client that hung up is no news: nothing is printed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.address = f"http://127.0.0.1:{self.port}"


def self_signed(host: str, folder: Path) -> tuple[Path, Path]:
    """A certificate of a host by itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run([*made, *named, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


@contextmanager
def serving(pages: dict[str, Page], certificate: tuple[Path, Path] | None = None) -> Iterator[Web]:
    """Serve pages while the block runs, by https with a certificate and its key."""
    web = Web(pages)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    thread = threading.Thread(target=web.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()
        thread.join()


def respond(status: int = 200, body: bytes = b"", **headers: str) -> Page:
    """A page with a fixed answer; underscores in the names of headers are hyphens."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return page


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """What a request was sent with."""
    return request.rfile.read(int(request.headers["Content-Length"]))


def redirect(location: str, status: int = 302) -> Page:
    """A page that sends its reader elsewhere."""
    return respond(status, b"moved", Location=location)

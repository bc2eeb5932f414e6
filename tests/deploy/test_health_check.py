"""The image's health check, on servers with TLS and without, and on a port where none is."""

import asyncio
import datetime
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dualfocus_server.guards.http_protocol import Connection
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

CHECK = Path(__file__).parents[2] / "deploy" / "health.py"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a key and its certificate, for a name that is not this machine's."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.b")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(secret + made.sign(key, hashes.SHA256()).public_bytes(encoding))
    return str(path)


@asynccontextmanager
async def serving(**tls: Any) -> AsyncIterator[int]:
    """The port of a server."""
    app = Starlette(routes=[Route("/health", PlainTextResponse("there"))])
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Connection, log_config=None, **tls))
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def status(port: int) -> int:
    """What the check ends with, run as the image runs it."""
    check = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(CHECK), str(port), stderr=asyncio.subprocess.PIPE
    )
    await check.communicate()
    return int(check.returncode or 0)


@pytest.mark.parametrize("clients_certificates", [None, ssl.CERT_NONE, ssl.CERT_REQUIRED])
async def test_a_server_is_healthy_with_tls_and_without(
    certificate: str, clients_certificates: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls: dict[str, Any] = {}
    if clients_certificates is not None:
        tls = {"ssl_certfile": certificate, "ssl_ca_certs": certificate, "ssl_cert_reqs": clients_certificates}
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # is for others: nobody is there
    async with serving(**tls) as port:
        assert await status(port) == 0
    assert await status(port) != 0, "it has ended"

"""The address that is listened on, and uvicorn's settings.

Leans on vLLM 0.32's `create_server_socket`, `create_server_unix_socket` and `SSLCertRefresher`.
"""

import errno
import socket
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from vllm.entrypoints.launchers.launcher import create_server_socket, create_server_unix_socket
from vllm.entrypoints.launchers.utils.ssl import SSLCertRefresher

from dualfocus_server.app import with_outer_middleware
from dualfocus_server.guards.http_protocol import Connection
from dualfocus_server.settings import Settings

# What open connections get once no question is left.
_SHUTDOWN_GRACE_S = 2


def bind(args: Namespace) -> socket.socket:
    """Take the port or the path without listening on it yet: whoever probes it is refused until there are answers."""
    try:
        if args.uds:
            return _bind_path(Path(args.uds))
        listener: socket.socket = create_server_socket((args.host or "", args.port), reuse_port=False)
    except OSError as error:
        where = f"--uds {args.uds}" if args.uds else f"{args.host or 'any address'}, port {args.port}"
        raise SystemExit(f"error: {where}: {error.strerror or error}") from error
    return listener


def _bind_path(path: Path) -> socket.socket:
    """Take a path; a Unix socket that nobody holds was left behind by a server that ended. Raises OSError."""
    # Who still loads a model does not listen: it refuses streams, and datagrams as being of the wrong type.
    if path.is_socket() and all(_is_refused(path, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
        path.unlink()
    listener: socket.socket = create_server_unix_socket(str(path))
    return listener


def _is_refused(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def uvicorn_config(app: ASGIApp, args: Namespace, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn serves an application, behind the outer middleware."""
    return uvicorn.Config(
        with_outer_middleware(app, settings.unlogged_paths),
        http=Connection,
        h11_max_incomplete_event_size=args.h11_max_incomplete_event_size,
        ws="none",
        log_config=None,  # `logs.configure` set up the process's
        access_log=False,  # the server's own has the request's id
        timeout_keep_alive=settings.idle_timeout,
        timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
        ssl_ciphers=args.ssl_ciphers,
    )


@contextmanager
def renewing_certificates(config: uvicorn.Config, args: Namespace) -> Iterator[None]:
    """Read certificates and keys again when their files change (--enable-ssl-refresh)."""
    if not args.enable_ssl_refresh:
        yield
        return
    config.load()
    refresher = SSLCertRefresher(config.ssl, args.ssl_keyfile, args.ssl_certfile, args.ssl_ca_certs)
    try:
        yield
    finally:
        refresher.stop()

"""The image's health check: whether the server answers on the port that is given, with TLS or without."""

import socket
import ssl
import sys
from urllib.request import ProxyHandler, build_opener

# Past a proxy that the container's environment names.
_DIRECTLY = build_opener(ProxyHandler({}))


def main(port: int) -> None:
    """Return where the server answers. Raises OSError."""
    try:
        _DIRECTLY.open(f"http://127.0.0.1:{port}/health")
    except OSError:
        _shake_hands(port)


def _shake_hands(port: int) -> None:
    """Begin TLS: for that `--ssl-cert-reqs` needs no certificate of ours yet, and the server's is for another name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain):
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Put on a server's path, it keeps look-ups inside the machine: addresses in any spelling and the machine's own names.

Any other name has no address, at once: what a real resolver would say, and when, is not the tests' business.
"""

import socket
from typing import Any

_OWN = {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", socket.gethostname().lower()}
_look_up = socket.getaddrinfo


def _inside(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host or ""
    if name.lower().removesuffix(".") not in _OWN:
        flags |= socket.AI_NUMERICHOST
    return _look_up(host, port, family, type, proto, flags)


socket.getaddrinfo = _inside

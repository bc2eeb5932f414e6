"""Starts `dualfocus serve` the way a user does."""

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN = 180.0


@dataclass(frozen=True)
class Server:
    """A running `dualfocus serve`."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    seconds_to_ready: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(log: Path, *flags: str) -> Server:
    """Start `dualfocus serve` on a free port and wait for its ready line."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "dualfocus"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    started = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags], stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    while b"DualFocus is ready" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() - started > READY_WITHIN:
            process.kill()
            raise AssertionError(f"the server did not start:\n{log.read_text()}")
        time.sleep(0.1)
    return Server(f"http://127.0.0.1:{port}", log, process, time.monotonic() - started)

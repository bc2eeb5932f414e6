"""A container of an image's files, run by runc as Docker would with `--read-only`, but without a daemon.

It has the image's user, environment, entry point and volumes, a network of its own (what asks it runs inside, too), no
capability, and a root file system that can't be written to.
"""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = "runc"
# Seconds; only what will never come needs them.
HEALTHY_WITHIN, STOPPED_WITHIN = 300.0, 60.0

# Run inside, where the port is. The question is the one that the server prints for whoever starts it.
_GET = "import sys; from urllib.request import urlopen; print(urlopen(sys.argv[1]).read().decode())"
_CONFINED = "import os; print(os.getuid() != 0 and bool(os.statvfs('/').f_flag & os.ST_RDONLY))"
_ASK = """
import shlex, sys
from urllib.request import Request, urlopen
from dualfocus_server.startup.startup_message import example_curl
body = shlex.split(example_curl(sys.argv[1]))[-1].encode()
asked = Request(sys.argv[1] + "/v1/chat/completions", body, {"Content-Type": "application/json"})
print(urlopen(asked).read().decode())
"""


@dataclass
class Container:
    """A running container."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    health_check: list[str]
    output: Path

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace")

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as the container's user."""
        return subprocess.run([PROGRAM, "exec", self.name, *command], capture_output=True, text=True, check=False)

    def wait_until_healthy(self) -> float:
        """Return the seconds until the image's own health check succeeds. Raises AssertionError where it never does."""
        started = time.monotonic()
        while self.execute(*self.health_check).returncode != 0:
            gone = self.process.poll() is not None or time.monotonic() - started > HEALTHY_WITHIN
            assert not gone, f"the container did not become healthy:\n{self.log}"
            time.sleep(1)
        return time.monotonic() - started

    def is_confined(self) -> bool:
        """Whether the user is no root and the root file system is read-only, as seen from inside."""
        return self._told("-c", _CONFINED).strip() == "True"

    def get(self, path: str) -> str:
        """Return what a path of the server's answers."""
        return self._told("-c", _GET, self.url + path)

    def ask(self) -> str:
        """Ask the server its own example, and return the completion."""
        return self._told("-c", _ASK, self.url)

    def stop(self) -> int:
        """Send SIGTERM, and return the status with which the server ends."""
        subprocess.run([PROGRAM, "kill", self.name, "TERM"], check=True)
        return self.process.wait(STOPPED_WITHIN)

    def _told(self, *arguments: str) -> str:
        done = self.execute("python3", *arguments)
        assert done.returncode == 0, f"{done.stderr}\n{self.log}"
        return done.stdout


@contextmanager
def running(root: Path, image: Mapping[str, Any], bundle: Path) -> Iterator[Container]:
    """Run an image whose files are in `root`; `image` is its configuration, `bundle` a folder to work in."""
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(_specification(root, image)))
    name = f"dualfocus-{uuid.uuid4().hex[:8]}"
    port = next(iter(image["ExposedPorts"])).partition("/")[0]
    output = bundle / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen([PROGRAM, "run", "--bundle", bundle, name], stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield Container(name, process, f"http://127.0.0.1:{port}", image["Healthcheck"]["Test"][1:], output)
    finally:
        subprocess.run([PROGRAM, "delete", "--force", name], capture_output=True, check=False)
        process.wait(STOPPED_WITHIN)


def _specification(root: Path, image: Mapping[str, Any]) -> dict[str, Any]:
    user, _, group = image["User"].partition(":")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*image["Entrypoint"], *(image.get("Cmd") or ())],
            "env": image["Env"],
            "cwd": image["WorkingDir"] or "/",
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [*_SYSTEM, *(_memory(place, int(user)) for place in image["Volumes"])],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }


def _memory(place: str, user: int) -> dict[str, Any]:
    return {
        "destination": place,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=0700", f"uid={user}"],
    }


_SYSTEM = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]

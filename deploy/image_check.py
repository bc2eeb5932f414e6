"""Build the `cpu` image and ask it a question: `make image-check`. Needs root, buildah, runc and debootstrap.

No daemon takes part: buildah builds in a chroot, runc runs what was built, with a read-only root and as the image's own
user. The base image is pulled where a registry can be reached; elsewhere debootstrap makes one of the same Debian, with
Debian's Python 3.11, and it gets the pinned image's name in a storage of its own. What was downloaded for a build stays
in buildah's cache under /var/tmp.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deploy.container import PROGRAM, Container, running
from scripts.install import pip_settings

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("buildah", PROGRAM, "debootstrap")
IMAGE = "localhost/dualfocus:cpu"
# What a python image has and a bare Debian has not.
PACKAGES = "python3,python3-venv,ca-certificates"


def main(argv: Sequence[str] | None = None) -> int:
    """Build, run, ask, stop. Raises CalledProcessError or AssertionError where something is wrong."""
    parser = argparse.ArgumentParser(description="Build the cpu image, run it and ask it a question.")
    parser.add_argument("--storage", type=Path, help="where images are kept for the next time; thrown away if left out")
    storage = parser.parse_args(argv).storage
    if why := what_is_missing():
        sys.exit(f"image-check: {why}")
    with tempfile.TemporaryDirectory(prefix="dualfocus-image-") as scratch:
        buildah = Buildah(storage or Path(scratch) / "storage")
        try:
            check(buildah, Path(scratch))
        finally:
            buildah.unmount()
    return 0


def what_is_missing() -> str | None:
    """Say why the image can't be built here, if it can't."""
    if os.geteuid() != 0:
        return "root is needed to build in a chroot"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(missing)} not installed (Debian's packages have these names)" if missing else None


def check(buildah: "Buildah", scratch: Path) -> None:
    """Build the image and hold a running container of it to what it promises."""
    base = base_image()
    if not buildah.has(base):
        bootstrap(buildah, base, scratch / "base")
    say("building the cpu target")
    build(buildah, scratch)
    image = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    with buildah.unpacked(IMAGE) as root:
        say(f"built {IMAGE}, {bytes_of(root) / 1e9:.2f} GB unpacked")
        with running(root, image, scratch / "bundle") as server:
            ask_about_everything(server)


def ask_about_everything(server: Container) -> None:
    """Hold a running container to what a server promises, and stop it."""
    say(f"healthy after {server.wait_until_healthy():.0f} s")
    assert server.is_confined(), "it runs as root, or its root file system can be written to"
    ready = server.get("/ready")
    assert json.loads(ready) == {"status": "ready"}, ready
    answer = json.loads(server.ask())
    say(f"asked what number is on the red circle: {answer['choices'][0]['message']['content']}")
    assert answer["dualfocus"]["winner"] in {"macro", "micro"}, answer
    assert "dualfocus_questions_total{" in server.get("/metrics")
    status = server.stop()
    assert status == 0, f"stopped with status {status}:\n{server.log}"
    say("stopped on SIGTERM")


class Buildah:
    """buildah with a storage of its own, so that no image of the user's is touched."""

    def __init__(self, storage: Path) -> None:
        self._layers = storage / "root" / "overlay"
        self._options = ("--root", str(storage / "root"), "--runroot", str(storage / "run"))

    def __call__(self, *arguments: str | Path) -> str:
        """Run a command of buildah's and return what it prints."""
        command = ["buildah", *self._options, *map(str, arguments)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def has(self, image: str) -> bool:
        """Whether an image is there, or could be pulled."""
        command = ["buildah", *self._options, "pull", "--quiet", "--policy", "missing", image]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        """Let go of what buildah leaves mounted, so that the storage can be removed; where nothing is, that is fine."""
        subprocess.run(["umount", "--recursive", self._layers], capture_output=True, check=False)

    @contextmanager
    def unpacked(self, image: str) -> Iterator[Path]:
        """Lend a folder that holds an image's files."""
        container = self("from", "--pull-never", image)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)


def base_image() -> str:
    """Return the pinned image that the Dockerfile builds on."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("FROM ") and line.endswith(" AS base"))


def bootstrap(buildah: Buildah, name: str, folder: Path) -> None:
    """Make a base image from Debian's packages; the image's tag ends with its Debian's name."""
    suite = name.rpartition("-")[2]
    say(f"no registry has {name} for us: making a base of Debian {suite}")
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(folder)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    container = buildah("from", "scratch")
    shutil.rmtree(folder / "dev")
    buildah("copy", "--quiet", container, folder, "/")
    buildah("commit", "--quiet", "--rm", container, name)
    shutil.rmtree(folder)


def build(buildah: Buildah, scratch: Path) -> None:
    """Build the `cpu` target, with packages from wherever pip finds them on this machine."""
    settings = pip_settings()
    configuration = scratch / "pip.conf"
    lines = [f"{name} = {' '.join(value.split())}" for name, value in settings.items()]
    configuration.write_text("\n".join(["[global]", *lines, ""]))
    buildah(
        *("bud", "--isolation", "chroot", "--layers", "--format", "docker", "--target", "cpu", "--tag", IMAGE),
        *("--secret", f"id=pip,src={configuration}"),
        *(part for place in local_places(settings) for part in ("--volume", f"{place}:{place}:ro")),
        ROOT,
    )


def local_places(settings: dict[str, str]) -> list[Path]:
    """Return the files and folders of this machine that pip's settings name, as paths or as `file:` URLs."""
    places = {
        # The pages of an index link to packages that lie beside it.
        place.parent if name.endswith("index-url") else place
        for name, value in settings.items()
        for word in value.split()
        if word.startswith(("/", "file://")) and (place := Path(unquote(urlsplit(word).path))).exists()
    }
    return sorted(places)


def bytes_of(folder: Path) -> int:
    """Return what the files of a folder take."""
    counted = subprocess.run(["du", "-s", "-B1", folder], stdout=subprocess.PIPE, text=True, check=True)
    return int(counted.stdout.split()[0])


def say(text: str) -> None:
    """Print a line at once."""
    print(f"image-check: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

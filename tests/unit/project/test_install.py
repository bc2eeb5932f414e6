"""The installer and the Makefile around it; nothing is installed here."""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
# Debian's package of this Python's headers.
DEV = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'"], True),
        (["echo 'No devices were found'"], False),
        (["echo 'NVIDIA-SMI has failed' >&2", "exit 9"], False),
        (None, False),
    ],
)
def test_gpu_is_one_that_the_driver_lists(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str] | None, found: bool
) -> None:
    if lines is not None:
        _program(tmp_path / "nvidia-smi", *lines)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.has_gpu() is found


@pytest.mark.parametrize(
    ("given", "has_gpu", "machine", "others"),
    [
        ([], True, "gpu", []),
        (["dev"], False, "cpu", ["dev"]),
        (["cpu"], True, "cpu", []),
        (["dev", "gpu"], False, "gpu", ["dev"]),
    ],
)
def test_machine_that_is_named_goes_before_the_one_that_is_found(
    install: Any, monkeypatch: pytest.MonkeyPatch, given: list[str], has_gpu: bool, machine: str, others: list[str]
) -> None:
    monkeypatch.setattr(install, "has_gpu", lambda: has_gpu)
    assert install.machine_of(given) == (machine, others)


def test_two_machines_are_refused(install: Any) -> None:
    with pytest.raises(SystemExit, match="gpu and cpu don't go together: give one of gpu, cpu, or none"):
        install.machine_of(["gpu", "cpu"])


def test_compilers_that_are_there_are_left_alone(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "c++")
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(install, "sysconfig", SimpleNamespace(get_path=lambda name: str(tmp_path)))
    assert install.missing_compilers() == []


def test_pips_environment_goes_before_its_files(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file.test\nfind-links = /wheels /others\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment.test")
    monkeypatch.setattr(install, "PYTHON", Path(sys.executable))
    assert install.pip_settings()["index-url"] == "https://environment.test"
    options = install.pip_places()
    pairs = set(itertools.pairwise(options))
    assert {("--index-url", "https://environment.test"), ("--find-links", "/wheels")} <= pairs
    assert ("--find-links", "/others") in pairs
    assert "--no-index" not in options


@pytest.mark.parametrize(("said", "told"), [("true", True), ("1", True), ("false", False)])
def test_places_that_pip_keeps_to_or_trusts_are_uvs_too(
    install: Any, monkeypatch: pytest.MonkeyPatch, said: str, told: bool
) -> None:
    given = {"no-index": said, "find-links": "/wheels", "trusted-host": "one.test two.test:8080"}
    monkeypatch.setattr(install, "pip_settings", lambda: given)
    options = install.pip_places()
    assert ("--no-index" in options) is told
    hosts = {value for name, value in itertools.pairwise(options) if name == "--allow-insecure-host"}
    assert hosts == {"one.test", "two.test:8080"}


@pytest.mark.parametrize(("machine", "named"), [("cpu", ["libnuma1"]), ("gpu", ["g++", DEV])])
def test_what_vllm_can_not_do_without_is_installed_or_named(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, named: list[str]
) -> None:
    """Its CPU build starts, and fails over kernels that it does not find; on a GPU Triton compiles its launcher."""
    asked: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(install, "sysconfig", SimpleNamespace(get_path=lambda name: str(tmp_path / name)))
    for step in ("make_environment", "run", "install", "install_for_cpu"):
        monkeypatch.setattr(install, step, lambda *given: None)
    monkeypatch.setattr(install, "pip_settings", dict)
    monkeypatch.setattr(install, "find_library", lambda name: None)
    monkeypatch.setattr(install, "install_packages", lambda packages, without: asked.extend(packages))
    install.main([machine])
    assert asked == named


@pytest.fixture
def installed(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What uv is asked to install, call by call, and the hook when it is written."""
    asked: list[list[str]] = []
    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install, "pip_places", lambda: ["--find-links", "/wheels"])
    monkeypatch.setattr(install, "run", lambda *command: asked.append([str(part) for part in command]))
    monkeypatch.setattr(install, "write_hook", lambda: asked.append(["hook"]))
    return asked


def test_cpu_torch_of_pips_own_places_gets_torchvision_by_itself_and_the_hook(
    install: Any, installed: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "pip_finds", lambda package: package == install.CPU_TORCH)
    install.install_for_cpu("the project")
    everything, torchvision, hook = installed
    assert everything[-2:] == ["-e", "the project"]
    assert everything[everything.index("--overrides") + 1] == str(tmp_path / "overrides.txt")
    left_out = {line.partition(";")[0] for line in (tmp_path / "overrides.txt").read_text().splitlines()}
    assert left_out == {"torchvision", "torchaudio", "torchcodec", "triton"}
    assert torchvision[-2:] == ["--no-deps", install.CPU_TORCHVISION]
    assert hook == ["hook"]
    assert torchvision[-4:-2] == ["--find-links", "/wheels"]


def test_pytorchs_index_brings_its_own_torchvision_and_needs_no_hook(
    install: Any, installed: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "pip_finds", lambda package: False)
    install.install_for_cpu("the project")
    [everything] = installed
    assert everything[-4:] == ["--torch-backend", "cpu", "-e", "the project"]
    assert "torchvision" not in (tmp_path / "overrides.txt").read_text()


def test_torchvision_is_the_one_that_goes_with_torch(install: Any) -> None:
    # torch 2.N goes with torchvision 0.(N + 15).
    torch, torchvision = (package.partition("==")[2] for package in (install.CPU_TORCH, install.CPU_TORCHVISION))
    assert int(torchvision.split(".")[1]) == int(torch.split(".")[1]) + 15


def test_hook_is_written_where_the_environment_has_its_packages(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PYTHON", _program(tmp_path / "python", f"echo {tmp_path}"))
    install.write_hook()
    written = tmp_path / install.HOOK_FILE
    assert written.suffix == ".pth"
    assert written.name > "_dualfocus.pth", "read after the file that says where the engine's folder is"
    # Only a line that begins so is run.
    assert written.read_text().startswith("import ")
    assert written.read_text().count("\n") == 1


@pytest.mark.parametrize(("module", "said"), [("def watch(): print('watched')", "watched"), (None, "")])
def test_hook_watches_at_each_start_and_is_silent_where_the_engine_is_absent(
    install: Any, tmp_path: Path, module: str | None, said: str
) -> None:
    (tmp_path / install.HOOK_FILE).write_text(install.HOOK)
    if module is not None:
        (tmp_path / "dualfocus_cpu_torchvision.py").write_text(module)
    # -S, -E: this environment's own hook stays out, and what PYTHONPATH names.
    code = f"import site; site.addsitedir({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (said, "")


@pytest.mark.parametrize("status", [0, 1])
def test_environment_is_made_where_there_is_none_with_pip(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(install, "PYTHON", _program(tmp_path / "python", f"exit {status}"))
    made: list[Path] = []
    monkeypatch.setattr(install.venv, "create", lambda place, with_pip: made.append(place))
    install.make_environment()
    assert made == ([install.VENV] if status else [])


def test_python_without_its_venv_package_is_said_with_what_to_install(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(place: Path, with_pip: bool) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(install, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(install.venv, "create", create)
    with pytest.raises(SystemExit, match=r"apt install python3\.\d+-venv"):
        install.make_environment()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make serve` looks at, installed a moment ago."""
    (tmp_path / "scripts").mkdir()
    for name in ("Makefile", "pyproject.toml", "scripts/install.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".serve").touch()
    return tmp_path


def _make(checkout: Path, *arguments: str) -> str:
    # Not those of the make that runs the tests.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "HOST", "PORT", "MODEL")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    asked = ["make", "-n", *arguments]
    return subprocess.run(asked, cwd=checkout, env=environment, capture_output=True, text=True, check=True).stdout


def test_what_is_installed_is_served_as_it_was_asked_for(checkout: Path) -> None:
    served = _make(checkout, "serve", "HOST=0.0.0.0", "PORT=9000", "MODEL=/models/mine")
    assert served == ".venv/bin/dualfocus serve /models/mine --host 0.0.0.0 --port 9000\n"
    assert _make(checkout, "serve") == ".venv/bin/dualfocus serve  --host 127.0.0.1 --port 8000\n"


@pytest.mark.parametrize("changed", ["pyproject.toml", "scripts/install.py"])
def test_what_changed_since_is_installed_first(checkout: Path, changed: str) -> None:
    os.utime(checkout / ".venv" / ".serve", (1, 1))
    os.utime(checkout / changed, (2, 2))
    assert "scripts/install.py\n" in _make(checkout, "serve")


@pytest.mark.parametrize(("user", "asked"), [(0, ["update", "install"]), (1000, [])])
def test_programs_are_installed_by_root_on_debian_and_missed_aloud_elsewhere(
    install: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    asked: list[str],
) -> None:
    log = tmp_path / "log"
    _program(tmp_path / "apt-get", f'echo "$@" >> {log}')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(install, "find_library", lambda name: None)
    install.install_programs()
    lines = log.read_text().splitlines() if log.exists() else []
    assert [line.split()[0] for line in lines] == asked
    packages = [*install.PROGRAMS.values(), *install.DEV_LIBRARIES.values()]
    assert (f"SKIPPED: {', '.join(packages)} can't" in capsys.readouterr().out) is (user != 0)
    assert all(line.endswith(" ".join(packages)) for line in lines[1:])


def test_programs_that_are_there_are_left_alone(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in install.PROGRAMS:
        _program(tmp_path / program)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(install, "find_library", lambda name: f"lib{name}.so")
    monkeypatch.setattr(install, "run", None)
    install.install_programs()

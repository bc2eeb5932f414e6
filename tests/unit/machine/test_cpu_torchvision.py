"""The hook that lets a torchvision built for CUDA be imported beside a CPU torch; each case in a Python of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

_WATCH = (
    "import sys; sys.path[:0] = {path!r}; from dualfocus_cpu_torchvision import _watcher, watch; watch(); watch(); "
)
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# As torchvision does it: its extension is tried, then every operator is described to torch, whoever declared it.
_EXTENSION = "import torch\nlibrary = torch.library.Library('torchvision', 'DEF')\n"
_DESCRIBES = "import torch\n[torch.library.register_fake(f'torchvision::{name}', print) for name in ('nms', 'qnms')]\n"


def _torchvision(folder: Path, own: tuple[str, ...]) -> Path:
    """Write a torchvision of three files, whose extension brings these operators."""
    package = folder / "torchvision"
    package.mkdir()
    defined = "".join(f"library.define('{name}{_SCHEMA}')\n" for name in own)
    (package / "extension.py").write_text(_EXTENSION + defined if own else "")
    (package / "_meta_registrations.py").write_text(_DESCRIBES)
    (package / "__init__.py").write_text("from . import extension, _meta_registrations\n")
    return folder


def _run(path: list[Path], code: str) -> str:
    """Run it in a Python without this environment's hook, its packages and the engine's folder at hand."""
    folders = [str(folder) for folder in (*path, *map(Path, sys.path))]
    asked = [sys.executable, "-S", "-c", _WATCH.format(path=folders) + code]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("own", [(), ("nms",), ("nms", "qnms")])
def test_operators_that_are_missing_are_declared_and_no_others(tmp_path: Path, own: tuple[str, ...]) -> None:
    asked = "torch.ops.torchvision.nms.default._schema, torch.ops.torchvision.qnms.default._schema"
    printed = _run([_torchvision(tmp_path, own)], f"import torchvision, torch; print({asked}, sep='|')")
    assert printed.split("|") == [f"torchvision::{name}{_SCHEMA}" for name in ("nms", "qnms")]


def test_watching_ends_with_torchvisions_import(tmp_path: Path) -> None:
    counted = "sys.meta_path.count(_watcher)"
    code = f"before = {counted}; import torchvision, json.tool; print(before, {counted})"
    assert _run([_torchvision(tmp_path, ())], code) == "1 0"


def test_a_start_without_torchvision_imports_nothing_more() -> None:
    before = "import sys; before = set(sys.modules); "
    code = f"{before}sys.path[:0] = {sys.path!r}; import dualfocus_cpu_torchvision as hook; hook.watch(); "
    asked = [sys.executable, "-S", "-c", code + "print(set(sys.modules) - before)"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'dualfocus_cpu_torchvision'}"


def test_torchvision_of_this_environment_can_be_imported() -> None:
    code = "import torchvision.transforms.v2, transformers; print(transformers.AutoProcessor.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "AutoProcessor"), done.stderr

"""What is committed, and the names of test files: pytest tells those that stand in no package by their names alone."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = {".ci", "clients", "deploy", "docs", "engine", "loadtests", "scripts", "server", "tests", "training"}
FILES = {
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
}


def test_no_two_test_files_outside_of_packages_have_one_name() -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in path.parts]
    alone = Counter(path.name for path in files if not (path.parent / "__init__.py").exists())
    assert [name for name, count in alone.items() if count > 1] == []


def test_nothing_that_a_run_left_at_the_top_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is committed cannot be told")
    listed = ["git", "-c", "safe.directory=*", "ls-files"]
    committed = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name.split("/")[0] for name in committed} == FOLDERS | FILES | {"pyproject.toml"}

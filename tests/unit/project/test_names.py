"""Names of test files: pytest tells those that stand in no package by their names alone."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[2]


def test_no_two_test_files_outside_of_packages_have_one_name() -> None:
    files = [path for path in TESTS.rglob("test_*.py") if "node_modules" not in path.parts]
    alone = Counter(path.name for path in files if not (path.parent / "__init__.py").exists())
    assert [name for name, count in alone.items() if count > 1] == []

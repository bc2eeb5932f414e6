"""What is shipped for other people's harnesses, against what `python -m dualfocus_eval.scenes` writes."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from dualfocus_eval.scenes.writing import write_scenes

TASK = Path(__file__).parents[3] / "clients/harnesses/lmms_eval/scenes.yaml"


class Names(yaml.SafeLoader):
    """Reads lmms-eval's `!function` as the function's name."""


Names.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def functions() -> ModuleType:
    """The module beside the task, as lmms-eval finds it."""
    spec = importlib.util.spec_from_file_location("scenes", TASK.with_suffix(".py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lmms_evals_task_asks_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task: dict[str, Any] = yaml.load(TASK.read_text(), Names)
    write_scenes(902, 1, tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    picture, score = (getattr(functions(), task[name].split(".")[1]) for name in ("doc_to_visual", "process_results"))
    for question in map(json.loads, lines):
        assert question[task["doc_to_text"]]
        assert [image.mode for image in picture(question)] == ["RGB"]
        answer = question[task["doc_to_target"]]
        assert score(question, [f" {answer.upper()}\n"]) == {task["metric_list"][0]["metric"]: 1.0}
        assert score(question, [f"not {answer}"]) == {"accuracy": 0.0}

"""The scores of `lmms-eval` and `ms-vlmeval` for made-up replies, by their own functions.

Only the modules that hold scoring rules are imported: the packages above them would load models and data sets.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from string import ascii_uppercase
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from scripts.parity.predictions import Question

LMMS_EVAL = f"lmms-eval {version('lmms-eval')}"
VLMEVALKIT = f"ms-vlmeval {version('ms-vlmeval')}"
# Their own code is not run: it imports all there is.
BARE = (
    "lmms_eval",
    "lmms_eval.tasks",
    "lmms_eval.tasks.vstar_bench",
    "vlmeval",
    "vlmeval.dataset",
    "vlmeval.dataset.utils",
)


def leave_bare(names: Sequence[str]) -> None:
    """Stand in for packages with folders, so that their modules can be imported without them."""
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            sys.exit(f"parity: {name} is not a package of this environment: make parity installs it")
        package = ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package


leave_bare(BARE)
pandas = import_module("pandas")
# lmms-eval tells of each question; VLMEvalKit keeps tables as Excel's files otherwise, which takes one more package.
import_module("loguru").logger.remove()
os.environ["PRED_FORMAT"] = "tsv"


def textvqa(questions: Sequence[Question]) -> list[float]:
    """lmms-eval's TextVQA."""
    rule = import_module("lmms_eval.tasks.textvqa.utils").textvqa_process_results
    docs = [{"answers": list(one["answers"]), "question_id": one["id"]} for one in questions]
    return [float(rule(doc, [one["reply"]])["exact_match"]) for doc, one in zip(docs, questions, strict=True)]


def evalai() -> Any:
    """Return lmms-eval's normalisation of TextVQA's answers, with the contractions that it knows."""
    return import_module("lmms_eval.tasks._task_utils.vqa_eval_metric").EvalAIAnswerProcessor()


def gqa(questions: Sequence[Question]) -> list[float]:
    """VLMEvalKit's GQA."""
    rule = import_module("vlmeval.dataset.utils.vqa_eval").process_line
    lines = [{"answer": one["answers"][0], "prediction": one["reply"]} for one in questions]
    return [float(rule(line, method="accuracy")["match"][0]) for line in lines]


def pope(questions: Sequence[Question]) -> list[float]:
    """lmms-eval's POPE."""
    return [float(one["pope_accuracy"]["score"]) for one in _pope(questions)]


def pope_figures(questions: Sequence[Question]) -> dict[str, float]:
    """lmms-eval's figures for each category of POPE; its yes ratio is the labels', not the replies'."""
    utils = import_module("lmms_eval.tasks.pope.utils")
    rules = {"F1": "f1_score", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
    figures = {}
    for category in sorted({one["category"] for one in questions}):
        results = _pope([one for one in questions if one["category"] == category])
        for name, rule in rules.items():
            aggregate = getattr(utils, f"pope_aggregate_{rule}")
            figures[f"{category} {name}"] = float(aggregate([one[f"pope_{rule}"] for one in results]))
    return figures


def _pope(questions: Sequence[Question]) -> list[dict[str, Any]]:
    rule = import_module("lmms_eval.tasks.pope.utils").pope_process_results
    return [rule({"answer": one["answers"][0], "question_id": one["id"]}, [one["reply"]]) for one in questions]


def seed(questions: Sequence[Question]) -> list[float]:
    """lmms-eval's SEED, by question."""
    utils = import_module("lmms_eval.tasks.seedbench.utils")
    docs = [{"answer": one["answers"][0], "data_type": "image", "question_id": one["id"]} for one in questions]
    results = [utils.seed_process_result(doc, [one["reply"]]) for doc, one in zip(docs, questions, strict=True)]
    return [float(utils.seed_aggregation_result([result["seed_image"]])) for result in results]


def vstar(questions: Sequence[Question]) -> list[float]:
    """lmms-eval's V*."""
    rule = import_module("lmms_eval.tasks.vstar_bench.utils").vstar_process_results
    docs = [{"label": one["answers"][0], "text": "", "question_id": one["id"]} for one in questions]
    results = [rule(doc, [one["reply"]]) for doc, one in zip(docs, questions, strict=True)]
    return [float(result["vstar_overall_acc"]["score"]) for result in results]


def mme_realworld(questions: Sequence[Question]) -> list[float]:
    """lmms-eval's MME-RealWorld, by question."""
    utils = import_module("lmms_eval.tasks.mme_realworld.utils")
    return [float(utils.mme_realworld_aggregate_results([_mme(utils, one)])) for one in questions]


def mme_realworld_figures(questions: Sequence[Question]) -> dict[str, float]:
    """lmms-eval's MME-RealWorld over all questions."""
    utils = import_module("lmms_eval.tasks.mme_realworld.utils")
    return {"accuracy": float(utils.mme_realworld_aggregate_results([_mme(utils, one) for one in questions]))}


def _mme(utils: Any, one: Question) -> dict[str, Any]:
    doc = {"category": one["category"], "l2-category": "", "index": one["id"], "answer": one["answers"][0]}
    return dict(utils.mme_realworld_process_results(doc, [one["reply"]])["mme_realworld_score"])


def inferred(questions: Sequence[Question]) -> list[float]:
    """VLMEvalKit's multiple choice without a judge, by question: MMBench's single pass, HR-Bench's."""
    rule = import_module("vlmeval.dataset.utils.multiple_choice").eval_vanilla
    return [float(rule(None, row)["hit"]) for row in (_row(one) | {"question": ""} for one in questions)]


def mmbench_figures(questions: Sequence[Question]) -> dict[str, float]:
    """VLMEvalKit's circular evaluation without a judge, over all groups and by category."""
    rows = pandas.DataFrame([_row(one) for one in questions])
    with TemporaryDirectory() as folder:
        evaluate = import_module("vlmeval.dataset.utils.multiple_choice").mcq_circular_eval
        judged = evaluate(None, rows, rows[["index", "answer"]], 1, str(Path(folder, "result.pkl")))
    by_category = judged.groupby("category")["hit"].mean()
    return {"circular": float(judged["hit"].mean()), **{name: float(share) for name, share in by_category.items()}}


def hrbench_figures(questions: Sequence[Question]) -> dict[str, float]:
    """VLMEvalKit's means over HR-Bench's cycles."""
    report = import_module("vlmeval.dataset.utils.hrbench").report_acc_hrbench
    hits = zip(questions, inferred(questions), strict=True)
    table = report(pandas.DataFrame([_row(one) | {"cycle_category": one["group"], "hit": hit} for one, hit in hits]))
    means = table[table["cycle"] == "Average"]
    names = [name.replace("all", "accuracy") for name in means["type"]]
    return dict(zip(names, map(float, means["accuracy"]), strict=True))


def _row(one: Question) -> dict[str, Any]:
    options = dict(zip(ascii_uppercase, one["options"], strict=False))
    answer, category = one["answers"][0], one["category"]
    return {
        "index": int(one["id"]),
        "prediction": one["reply"],
        "answer": answer,
        "GT": answer,
        "category": category,
        **options,
    }

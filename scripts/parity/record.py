"""Record what `lmms-eval` and VLMEvalKit give for made-up replies: `make parity`.

Runs in `.venv/parity`, which holds the two packages and what their scoring modules import, nothing else
(requirements.txt). Writes one file for each benchmark, to which the tests hold our scores, question by question.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from scripts.parity import predictions, tools
from scripts.parity.predictions import Question, made

FOLDER = Path(__file__).parents[2] / "tests/unit/evaluation/parity"


def main() -> None:
    """Write the records."""
    evalai = tools.evalai()
    contracted = [*evalai.CONTRACTIONS, *evalai.CONTRACTIONS.values()]
    textvqa = made(predictions.words, 10) + made(predictions.normal_forms, evalai, contracted)
    save("textvqa", tools.LMMS_EVAL, textvqa, tools.textvqa(textvqa), {})
    gqa = made(predictions.words, 1)
    save("gqa", tools.VLMEVALKIT, gqa, tools.gqa(gqa), {})
    pope = made(predictions.yes_or_no)
    save("pope", tools.LMMS_EVAL, pope, tools.pope(pope), tools.pope_figures(pope))
    four = made(predictions.letters, 4)
    save("seed", tools.LMMS_EVAL, four, tools.seed(four), {})
    save("vstar", tools.LMMS_EVAL, four, tools.vstar(four), {})
    save("hrbench", tools.VLMEVALKIT, four, tools.inferred(four), tools.hrbench_figures(four))
    mmbench = made(predictions.rotations)
    save("mmbench", tools.VLMEVALKIT, mmbench, tools.inferred(mmbench), tools.mmbench_figures(mmbench))
    tasks = {"single": "Perception/Monitoring", "cross": "Reasoning/Remote Sensing"}
    five = [one | {"category": tasks[one["category"]]} for one in made(predictions.letters, 5)]
    save("mme-realworld", tools.LMMS_EVAL, five, tools.mme_realworld(five), tools.mme_realworld_figures(five))


def save(name: str, tool: str, questions: list[Question], scores: list[float], figures: dict[str, float]) -> None:
    """Write a benchmark's record, a question a line, with the tool's version and a hash of what it was given."""
    sha256 = hashlib.sha256(json.dumps(questions).encode()).hexdigest()
    head: dict[str, Any] = {"tool": tool, "inputs_sha256": sha256, "figures": figures}
    lines = [json.dumps(one | {"score": score}) for one, score in zip(questions, scores, strict=True)]
    text = json.dumps(head)[:-1] + ', "questions": [\n' + ",\n".join(lines) + "\n]}\n"
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text)
    print(f"parity: {name}: {len(questions)} replies, {sum(scores):.1f} right by {tool}")


if __name__ == "__main__":
    main()

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
    textvqa = made(predictions.words, 10) + list(predictions.contractions(tools.contractions()))
    save("textvqa", tools.LMMS_EVAL, textvqa, tools.textvqa(textvqa), {})
    gqa = made(predictions.words, 1)
    save("gqa", tools.VLMEVALKIT, gqa, tools.gqa(gqa), {})
    pope = made(predictions.yes_or_no)
    save("pope", tools.LMMS_EVAL, pope, tools.pope(pope), tools.pope_figures(pope))
    seed = made(predictions.letters, 4)
    save("seed", tools.LMMS_EVAL, seed, tools.seed(seed), {})
    save("vstar", tools.LMMS_EVAL, seed, tools.vstar(seed), {})
    mmbench = made(predictions.rotations)
    save("mmbench", tools.VLMEVALKIT, mmbench, tools.inferred(mmbench), tools.mmbench_figures(mmbench))
    hrbench = [one | {"group": str(number % 4)} for number, one in enumerate(made(predictions.rotations))]
    save("hrbench", tools.VLMEVALKIT, hrbench, tools.inferred(hrbench), tools.hrbench_figures(hrbench))
    five = [
        one | {"category": ("Perception/" if one["category"] < "e" else "Reasoning/") + "Monitoring"}
        for one in made(predictions.letters, 5)
    ]
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

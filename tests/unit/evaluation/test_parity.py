"""Our scores against the tools' own, question by question: what `make parity` recorded under `parity/`.

LLaVA's and the released DualFocus scripts' rules are in no package: SEED's exact letter, GQA's full stops, POPE's first
sentence and the mapped letter. Those are held to cases derived by hand (test_scoring.py), and to the record where
both rules must say the same.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dualfocus_eval.samples import Sample, Scored
from dualfocus_eval.scoring import gqa, letters, mme_realworld, pope, text_vqa, vstar

FOLDER = Path(__file__).parent / "parity"
INPUTS = ("id", "answers", "options", "category", "group", "reply")


@dataclass(frozen=True)
class Record:
    tool: str
    questions: list[Scored]
    figures: dict[str, float]


def sample_of(one: dict[str, Any], stratum: str = "") -> Sample:
    return Sample(
        one["id"],
        b"",
        "",
        tuple(one["answers"]),
        tuple(one["options"]),
        category=one["category"],
        group=one["group"],
        stratum=stratum,
    )


def recorded(name: str) -> Record:
    record = json.loads((FOLDER / f"{name}.json").read_text())
    inputs = [{key: one[key] for key in INPUTS} for one in record["questions"]]
    assert hashlib.sha256(json.dumps(inputs).encode()).hexdigest() == record["inputs_sha256"], "changed by hand"
    stratum = {"pope": lambda one: one["answers"][0], "hrbench": lambda one: one["group"]}.get(name, lambda one: "")
    questions = [Scored(sample_of(one, stratum(one)), one["reply"], one["score"]) for one in record["questions"]]
    assert len(questions) >= 200
    return Record(record["tool"], questions, record["figures"])


def ours(score: Callable[[Sample, str], float], questions: Sequence[Scored]) -> list[Scored]:
    return [Scored(one.sample, one.reply, pytest.approx(score(one.sample, one.reply))) for one in questions]


@pytest.mark.parametrize(
    ("name", "tool", "score"),
    [
        ("textvqa", "lmms-eval 0.7.3", text_vqa.score),
        ("pope", "lmms-eval 0.7.3", pope.score),
        ("vstar", "lmms-eval 0.7.3", vstar.score),
        ("mme-realworld", "lmms-eval 0.7.3", mme_realworld.score),
        ("mmbench", "ms-vlmeval 0.0.20", letters.inferred_letter),
        ("hrbench", "ms-vlmeval 0.0.20", letters.inferred_letter),
    ],
)
def test_each_question_is_scored_as_the_tool_does(name: str, tool: str, score: Callable[[Sample, str], float]) -> None:
    record = recorded(name)
    assert record.tool == tool
    assert {one.score for one in record.questions} >= {0.0, 1.0}
    assert record.questions == ours(score, record.questions)


def test_answers_are_normalized_as_lmms_eval_does() -> None:
    """Where all people are said to have given what the tool makes of the reply."""
    told = [one for one in recorded("textvqa").questions if int(one.sample.id) >= 200]
    assert len(told) > 250
    assert [text_vqa.normalized(one.reply) for one in told] == [one.sample.answers[0] for one in told]


def test_gqa_is_scored_as_vlmevalkit_does_but_for_full_stops() -> None:
    """LLaVA takes full stops off the end of a reply before it is compared."""
    told = [one for one in recorded("gqa").questions if not one.reply.strip().endswith(".")]
    assert len(told) > 150
    assert told == ours(gqa.score, told)


def test_seed_is_scored_as_lmms_eval_does_where_a_reply_is_a_letter() -> None:
    """LLaVA wants the letter and nothing else; lmms-eval takes the first character of anything."""
    record = recorded("seed").questions
    told = [one for one in record if len(one.reply.strip()) <= 1 and not one.reply.strip().islower()]
    assert len(told) > 40
    assert told == ours(letters.exact_letter, told)
    assert all(letters.exact_letter(one.sample, one.reply) <= one.score for one in record)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("pope", pope.figures),
        ("mmbench", letters.circular),
        ("hrbench", letters.cycles),
        ("mme-realworld", mme_realworld.figures),
    ],
)
def test_figures_are_the_tools(name: str, figures: Callable[[Sequence[Scored]], dict[str, float]]) -> None:
    record = recorded(name)
    got = figures(record.questions)
    assert record.figures
    assert {key: got[key] for key in record.figures} == pytest.approx(record.figures)

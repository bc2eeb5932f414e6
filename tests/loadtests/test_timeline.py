"""Where a question's milliseconds go, from spans made up."""

from dataclasses import dataclass

from loadtests.timeline import gaps, spans_by_name

MS = 1_000_000
STAGES = ("queue", "fetch", "decode", "macro", "grounding", "crop", "micro", "select")


@dataclass
class Span:
    name: str
    span_id: bytes
    parent_span_id: bytes
    start_time_unix_nano: int
    end_time_unix_nano: int


def test_what_lies_between_spans_is_counted_in_milliseconds() -> None:
    spans = [Span("question", b"question", b"client", 2 * MS, 100 * MS)]
    for place, stage in enumerate(STAGES):
        began = (10 + 10 * place) * MS
        spans.append(Span(stage, stage.encode(), b"question", began, began + 7 * MS))
        if stage in ("macro", "grounding", "micro"):
            spans.append(Span("llm_request", b"turn", stage.encode(), began + 1 * MS, began + 5 * MS))
    found = gaps(spans_by_name(spans) | {"client": (0, 104 * MS)})
    assert found["sent → the question begins"] == 2
    assert found["`decode` → `macro`"] == 3
    assert found["`decode`"] == 7
    assert found["`micro` → its turn in vLLM: prompt and crop"] == 1
    assert found["grounding's turn → `grounding` ends"] == 2
    assert found["the question ends → received"] == 4

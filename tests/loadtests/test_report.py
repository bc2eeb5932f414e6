"""Goals judged and written down by code."""

from pathlib import Path

import pytest
from recorded import cell, pair, record, write_run

from loadtests.plan import full_plan
from loadtests.report import write_into, write_report
from loadtests.results.goals import goals_for, judge
from loadtests.results.run_files import read_run

CELLS = {
    "modes-1": [
        *pair("dual", "macro", [(4.0, 2.0), (4.2, 2.0), (4.1, 2.0)]),
        *(cell("drafted", number, [record(5.0)]) for number in range(3)),
    ],
    "uncached-16": [
        cell("dual", 0, [record(2.0), record(2.0)], 16),
        cell("uncached", 0, [record(3.0), record(3.0)], 16),
    ],
    "cached-1": pair("dual", "calls", [(1.0, 2.0)]),
    "adaptive-1": [
        cell("adaptive", 0, [record(1.0, outcome="skipped"), record(2.0)]),
        cell("macro", 0, [record(1.0), record(1.0)]),
    ],
    "calibration": [cell("macro", 0, [record(1.0, perplexity=2.5), record(1.0, perplexity=3.5)])],
    "arrivals": [cell("dual", 0, [record(1.0, 0.5), record(2.0, 2.0)], 2)],
}
FAILED = {"loop-16": "NotStarted: loop did not start | see its log"}
PAGE = "# Performance\n\nBefore.\n\n<!-- measured -->\nold\n<!-- /measured -->\n\nAfter.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", CELLS, FAILED)


def test_every_goal_is_of_an_experiment_that_is_run() -> None:
    plan = {e.key: {side.name for side in e.sides} for e in full_plan(1.0)}
    for subject in ("llava", "llava-7b", "small"):
        for goal in goals_for(subject):
            assert {goal.side, goal.against} <= plan[goal.experiment]


def test_goals_are_judged_by_the_median_of_the_rounds(folder: Path) -> None:
    judged = {(v.goal.experiment, v.goal.side): v for v in judge(read_run(folder))}
    dual = judged["modes-1", "dual"]
    assert dual.spread is not None
    assert (dual.spread.median, dual.spread.least, dual.spread.greatest) == pytest.approx((2.05, 2.0, 2.1))
    assert dual.is_reached
    assert not judged["modes-1", "drafted"].is_reached  # 2.5 times
    assert not judged["uncached-16", "dual"].is_reached  # 1.5 times, and 1.8 is the least
    assert judged["cached-1", "dual"].is_reached
    assert not judged["adaptive-1", "adaptive"].is_reached  # 1.5 times on average


def test_what_was_not_measured_is_not_reached_and_says_why(folder: Path) -> None:
    judged = {v.goal.experiment: v for v in judge(read_run(folder))}
    assert judged["loop-16"].spread is None
    assert not judged["loop-16"].is_reached
    assert "did not start" in judged["loop-16"].why
    assert judged["overhead-1"].why == "not run"


def test_the_report_says_what_was_measured(folder: Path) -> None:
    text = write_report(folder).read_text()
    assert "A processor, 2 cores, 24 GiB, vLLM 0.32.0, 2026-01-02, commit abc1234" in text
    assert "| llava | latency, two looks : macro | ≤ 2.2 | 2.05 (2.00-2.10, 3) | reached |" in text
    assert "| ≥ 1.8 | 1.50 (1.50-1.50, 1) | **missed** |" in text
    assert "- llava: `--skip-below 3`, 50 % of second looks skipped." in text
    assert "| llava | **all** | 1 | 0.571 | 2 | 1.5 | 1.95 | 1.99 |" in text
    assert "- llava, loop-16: NotStarted: loop did not start / see its log" in text


def test_a_missed_goal_shows_where_the_time_goes(folder: Path) -> None:
    text = write_report(folder).read_text().partition("### Where a goal is missed")[2]
    assert "the client's three calls, caching off (llava):" in text
    assert "| llava | two looks |  |  |  | 0.25 |  |  |  |  | 2 |" in text
    assert "latency, two looks : macro (llava)" not in text


def test_plots_are_drawn_and_linked(folder: Path) -> None:
    text = write_report(folder).read_text()
    for name in ("modes-llava.png", "arrivals-llava.png", "goals.png"):
        assert f"](plots/{name})" in text
        assert (folder / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_only_what_stands_between_the_markers_is_replaced(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)
    write_into(page, folder)
    once = page.read_text()
    assert once.startswith("# Performance\n\nBefore.\n\n<!-- measured -->\n")
    assert once.endswith("\n<!-- /measured -->\n\nAfter.\n")
    assert "old" not in once
    assert "](performance/goals.png)" in once
    assert (tmp_path / "performance" / "goals.png").exists()
    write_into(page, folder)
    assert page.read_text() == once


@pytest.mark.parametrize("text", ["no marker", "<!-- measured --> only", "<!-- /measured --><!-- measured -->"])
def test_a_page_without_both_markers_is_left_alone(folder: Path, tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="the report goes between them"):
        write_into(page, folder)
    assert page.read_text() == text


def test_the_projects_page_has_its_markers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    assert page.index("<!-- measured -->") < page.index("<!-- /measured -->")


def test_a_quick_run_is_called_one(folder: Path) -> None:
    machine = folder / "machine.json"
    machine.write_text(machine.read_text().replace('"quick": false', '"quick": true'))
    assert "too few questions to judge by" in write_report(folder).read_text()

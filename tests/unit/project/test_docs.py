"""What the documents list is what there is."""

import re
from pathlib import Path

import pytest
from dualfocus_engine.families.profiles import profile_names
from dualfocus_engine.method.results import AnswerName, FocusResult, SecondLook, Selection
from dualfocus_server.settings import Settings
from dualfocus_server.startup.startup_message import example_curl
from dualfocus_server.telemetry.metrics import outcome_of
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from ..builders import turn

DOCS = Path(__file__).parents[3] / "docs"
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
API = (DOCS / "api.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
PAGES = sorted(path for path in DOCS.parent.rglob("*.md") if not {".venv", "runs"} & set(path.parts))


def test_the_readmes_request_is_the_one_that_start_up_prints() -> None:
    assert example_curl("http://127.0.0.1:8000") in README


def test_every_profile_that_ships_has_a_row() -> None:
    models = (DOCS / "models.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([^`]+)` \| ", models.partition("\n## ")[0], re.MULTILINE))
    assert rows == {*profile_names(), "small"}


def named_in(section: str, page: str = API) -> set[str]:
    """The names in backticks in the first column of a section's table."""
    body = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    first_columns = re.findall(r"^\| (`[^|]*) \|", body, re.MULTILINE)
    return {name for column in first_columns for name in re.findall(r"`([^`]+)`", column)}


def test_every_field_of_openais_request_is_listed() -> None:
    theirs = set(CompletionCreateParamsBase.__annotations__)
    assert theirs - named_in("OpenAI's fields") == set()


def test_every_flag_of_the_server_is_listed() -> None:
    listed = {name.removeprefix("--").replace("-", "_") for name in named_in("Flags", OPERATIONS)}
    spelled = {
        "api_keys": "api_key",
        "admin_api_keys": "admin_api_key",
        "playground": "no_playground",
        "docs": "disable_fastapi_docs",
        "tokenizer_info": "enable_tokenizer_info_endpoint",
        "cors": "allowed_origins",
        "offline_docs": "enable_offline_docs",
        "unlogged_paths": "disable_access_log_for_endpoints",
    }
    ours = {spelled.get(name, name) for name in Settings.__dataclass_fields__}
    assert ours - listed == {"allowed_origins", "idle_timeout", "store_responses"}, (
        "vLLM's flag and variables, as they are there"
    )


def test_every_reason_for_a_choice_is_listed() -> None:
    assert named_in("The answer's `dualfocus` field") >= {selection.value for selection in Selection}


@pytest.mark.parametrize("selection", Selection)
@pytest.mark.parametrize("winner", ["macro", "micro"])
def test_every_selection_is_listed_with_its_outcome_in_the_metrics(selection: Selection, winner: AnswerName) -> None:
    (told,) = re.findall(rf"^\| `{selection.value}` \|.*\| ([^|]+) \|$", API, re.MULTILINE)
    look = SecondLook(micro=turn())
    assert outcome_of(FocusResult(winner, selection, turn(), look, 1.0)) == {"the winner": winner}.get(
        told, told.strip("`")
    )


def anchors(page: Path) -> set[str]:
    """What a page's headings are linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target

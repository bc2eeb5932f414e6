"""What is refused by name where several processes answer requests."""

import pytest
from dualfocus_engine import ConfigError
from dualfocus_server.settings import settings_of
from dualfocus_server.startup.arguments import parse_arguments
from dualfocus_server.startup.several.refusals import check_several

LORA, STORE = "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ENABLE_RESPONSES_API_STORE"


@pytest.mark.parametrize(
    ("flags", "variable", "named"),
    [
        ([], LORA, LORA),
        ([], STORE, STORE),
        (["--grounder", "grounding-dino:model"], None, "--grounder grounding-dino"),
        (["--enable-elastic-ep"], None, "--enable-elastic-ep"),
        (["--enable-fault-tolerance"], None, "--enable-fault-tolerance"),
        (["--data-parallel-backend", "ray"], None, "--data-parallel-backend"),
        (["--distributed-executor-backend", "ray"], None, "--distributed-executor-backend"),
    ],
)
def test_what_one_process_only_can_have_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], variable: str | None, named: str
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    args = parse_arguments(["--api-server-count", "2", *flags])
    with pytest.raises(ConfigError, match=rf"--api-server-count 2 can't be used with .*{named}.*: "):
        check_several(args, settings_of(args))


def test_all_else_is_taken() -> None:
    args = parse_arguments(["-asc", "2", "--grounder", "http:http://host", "--data-parallel-size", "2"])
    check_several(args, settings_of(args))

"""The commands of docs/systems.md, run from top to bottom on tiny stand-ins for what they download."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dualfocus_engine.conversion.command import main as convert
from dualfocus_engine.families.choosing import choose_profile
from dualfocus_server.startup.arguments import parse_arguments
from running_server import PATIENCE, start_server

from tests.engine.qwen_vl import original as qwen_vl
from tests.unit.conversion.original import (
    GRID,
    config,
    inside,
    language_weights,
    newline_weights,
    projector_weights,
    tower_weights,
    write_beside,
    write_checkpoint,
    write_tower,
)
from tests.unit.conversion.test_variants import adapter, share4v, write_adapter

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[3] / "docs" / "systems.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
HUB_NAME = re.compile(r"\b(?:liuhaotian|yhcao|Lin-Chen|openai|lmsys)/[\w.-]+")
# Of the systems, those whose files on the hub are served as they are.
AS_IT_IS = ("Qwen-VL-Chat",)
LLAVA = language_weights() | projector_weights()


def test_the_commands_of_the_page_run_from_top_to_bottom(
    tmp_path: Path, jpeg: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_stand_ins(tmp_path)
    (tmp_path / "picture.jpg").write_bytes(jpeg("coffee"))
    served, *others = [line for line in COMMANDS if line.startswith("dualfocus serve ")]
    asking = [line for line in COMMANDS if not line.startswith(("dualfocus serve ", "dualfocus convert "))]
    for line in COMMANDS:
        if line.startswith("dualfocus convert "):
            # In this process, for its imports' sake.
            named = HUB_NAME.sub(lambda name: str(tmp_path / name[0]), line)
            assert convert(shlex.split(named, comments=True)[2:]) == 0, line
    for line in (served, *others):  # one is started below; the others are read as their start reads them
        model = tmp_path / shlex.split(line, comments=True)[2]
        assert choose_profile(str(model)).profile.name in ("llava-dualfocus", "llava-next", "fifth-patch", "qwen-vl")
        parse_arguments(shlex.split(line, comments=True)[2:])
    _, _, model_name, *flags = shlex.split(served, comments=True)
    server = start_server(
        tmp_path / "log", "--max-model-len", "2048", *flags, model=(str(tmp_path / model_name), "--dtype", "float32")
    )
    try:
        told = [_run(tmp_path, _at(line, server.url)) for line in asking]
    finally:
        server.process.terminate()
        server.process.wait(PATIENCE)
    assert len(told) == len(asking) > 3
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["winner"] in ("macro", "micro") for answer in answers] == [True]


def test_every_system_has_what_to_convert_serve_and_ask() -> None:
    systems = re.findall(r"^### (.+?)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(systems) >= 6
    for name, section in systems:
        for command in ("serve", "ask") if name in AS_IT_IS else ("convert", "serve", "ask"):
            assert f"\ndualfocus {command} " in section, (name, command)


def _at(line: str, url: str) -> str:
    return f"{line} --base-url {url}" if line.startswith("dualfocus ") else line


def _run(folder: Path, line: str) -> str:
    """Run a line of the page as a shell does, and return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", re.sub(r"\s+# .*?(?= --base-url|$)", "", line)],
        cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def _write_stand_ins(folder: Path) -> None:
    """Write a tiny checkpoint in the original layout for each name, at that path."""
    clip = str(write_tower(folder / "openai/clip-vit-large-patch14-336", tower_weights(), whole_clip=True))
    beside = write_tower(folder / "Lin-Chen/ShareGPT4V-13B_Pretrained_vit-large336-l12", tower_weights(seed=6))
    next_fields = {
        "image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": GRID,
        "unfreeze_mm_vision_tower": True, "torch_dtype": "bfloat16",
    }  # fmt: skip
    for size in ("7", "13"):
        write_checkpoint(folder / f"liuhaotian/llava-v1.5-{size}b", config(clip), LLAVA, bins=True)
        own = LLAVA | inside(tower_weights())
        write_checkpoint(folder / f"yhcao/DualFocus-LLaVA-1.5-{size}B", config("/nowhere/clip"), own, bins=True)
        write_checkpoint(
            folder / f"liuhaotian/llava-v1.6-vicuna-{size}b", config("/nowhere/clip", **next_fields),
            own | newline_weights(),
        )  # fmt: skip
    flat = config("/nowhere/clip", **next_fields | {"mm_patch_merge_type": "flat"})
    write_checkpoint(folder / "my-llava-highres", flat, LLAVA | inside(tower_weights()))
    write_checkpoint(folder / "Lin-Chen/ShareGPT4V-13B", share4v(str(beside)), LLAVA, bins=True)
    own = LLAVA | inside(tower_weights(seed=6))
    write_checkpoint(folder / "yhcao/DualFocus-ShareGPT4V-13B", share4v("/nowhere/7B"), own, bins=True)
    language = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    write_checkpoint(folder / "lmsys/vicuna-7b-v1.5", language, language_weights(), bins=True)
    (folder / "Qwen/Qwen-VL-Chat").mkdir(parents=True)
    qwen_vl.write_beside(folder / "Qwen/Qwen-VL-Chat")
    write_adapter(folder / "my-llava-lora", clip, adapter()[0])
    (folder / "my-projector").mkdir()
    write_beside(folder / "my-projector", config(clip))
    torch.save(projector_weights(), folder / "my-projector" / "mm_projector.bin")

"""The model that ships, with tools and thoughts in its template and tokens: its servers write by a test's script."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from dualfocus_engine.shipped import SHIPPED_MODEL
from running_server import Server, start_server
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "scripted"
# What parsers look for: thoughts, calls, and where a turn begins, behind which Qwen3's looks for no older thought.
TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_start|>")
# As the template that ships, and: tools before all messages, tool calls, tools' results, a thought that is left out.
TEMPLATE = """
{{- bos_token -}}
{%- if tools -%}
{{- 'TOOLS: ' + (tools | tojson) + ' ' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' -}}
{%- if message['role'] == 'assistant' -%}
{{- ' ASSISTANT: ' -}}
{%- elif message['role'] == 'tool' -%}
{{- ' TOOL: ' -}}
{%- elif message['role'] == 'user' -%}
{{- 'USER: ' -}}
{%- endif -%}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- elif message['content'] -%}
{%- for part in message['content'] if part['type'] == 'image' -%}
{{- '<image>\\n' -}}
{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- for call in message['tool_calls'] or [] -%}
{{- '<tool_call>' + ({'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson) -}}
{{- '</tool_call>' -}}
{%- endfor -%}
{%- if message['role'] == 'assistant' -%}
{{- eos_token -}}
{%- elif message['role'] == 'system' -%}
{{- ' ' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|> ASSISTANT: ' -}}
{%- if enable_thinking is defined and not enable_thinking -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""


def make_scripted(folder: Path) -> Path:
    """Write the model into a folder that is not there yet, and return that."""
    shutil.copytree(SHIPPED_MODEL, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE.strip())
    profile = yaml.safe_load((folder / "dualfocus.yaml").read_text())
    profile["grounding_template_kwargs"] = {"enable_thinking": False}
    (folder / "dualfocus.yaml").write_text(yaml.safe_dump(profile))
    _add_tokens(folder)
    return folder


def _add_tokens(folder: Path) -> None:
    """Add the tokens: words of an answer, as in Qwen3, none of them special."""
    config, tokenizer = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer.json"))
    first = config["text_config"]["vocab_size"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"] += [{"id": first + at, "content": token} | flags for at, token in enumerate(TOKENS)]
    config["text_config"]["vocab_size"] += len(TOKENS)
    for name, content in (("config.json", config), ("tokenizer.json", tokenizer)):
        (folder / name).write_text(json.dumps(content))
    weights = load_file(folder / "model.safetensors")
    rows = {name: weight for name, weight in weights.items() if weight.shape[:1] == (first,)}
    mean = {name: weight.float().mean(0, keepdim=True).to(weight.dtype) for name, weight in rows.items()}
    grown = {name: torch.cat([weight, *[mean[name]] * len(TOKENS)]) for name, weight in rows.items()}
    save_file(weights | grown, folder / "model.safetensors", {"format": "pt"})


def start_scripted(folder: Path, *flags: str) -> Server:
    """Start a server of it in a folder for its model and its log."""
    model = (str(make_scripted(folder / "model")), "--served-model-name", "scripted", "--dtype", "float32")
    processor = ("--logits-processors", "writes_by_script:WritesByScript")
    return start_server(folder / "log", *processor, *flags, model=model, on_path=FOLDER)


def by_script(macro: str = "", micro: str = "") -> dict[str, Any]:
    """Return the field of a request that says what its turns write, up to what closes them.

    Text that does not end in `</s>` is gone on with by the model.
    """
    return {"vllm_xargs": {"script_macro": macro, "script_micro": micro}}


def in_words(macro: str, micro: str) -> str:
    """Return the same as words of a question, for an API that has no such field; no prompt holds its tokens."""
    scripts = {"script_macro": macro, "script_micro": micro}
    texts = {name: text.replace("<", "(").replace(">", ")") for name, text in scripts.items()}
    return " ".join(f"{name}={{{{{text}}}}}~" for name, text in texts.items())

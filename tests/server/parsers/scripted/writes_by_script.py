"""Has vLLM write what a test wants: a logits processor, in a folder that is on a test server's path alone.

It leans on vLLM 0.32's `AdapterLogitsProcessor` and on `SamplingParams.extra_args`, which is a request's `vllm_xargs`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

# The profile's words.
Q1 = "Provide the coordinates of the region this question is asking about:"
Q2 = "Combine these two images and answer the question:"
THOUGHT, BOX = "<think>Where?</think>", "[0.25, 0.25, 0.75, 0.75]</s>"
# Tokens at the end of a prompt among which an empty thought is closed.
_TAIL = 4
# As `in_words` of `scripted_model.py` writes it.
_IN_WORDS = re.compile(r"(script_\w+)=\{\{(.*?)\}\}~", re.DOTALL)


class WritesByScript(AdapterLogitsProcessor):
    """Writes `script_macro` and `script_micro` of a request's `vllm_xargs`, and a box wherever one is asked for.

    Without them it goes by those that stand last in the prompt's words: some APIs have no `vllm_xargs`.

    Where a script ends before its turn does, the model goes on by itself; what a grammar forbids is not written. A
    grounding turn whose prompt leaves it to think does so first.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        tokenizer = AutoTokenizer.from_pretrained(vllm_config.model_config.tokenizer)
        self._text: Callable[[list[int]], str] = tokenizer.decode
        self._tokens: Callable[[str], list[int]] = partial(tokenizer.encode, add_special_tokens=False)
        (self._thought,) = self._tokens("</think>")

    def is_argmax_invariant(self) -> bool:
        """It is there to change it."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., torch.Tensor]:
        """Return what forces a request's next token."""
        return partial(self._forced, params.extra_args or {})

    def _forced(
        self, scripts: dict[str, str], prompt: list[int], written: list[int], row: torch.Tensor
    ) -> torch.Tensor:
        script = self._tokens(self._script(scripts, prompt))[len(written) :]
        if not script or row[script[0]] == -torch.inf:
            return row
        only = torch.full_like(row, -torch.inf)
        only[script[0]] = row[script[0]]
        return only

    def _script(self, scripts: dict[str, str], prompt: list[int]) -> str:
        said = self._text(prompt)
        scripts = scripts or {name: _with_tokens(text) for name, text in _IN_WORDS.findall(said)}
        if Q2 in said:
            return scripts.get("script_micro", "")
        if Q1 in said:
            return BOX if self._thought in prompt[-_TAIL:] else THOUGHT + BOX
        return scripts.get("script_macro", "")


def _with_tokens(text: str) -> str:
    return text.replace("(", "<").replace(")", ">")

"""The released code's way to answer, behind HTTP: `python -m loadtests.asking.loop MODEL --port PORT`.

Three `generate` calls of `transformers` one after the other, one question at a time, every prompt and every picture
computed anew in each. The scoring pass that the released code makes besides is left out, in its favour. Where boxes are
held to a grammar (random weights), which `generate` has not, a fixed box stands for the one it wrote.
"""

import argparse
import base64
import io
import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from dualfocus_engine.families.boxes import Box, crop_region
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from PIL import Image

from loadtests.asking.machine import has_gpu

_FIXED_BOX = Box(0.3, 0.3, 0.7, 0.7)
_CLOSING = 1


class Loop:
    """A LLaVA in transformers, and the three calls."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

        self._profile: Profile = profile_of(folder)
        self._processor = AutoProcessor.from_pretrained(folder)
        self._device = "cuda" if has_gpu() else "cpu"
        try:
            model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
        except OSError:  # a shape without weights
            model = LlavaForConditionalGeneration(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
        self._model = model.eval().to(self._device)

    def answer(self, picture: Image.Image, question: str, sampling: dict[str, Any]) -> tuple[str, dict[str, float]]:
        """Answer one question; returns the last call's text, and the seconds of each call by turn."""
        profile, seconds = self._profile, {}
        talk = [{"role": "system", "content": profile.system}] if profile.system else []
        seconds["macro"], answer = self._generate([*talk, _user(question)], [picture], sampling)
        talk = [*talk, _user(profile.grounding_text(question))]
        limit = {"max_tokens": profile.max_box_tokens, "ignore_eos": bool(profile.box_format.grammar)}
        seconds["grounding"], written = self._generate(talk, [picture], limit)
        box = _FIXED_BOX if profile.box_format.grammar else profile.box_format.read(written)
        region = crop_region(box, picture.size, profile.crop) if box and not box.is_empty else None
        if box is None or region is None:
            return answer, seconds
        reply = {"role": "assistant", "content": profile.box_format.write(box)}
        talk = [*talk, reply, _user(profile.micro_text(question))]
        seconds["micro"], answer = self._generate(talk, [picture, picture.crop(region)], sampling)
        return answer, seconds

    def _generate(
        self, talk: list[dict[str, str]], pictures: list[Image.Image], limit: dict[str, Any]
    ) -> tuple[float, str]:
        import torch

        started = time.perf_counter()
        text = self._processor.tokenizer.apply_chat_template(
            talk, chat_template=self._processor.chat_template, tokenize=False, add_generation_prompt=True
        )
        inputs = self._processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        most = limit["max_tokens"]
        least = {"min_new_tokens": most} if limit.get("ignore_eos") else {}
        with torch.inference_mode():
            tokens = self._model.generate(
                **inputs.to(self._device), max_new_tokens=most, do_sample=False, eos_token_id=_CLOSING, **least
            )
        written = self._processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return time.perf_counter() - started, str(written)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": f"<image>\n{text}"}


def _picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


class _Handler(BaseHTTPRequestHandler):
    """Answers chat completion requests in the order they come, one at a time."""

    loop: Loop

    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, text = body["messages"][-1]["content"]
        answer, seconds = self.loop.answer(_picture(image["image_url"]["url"]), text["text"], body)
        outcome = "only_answer" if "micro" in seconds else "no_box"
        told = {"turns": {}, "stages": seconds, "macro": None, "selection": outcome}
        self._send({"choices": [{"message": {"role": "assistant", "content": answer}}], "dualfocus": told})

    def _send(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of each request."""


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description="Answer by three generate calls of transformers.")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    _Handler.loop = Loop(arguments.model)
    HTTPServer(("127.0.0.1", arguments.port), _Handler).serve_forever()


if __name__ == "__main__":
    main()

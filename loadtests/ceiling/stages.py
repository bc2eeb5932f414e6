"""Where the server's process spends its time, from the stacks that py-spy collects."""

from collections import Counter
from collections.abc import Iterable

# A stack is its innermost frame's that is known. Names of functions, files and packages, as py-spy writes them.
_STAGES = {
    "decoding": ("pictures/pictures.py", "pictures/formats.py", "as_rgb", "PIL/ImageFile.py"),
    "resizing, cropping": ("pictures/fitting.py", "_fit (", "crop (PIL", "resize (PIL", "in_srgb"),
    "vLLM's picture processor": ("_process_multimodal", "vllm/multimodal", "image_processing"),
    "template, tokens": ("render_messages", "chat_template", "tokeniz", "renderers/"),
    "to and from the engine": ("core_client", "serial_utils", "zmq"),
    "vLLM's outputs": ("output_handler", "output_processor", "detokenizer", "logprobs.py"),
    "the method": ("dualfocus_engine",),
    "request and answer": ("pydantic", "dualfocus_server", "json/"),
    "HTTP": ("uvicorn", "starlette", "fastapi", "h11", "httptools", "prometheus"),
}
OTHER = "the rest"
# Innermost frames of threads that wait, and of what watches; the event loop's own holds what it does in C as well.
_IDLE = (
    "Runner.run (asyncio",
    "wait (threading",
    "_worker (concurrent",
    "select (selectors",
    "acquire (",
    "get (queue",
    "LoopHold._tick (",
)


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Return each stage's share of the samples, from py-spy's lines (`outer;inner COUNT`); waiting is left out."""
    samples: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not any(name in frames[-1] for name in _IDLE):
            samples[_stage(frames)] += int(count)
    total = samples.total()
    return {stage: samples[stage] / total for stage in (*_STAGES, OTHER) if samples[stage]}


def _stage(frames: list[str]) -> str:
    named = (stage for frame in reversed(frames) for stage, names in _STAGES.items() if any(n in frame for n in names))
    return next(named, OTHER)

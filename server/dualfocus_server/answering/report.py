"""From the engine's result to a chat completion."""

import base64
import io
import math
from typing import Any

from dualfocus_engine import FocusResult, Mode, Picture, Region, Turn
from dualfocus_engine.method.perplexity import perplexity
from dualfocus_engine.method.results import Score
from dualfocus_engine.pictures.picture_cache import PictureCache
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseChoice
from vllm.entrypoints.serve.engine.protocol import CompletionTokenUsageInfo, PromptTokenUsageInfo, UsageInfo

from dualfocus_server.answering.protocol import AnswerReport, FocusReport, FocusResponse, GroundingReport, TurnReport

WINNER_HEADER, SELECTION_HEADER, BOX_HEADER = "X-DualFocus-Winner", "X-DualFocus-Selection", "X-DualFocus-Box"
_LOGGED = {"mode", "winner", "selection", "box", "crop", "macro", "micro"}
# Pixels of a side: a larger crop is sent scaled down, or one answer could be a hundred megabytes.
_LONGEST_SIDE = 2048


def completion(
    result: FocusResult, mode: Mode, model: str, answer_id: str, choice: ChatCompletionResponseChoice
) -> FocusResponse:
    """Return the chosen answer, which is `choice`, as a chat completion with its `dualfocus` field."""
    return FocusResponse(
        id=answer_id,
        model=model,
        choices=[choice],
        usage=usage(result),
        dualfocus=focus_report(result, mode),
    )


def usage(result: FocusResult) -> UsageInfo:
    """Count all turns; thoughts, the box and the losing answer count as reasoning."""
    turns = result.turns.values()
    prompt = sum(turn.prompt_tokens for turn in turns)
    generated = sum(turn.completion_tokens for turn in turns)
    return UsageInfo(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        prompt_tokens_details=PromptTokenUsageInfo(
            cached_tokens=sum(turn.cached_tokens for turn in turns),
            created_cache_tokens=sum(turn.cache_writes for turn in turns),
            multimodal_tokens={"image": sum(turn.image_places for turn in turns)},
        ),
        completion_tokens_details=CompletionTokenUsageInfo(reasoning_tokens=generated - len(result.answer.answer_ids)),
    )


def focus_report(result: FocusResult, mode: Mode) -> FocusReport:
    """Return everything the result holds, for the `dualfocus` field."""
    look, shared = result.look, result.shared
    return FocusReport(
        mode=mode.value,
        winner=result.winner,
        selection=result.selection.value,
        box=look.box.as_tuple() if look.box else None,
        crop=look.crop_box,
        grounding=_grounding(look.grounding),
        macro=_answer(result.macro, shared.macro if shared else None),
        micro=_answer(look.micro, shared.micro if shared else None),
        turns={name: _turn_report(turn) for name, turn in result.turns.items()},
        seconds=result.seconds,
        notes=list(result.notes),
    )


def headers_of(report: FocusReport) -> dict[str, str]:
    """Return winner, reason and box as headers, for clients that drop the `dualfocus` field; no box is no header."""
    box = {BOX_HEADER: ",".join(f"{corner:.4f}" for corner in report.box)} if report.box else {}
    return {WINNER_HEADER: report.winner, SELECTION_HEADER: report.selection} | box


def _grounding(turn: Turn | None) -> GroundingReport | None:
    return None if turn is None else GroundingReport(text=turn.text, finish_reason=turn.finish_reason)


def crop_url(pictures: PictureCache, picture: Picture, crop_box: Region) -> str:
    """Return a part of a picture as a data: URL with a PNG in it; work for a thread."""
    crop = pictures.crop(picture.original, crop_box)
    crop.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    png = io.BytesIO()
    crop.save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _answer(turn: Turn | None, score: Score | None) -> AnswerReport | None:
    if turn is None:
        return None
    return AnswerReport(
        text=turn.text,
        reasoning=turn.reasoning,
        perplexity=_finite(turn.perplexity),
        shared_perplexity=_finite(perplexity(score.mean_nll)) if score is not None else None,
        tokens=turn.completion_tokens,
        rescored=turn.rescored,
        finish_reason=turn.finish_reason,
    )


def _finite(number: float) -> float | None:
    """Return a number as JSON can hold it."""
    return number if math.isfinite(number) else None


def _turn_report(turn: Turn) -> TurnReport:
    return TurnReport(
        prompt_tokens=turn.prompt_tokens,
        image_tokens=turn.image_tokens,
        cached_tokens=turn.cached_tokens,
        computed_tokens=turn.computed_tokens,
        completion_tokens=turn.completion_tokens,
        encoder_runs=turn.encoder_runs,
        engine_steps=turn.engine_steps,
        seconds=turn.seconds,
    )


def answers_record(response: FocusResponse, client_id: str | None) -> dict[str, Any]:
    """Return what the answers log holds of an answer: its id beside the client's, what was said and where it looked."""
    return {"id": response.id, "request_id": client_id} | response.dualfocus.model_dump(include=_LOGGED)

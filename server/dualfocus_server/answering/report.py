"""From the engine's result to a chat completion."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

from dualfocus_engine import FocusResult, Mode, Picture, Region, SecondLook, Turn
from dualfocus_engine.method.perplexity import perplexity
from dualfocus_engine.method.results import Score, Verdict, name_of, turns_of
from dualfocus_engine.pictures.picture_cache import PictureCache
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseChoice
from vllm.entrypoints.serve.engine.protocol import CompletionTokenUsageInfo, PromptTokenUsageInfo, UsageInfo

from dualfocus_server.answering.protocol import (
    AnswerReport,
    FocusReport,
    FocusResponse,
    GroundingReport,
    LookReport,
    RegionReport,
    TurnReport,
)

WINNER_HEADER, SELECTION_HEADER, BOX_HEADER = "X-DualFocus-Winner", "X-DualFocus-Selection", "X-DualFocus-Box"
_LOGGED = {"mode", "winner", "selection", "box", "crop", "macro", "micro"}
# Pixels of a side: a larger crop is sent scaled down, or one answer could be a hundred megabytes.
_LONGEST_SIDE = 2048


def completion(
    results: Sequence[FocusResult], mode: Mode, model: str, answer_id: str, choices: list[ChatCompletionResponseChoice]
) -> FocusResponse:
    """Return the chosen answers, which are `choices`, as a chat completion with its `dualfocus` field."""
    return FocusResponse(
        id=answer_id,
        model=model,
        choices=choices,
        usage=usage(results),
        dualfocus=focus_report(results, mode),
    )


def usage(results: Sequence[FocusResult]) -> UsageInfo:
    """Count all turns; thoughts, the box and the losing answers count as reasoning.

    A prompt that several answers are drawn from counts once, as vLLM counts it.
    """
    turns = results[0].turns.values()
    prompt = sum(turn.prompt_tokens for turn in turns)
    generated = sum(turn.completion_tokens for _, turn in turns_of(results))
    answered = sum(result.answer.completion_tokens - result.answer.reasoning_tokens for result in results)
    return UsageInfo(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        prompt_tokens_details=PromptTokenUsageInfo(
            cached_tokens=sum(turn.cached_tokens for turn in turns),
            created_cache_tokens=sum(turn.cache_writes for turn in turns),
            multimodal_tokens={"image": sum(turn.image_places for turn in turns)},
        ),
        completion_tokens_details=CompletionTokenUsageInfo(reasoning_tokens=generated - answered),
    )


def focus_report(results: Sequence[FocusResult], mode: Mode) -> FocusReport:
    """Return everything the results hold, for the `dualfocus` field: of several, what each has of its own as lists."""
    first = results[0]
    return FocusReport(
        mode=mode.value,
        winner=_alone([result.winner for result in results]),
        selection=_alone([result.selection.value for result in results]),
        box=first.look.box.as_tuple() if first.look.box else None,
        crop=first.look.crop_box,
        regions=[RegionReport(box=at.box.as_tuple(), crop=at.crop, tokens=at.tokens) for at in first.look.regions],
        grounding=_grounding(first.look.grounding),
        macro=_alone([_answer(each.macro, each.shared and each.shared.macro, each.enough) for each in results]),
        micro=_alone(
            [_answer(each.look.micro, each.shared and each.shared.micro, each.look.enough) for each in results]
        ),
        looks=_looks(first) if first.looks else [],
        ending=first.ending.value if first.ending else None,
        turns=_turns(results),
        seconds=first.seconds,
        notes=list(first.notes),
    )


def _looks(result: FocusResult) -> list[LookReport]:
    """Return each of more than two looks, the first one without a place."""
    looks = [("macro", SecondLook(micro=result.macro, enough=result.enough))]
    looks += [(name_of("micro", number), look) for number, look in enumerate(result.looks, 1)]
    return [
        LookReport(
            turn=name,
            answer=_answer(look.micro, None, look.enough),
            box=look.box.as_tuple() if look.box else None,
            crop=look.crop_box,
            failed=look.failed.value if look.failed else None,
            chosen=look.micro is result.answer,
        )
        for name, look in looks
    ]


def _alone(each: list[Any]) -> Any:
    """Return what there is one of by itself."""
    return each[0] if len(each) == 1 else each


def _turns(results: Sequence[FocusResult]) -> dict[str, Any]:
    by_name: dict[str, list[TurnReport]] = {}
    for name, turn in turns_of(results):
        by_name.setdefault(name, []).append(_turn_report(turn))
    return {name: _alone(turns) for name, turns in by_name.items()}


def headers_of(report: FocusReport) -> dict[str, str]:
    """Return winner, reason and box as headers, for clients that drop the `dualfocus` field; no box is no header."""
    box = {BOX_HEADER: ",".join(f"{corner:.4f}" for corner in report.box)} if report.box else {}
    winners, selections = ([told] if isinstance(told, str) else told for told in (report.winner, report.selection))
    return {WINNER_HEADER: ",".join(winners), SELECTION_HEADER: ",".join(selections)} | box


def _grounding(turn: Turn | None) -> GroundingReport | None:
    return None if turn is None else GroundingReport(text=turn.text, finish_reason=turn.finish_reason)


def add_crops(report: FocusReport, pictures: PictureCache, picture: Picture) -> None:
    """Put the crop into a report, and those of several regions and of several looks; work for a thread."""
    several: list[RegionReport | LookReport] = [*(report.regions if len(report.regions) > 1 else ()), *report.looks]
    for shown in (report, *several):
        if shown.crop is not None:
            shown.crop_image = crop_url(pictures, picture, Region(*shown.crop))


def crop_url(pictures: PictureCache, picture: Picture, crop_box: Region) -> str:
    """Return a part of a picture as a data: URL with a PNG in it; work for a thread."""
    crop = pictures.crop(picture.original, crop_box, _LONGEST_SIDE)
    png = io.BytesIO()
    crop.save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _answer(turn: Turn | None, score: Score | None, enough: Verdict | None) -> AnswerReport | None:
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
        enough=enough.share if enough is not None else None,
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

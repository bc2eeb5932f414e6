"""`/v1/models`: what is served, all of it or one by its name."""

from typing import Any, cast

from dualfocus_engine import Profile
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelList

from dualfocus_server.answering.protocol import MODES
from dualfocus_server.answering.service import Service

router = APIRouter()


@router.get("/v1/models", responses={200: {"model": ModelList}})
async def list_models(raw_request: Request) -> Response:
    """List what is served; `--list-modes` adds the names that choose a mode, which clients take for more models."""
    service = cast("Service", raw_request.app.state.service)
    plain, by_mode = await _cards(service)
    return JSONResponse({"object": "list", "data": plain + (by_mode if service.list_modes else [])})


@router.get("/v1/models/{name:path}", responses={200: {"model": ModelCard}})
async def one_model(name: str, raw_request: Request) -> Response:
    """Describe what is served under a name, one that chooses a mode too."""
    service = cast("Service", raw_request.app.state.service)
    plain, by_mode = await _cards(service)
    found = next((card for card in plain + by_mode if card["id"] == name), None)
    return JSONResponse(found) if found else service.chat.no_such_model(name).response(raw_request.scope)


async def _cards(service: Service) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the cards of what is served, with the profile of each, and those of the names that choose a mode."""
    cards = [card.model_dump() for card in (await service.chat.models()).data]
    plain = [card | {"dualfocus": _about(service, service.focus_of(card["id"]).profile)} for card in cards]
    return plain, [card | {"id": f"{card['id']}:{mode}"} for card in plain for mode in MODES]


def _about(service: Service, profile: Profile) -> dict[str, Any]:
    return {"profile": profile.name, "verified": profile.verified or None, "grounder": service.grounder}

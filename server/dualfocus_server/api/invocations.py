"""`POST /invocations`, where SageMaker sends everything: the route that a body fits answers it."""

from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from dualfocus_server.guards.json_body import JsonRoute

router = APIRouter(route_class=JsonRoute)
# By the field that its bodies have, in the order in which vLLM tries them.
_ROUTES = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "prompt_embeds": "/v1/completions",
    "input": "/v1/responses",
}


@router.post("/invocations", response_model=None)
async def invocations(raw_request: Request) -> Response:
    """Answer a request as the route that its body fits does."""
    body = await raw_request.body()
    route = await _route_for(raw_request)
    return await route.get_route_handler()(Request(raw_request.scope, _again(body, raw_request.receive)))


async def _route_for(raw_request: Request) -> APIRoute:
    """Return the route that a body fits. Raises HTTPException where there is none."""
    offered = {field: route for field, path in _ROUTES.items() if (route := _route_at(raw_request.app, path))}
    try:
        body: Any = await raw_request.json()
    except (ValueError, RecursionError):
        return offered["messages"]  # which says what is wrong with it
    for field, route in offered.items():
        if isinstance(body, dict) and field in body:
            return route
    raise HTTPException(400, f"The body is not a request that is answered here: it has none of {', '.join(offered)}.")


def _route_at(app: FastAPI, path: str) -> APIRoute | None:
    routes = (route for route in app.routes if isinstance(route, APIRoute))
    return next((route for route in routes if route.path == path and "POST" in route.methods), None)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return left.pop() if left else await receive()

    return received

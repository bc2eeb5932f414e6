"""When vLLM has rendered the prompt of a request that it answers: it reads the request's pictures no more.

Leans on vLLM 0.32's renderer, by which all its servings render conversations (`render_chat_async`).
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_on_rendered: ContextVar[Callable[[], None] | None] = ContextVar("on_rendered", default=None)


def once_rendered(do: Callable[[], None]) -> None:
    """Have `do` called as soon as the prompt of the conversation that this task has vLLM answer is rendered."""
    _on_rendered.set(do)


def watch_rendering(renderer: Any) -> None:
    """Have vLLM's renderer call what `once_rendered` was given."""
    render = renderer.render_chat_async

    async def rendered(*given: Any, **named: Any) -> Any:
        made = await render(*given, **named)
        if (do := _on_rendered.get()) is not None:
            do()
        return made

    renderer.render_chat_async = rendered

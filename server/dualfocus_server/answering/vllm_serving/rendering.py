"""When vLLM has rendered the prompt of a request that it answers: it reads the request's pictures no more.

Leans on vLLM 0.32's renderer, by which all its servings render conversations (`render_chat_async`), and on the
`mm_hashes` of what it makes of one with pictures.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

# Given the keys by which vLLM's caches have the conversation's pictures, in their order.
OnRendered: TypeAlias = Callable[[Sequence[str]], None]
_on_rendered: ContextVar[OnRendered | None] = ContextVar("on_rendered", default=None)


def once_rendered(do: OnRendered) -> None:
    """Have `do` called as soon as the prompt of the conversation that this task has vLLM answer is rendered."""
    _on_rendered.set(do)


def watch_rendering(renderer: Any) -> None:
    """Have vLLM's renderer call what `once_rendered` was given."""
    render = renderer.render_chat_async

    async def rendered(*given: Any, **named: Any) -> Any:
        made = await render(*given, **named)
        if (do := _on_rendered.get()) is not None:
            _, prompts = made
            do([key for prompt in prompts for key in prompt.get("mm_hashes", {}).get("image", ())])
        return made

    renderer.render_chat_async = rendered

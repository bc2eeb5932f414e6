"""Hooks that vLLM calls in its scheduler, in its workers and behind its outputs: an exception would end the engine."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

# A hook that fails does so in every step: its traceback is logged this often at most.
_LOG_INTERVAL_S = 60.0


def never_raises(fallback: Callable[..., Any]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a hook return what `fallback` makes of the same arguments where it raises; the error is logged."""

    def decorate(hook: Callable[P, T]) -> Callable[P, T]:
        last_logged = -_LOG_INTERVAL_S

        @functools.wraps(hook)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            nonlocal last_logged
            try:
                return hook(*args, **kwargs)
            except Exception:
                if time.monotonic() - last_logged >= _LOG_INTERVAL_S:
                    last_logged = time.monotonic()
                    logger.exception("%s failed; the engine goes on without it.", hook.__qualname__)
                return cast("T", fallback(*args, **kwargs))

        return guarded

    return decorate

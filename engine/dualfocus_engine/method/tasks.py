"""Tasks that run side by side."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrap_exception_group() -> Iterator[None]:
    """Raise the first error of a task group within by itself: the group has ended the others."""
    try:
        yield
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None

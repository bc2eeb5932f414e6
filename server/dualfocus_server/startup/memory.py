"""Keeps some of the memory that decoded pictures leave behind for the next ones; the rest goes back to the system."""

import ctypes
import gc

from PIL import _imaging

# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# The largest that glibc takes.
_LARGE = 32 << 20
# Pillow cuts pictures into blocks of so much: one that is larger than `_LARGE` is not to be made of smaller ones.
_BLOCK = 64 << 20
_KEPT = 64 << 20


def return_freed_memory() -> None:
    """Let glibc give freed memory back once there are more than 64 MB of it together, blocks of over 32 MB at once.

    To get all its pages from the system took longer than to decode a picture, so what one took is kept for the next,
    whichever thread decodes it. Left alone, glibc raises both limits with the largest block it has freed,
    for each thread by itself, and a few large pictures would stay in the process's size for ever. Nothing is done where
    the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        _imaging.set_block_size(_BLOCK)


def freeze_gc_heap() -> None:
    """Keep what start-up has made out of garbage collections, as vLLM's server does.

    One of the oldest generation looks at all of it, half a second, while no request is read or answered.
    """
    gc.collect()
    gc.freeze()

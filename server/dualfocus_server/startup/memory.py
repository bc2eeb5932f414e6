"""Gives the memory of decoded pictures back to the system."""

import ctypes

_M_MMAP_THRESHOLD = -3  # of glibc's mallopt
_LARGE = 1 << 20


def return_freed_memory() -> None:
    """Let glibc map every block of a megabyte or more by itself, so that freeing it returns it.

    Left alone, glibc raises that limit with the largest block it has freed, up to 32 MB, and keeps what it frees: a few
    large pictures would stay in the process's size for ever. Nothing is done where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)

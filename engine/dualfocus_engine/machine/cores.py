"""How many processor cores this process may use."""

import math
import os
from pathlib import Path

# Where Linux says what share of the processor a container gets: microseconds of so many, or `max`.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return the cores that this process may run on, no more than its container's share of the processor."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, int(min(allowed, _quota())))


def _quota() -> float:
    """Return the container's share in cores; infinite where there is no limit, or none that can be read."""
    try:
        share, period = _QUOTA.read_text(encoding="ascii").split()
        return int(share) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf

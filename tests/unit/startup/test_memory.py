"""What the server has freed is used again, page by page."""

import subprocess
import sys

import pytest

_PICTURE, _TIMES = 1_900_000, 50  # the bytes of 800 x 600 pixels, made and freed so often
_PAGE = 4096
_COUNT = f"""
import resource, sys
from dualfocus_server.startup.memory import return_freed_memory
return_freed_memory()
def make(): bytearray({_PICTURE})
make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({_TIMES}): make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_a_freed_pictures_pages_are_not_asked_of_the_system_again() -> None:
    faults = int(subprocess.run([sys.executable, "-c", _COUNT], check=True, capture_output=True).stdout)
    assert faults < _PICTURE // _PAGE, "each picture's pages were new"


def test_the_heap_is_frozen_for_garbage_collections() -> None:
    script = (
        "import gc; from dualfocus_server.startup.memory import freeze_gc_heap\n"
        "made = [[] for _ in range(999)]; freeze_gc_heap(); assert gc.get_freeze_count() > 999"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

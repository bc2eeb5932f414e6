"""What decoding takes is measured: no more than is reckoned from a file beforehand."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from dualfocus_engine import Region
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_engine.pictures.pictures import read_source_image
from hostile_memory import avif_claiming, tiff_of_a_tile
from PIL import Image

from ..builders import encoded, plain

# Prints the peak over what the process had, once it has decoded a small file of the kind.
MEASURE = """
import sys
from pathlib import Path
from dualfocus_engine.pictures.pictures import read_source_image

def kilobytes(name):
    return int(next(line for line in Path("/proc/self/status").open() if line.startswith(name)).split()[1])

small, large = (read_source_image(Path(path)) for path in sys.argv[1:])
small.decode()
before = kilobytes("VmRSS")
large.decode()
print(1024 * (kilobytes("VmHWM") - before))
"""
# Threads, tables and the pieces that are converted at once.
SLACK = 8 << 20
SIDE = 2048


def noisy(mode: str) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    coarse = np.random.default_rng(7).integers(0, 256, (SIDE // 8, SIDE // 8, bands), np.uint8)
    return Image.frombytes(mode, (SIDE, SIDE), np.repeat(np.repeat(coarse, 8, 0), 8, 1).tobytes())


def jpeg(side: int) -> bytes:
    return encoded(noisy("CMYK").resize((side, side)), "JPEG", progressive=True, quality=90, subsampling=0)


def in_one_strip(side: int) -> bytes:
    return encoded(noisy("CMYK").resize((side, side)), "TIFF", compression="lzma", tiffinfo={278: side})


def avif(side: int) -> bytes:
    return encoded(noisy("RGBA").resize((side, side)), "AVIF", subsampling="4:4:4", speed=10)


CASES: dict[str, Callable[[int], bytes]] = {
    "JPEG of four channels": jpeg,
    "TIFF in one strip": in_one_strip,
    "TIFF in one tile": lambda side: tiff_of_a_tile(2 * side, 2 * side),
    "AVIF": avif,
    "AVIF that claims less": lambda side: avif_claiming(2 * side, 16, "RGBA"),
    "AVIF that claims more": lambda side: avif_claiming(64, side, "RGBA"),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", CASES)
def test_decoding_takes_no_more_than_is_reckoned(tmp_path: Path, name: str) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(CASES[name](64))
    large.write_bytes(CASES[name](SIDE))
    measured = subprocess.run([sys.executable, "-c", MEASURE, small, large], capture_output=True, text=True, check=True)
    taken, reckoned = int(measured.stdout), read_source_image(large).decoding_bytes
    assert SIDE * SIDE < taken <= reckoned + SLACK, f"{taken:,} of {reckoned:,} bytes"


def test_a_copy_of_a_part_of_what_is_kept_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads as many as cores may each copy nearly all of it."""
    cache, picture = PictureCache(None, None), plain(size=(100, 100))
    held: list[int] = []

    @contextmanager
    def hold(amount: int) -> Iterator[None]:
        held.append(amount)
        yield

    monkeypatch.setattr(cache.memory, "hold", hold)
    monkeypatch.setitem(cache._wholes, picture.original.key, picture.decode())
    cache.crop(picture.original, Region(0, 0, 90, 80), 50)
    cache.encoder_input(picture.crop(Region(0, 0, 50, 40)))
    assert held == [90 * 80 * 4, 50 * 40 * 4]

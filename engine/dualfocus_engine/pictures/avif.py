"""AVIF files beyond what libavif judges: frames larger than the picture, hidden frames, and lists without an end.

libavif scales what it decodes to the size that the file claims, and reads a file's lists before anyone can judge it.
"""

import re
import struct
from collections.abc import Callable, Iterator

from dualfocus_engine.errors import BadPicture

_BRANDS = {b"avif", b"avis", b"mif1", b"msf1"}
# Boxes that hold boxes, with the bytes that come before those.
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
# Lists, of which libavif makes a hundred times as many bytes.
_LISTS = {b"iloc", b"iinf", b"iref", b"ipma", b"grpl", b"stsz", b"stsc", b"stco", b"co64", b"stts", b"stss"}
_MAX_LIST_BYTES = 256 << 10
_MAX_BOXES = 1000
# Parts of items: one that names neither place nor length takes no byte in the file, and 16 in memory.
_MAX_PARTS = 4096
# An item of AV1 in the list of items, by its id of two bytes or four; one entry may begin inside another.
_AV1_ITEM = re.compile(rb"infe(?=\x02...(..)..av01|\x03...(....)..av01)", re.DOTALL)
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _REPEATED_FRAME_HEADER = 1, 3, 6, 7
_MAX_UNITS = 100_000
# A sequence header's, with all operating points that there may be.
_MAX_HEADER_BYTES = 512
# libavif's own bound.
_MAX_FRAME_PIXELS = 16_384 * 16_384


class _Numbers:
    """Reads big-endian numbers one after another."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self._at = data, at

    def take(self, size: int) -> int:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise BadPicture("The image is damaged or cut short: a list in it ends too early.")
        self._at += size
        return int.from_bytes(piece)


class _Bits:
    """Reads numbers of some bits one after another."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, size: int) -> int:
        self._left -= size
        if self._left < 0:
            raise BadPicture("The image is damaged or cut short: a header in it ends too early.")
        return self._bits >> self._left & ((1 << size) - 1)


def check_lists(data: bytes) -> None:
    """Raise BadPicture where libavif would take much memory or time only to open a file."""
    if data[4:8] != b"ftyp" or data[8:12] not in _BRANDS:
        return
    for name, start, end in _boxes(data, 0, len(data)):
        if name in _LISTS and end - start > _MAX_LIST_BYTES:
            raise BadPicture(f"The image is damaged: it has a list ({name.decode()}) of {end - start:,} bytes.")
        if name == b"iloc":
            list(_items(data, start))


def coded_pixels(data: bytes) -> int:
    """Return the pixels that an AVIF file's frames may have before libavif scales them, those of hidden ones too.

    Raises BadPicture where they can't be told.
    """
    boxes = list(_boxes(data, 0, len(data)))
    items = sum(map(_pixels, _coded_items(data, boxes)))
    samples = sum(map(_pixels, _first_samples(data, boxes)))
    if not items + samples:
        raise BadPicture("The image is damaged or cut short: no frame is found in it.")
    return max(items, samples)  # one of both is decoded


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each box, also of those in others, and where its content begins and ends."""
    spans, number = [(start, end)], 0
    while spans:
        at, end = spans.pop()
        while at + 8 <= end:
            if (number := number + 1) > _MAX_BOXES:
                raise BadPicture(f"The image is damaged: it is in more than {_MAX_BOXES:,} boxes.")
            name, at, stop = _box(data, at, end)
            yield name, at, stop
            if name in _CONTAINERS:
                spans.append((at + _CONTAINERS[name], stop))
            at = stop


def _box(data: bytes, at: int, end: int) -> tuple[bytes, int, int]:
    size, name = struct.unpack_from(">I4s", data, at)
    content = at + 8
    if size == 1:
        (size,) = struct.unpack_from(">Q", data, content)
        content += 8
    stop = min(at + size, end) if size else end
    if stop < content:
        raise BadPicture("The image is damaged: a box in it is shorter than its own head.")
    return name, content, stop


def _coded_items(data: bytes, boxes: list[tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield the AV1 data of each item that has such."""
    stores = [start for name, start, _ in boxes if name == b"idat"]
    coded = {int.from_bytes(found[1] or found[2]) for found in _AV1_ITEM.finditer(data)}
    left = len(data) * max(len(stores), 1)
    for start in (start for name, start, _ in boxes if name == b"iloc"):
        for item, is_stored, parts in _items(data, start):
            left -= sum(length for _, length in parts)
            if left < 0:
                raise BadPicture("The image is damaged: its parts are longer than the file.")
            if item in coded:
                for store in stores if is_stored else (0,):
                    yield b"".join(data[store + at : store + at + length] for at, length in parts)


def _items(data: bytes, start: int) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yield the id of each item in an iloc box, whether it is stored in idat, and its parts: place and length."""
    take = _Numbers(data, start).take
    version, sizes = take(4) >> 24, take(2)
    place_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    id_size, left = 4 if version == 2 else 2, _MAX_PARTS
    for _ in range(take(id_size)):
        item, is_stored = take(id_size), bool(version and take(2) & 15)
        take(2)
        base, number = take(base_size), take(2)
        left -= number
        if left < 0:
            raise BadPicture(f"The image is damaged: it is in more than {_MAX_PARTS:,} parts.")
        parts = []
        for _ in range(number):
            take(index_size if version else 0)
            parts.append((base + take(place_size), take(length_size)))
        yield item, is_stored, parts


def _first_samples(data: bytes, boxes: list[tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield the first sample of each track: a sequence's first frame, and its transparency."""
    for start, end in ((start, end) for name, start, end in boxes if name == b"trak"):
        lists = list(_boxes(data, start, end))
        sizes = [_first_size(data, at) for name, at, _ in lists if name == b"stsz"]
        for name, at, _ in lists:
            if name in (b"stco", b"co64"):
                place = _Numbers(data, at + 8).take(8 if name == b"co64" else 4)
                yield data[place : place + max(sizes, default=0)]


def _first_size(data: bytes, at: int) -> int:
    """Return the size of a track's first sample, from its stsz box."""
    take = _Numbers(data, at + 4).take
    return take(4) or (take(4) and take(4))


def _pixels(coded: bytes) -> int:
    """Return the pixels of all frames in AV1 data, each as large as any of its headers lets one be."""
    largest, frames = 0, 0
    for kind, start, end in _units(coded):
        if kind == _SEQUENCE_HEADER:
            largest = max(largest, _largest_frame(coded[start : min(end, start + _MAX_HEADER_BYTES)]))
        frames += kind in (_FRAME_HEADER, _FRAME, _REPEATED_FRAME_HEADER)
    return largest * frames


def _units(coded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the type of each unit (OBU) of AV1 data, and where its content begins and ends."""
    at = number = 0
    while at < len(coded):
        if (number := number + 1) > _MAX_UNITS:
            raise BadPicture(f"The image is damaged: a frame in it is in more than {_MAX_UNITS:,} parts.")
        head = coded[at]
        at += 2 if head & 4 else 1
        end = len(coded)
        if head & 2:
            length, at = _leb128(coded, at)
            end = at + length
        yield head >> 3 & 15, at, end
        at = end


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    number = 0
    for index, byte in enumerate(data[at : at + 8]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    raise BadPicture("The image is damaged or cut short: a length in it has no end.")


def _largest_frame(header: bytes) -> int:
    """Return how many pixels a frame may have by AV1's sequence header."""
    take = _Bits(header).take
    take(4)
    is_short = take(1)
    take(5) if is_short else _pass_timing(take)
    bits = take(4) + 1, take(4) + 1
    width, height = (take(size) + 1 for size in bits)
    # Under a long header each frame may name a size of its own, of as many bits.
    return min(width * height if is_short else 1 << sum(bits), _MAX_FRAME_PIXELS)


def _pass_timing(take: Callable[[int], int]) -> None:
    """Read past what a sequence header says of times and of operating points."""
    delay_bits = 0
    if take(1):
        take(64)
        if take(1):
            _pass_exponential(take)
        if take(1):
            delay_bits = take(5) + 1
            take(42)
    is_delayed = take(1)
    for _ in range(take(5) + 1):
        take(12)
        if take(5) > 7:
            take(1)
        if delay_bits and take(1):
            take(2 * delay_bits + 1)
        if is_delayed and take(1):
            take(4)


def _pass_exponential(take: Callable[[int], int]) -> None:
    zeros = 0
    while not take(1):
        zeros += 1
    take(zeros)

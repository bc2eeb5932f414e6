"""Opening pictures upright, what can't be opened, keys, crops and what the encoder is shown."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from dualfocus_engine.errors import BadPicture
from dualfocus_engine.families.boxes import Region
from dualfocus_engine.pictures.fitting import fit, pad_to_square, resize
from dualfocus_engine.pictures.pictures import ImageLimits, open_picture
from PIL import Image

from ..builders import ORIENTATION, encoded, oriented, stored_as

MEAN = (122, 116, 104)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_of_any_orientation_comes_out_upright(chelsea: Image.Image, orientation: int) -> None:
    opened = open_picture(oriented(chelsea, orientation, "JPEG"))
    assert opened.size == chelsea.size
    difference = np.abs(np.asarray(opened.decode(), int) - np.asarray(chelsea, int)).mean()
    assert difference < 3, "not the upright photo, within JPEG's loss"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_orientation_costs_no_pixel(coffee: Image.Image, orientation: int, kind: str) -> None:
    small = coffee.resize((60, 40))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(stored_as(np.asarray(small), orientation)))
    data = encoded(stored, kind, exif=exif, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert np.array_equal(np.asarray(open_picture(data).decode()), np.asarray(small))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientation_that_means_nothing_is_ignored(chelsea: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert open_picture(encoded(chelsea, "JPEG", exif=exif)).size == chelsea.size


def test_turned_photo_with_an_odd_tag_still_opens_upright(chelsea: Image.Image) -> None:
    """Cameras and editors write tags of the wrong type; browsers show such photos, upright."""
    rational_maker = struct.pack(">HHII", 0x010F, 5, 1, 38)  # Make, which should be text
    turned = struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + rational_maker + turned + struct.pack(">III", 0, 72, 1)
    stored = Image.fromarray(np.ascontiguousarray(stored_as(np.asarray(chelsea), 6)))
    assert open_picture(encoded(stored, "JPEG", exif=exif)).size == chelsea.size


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_photo_whose_exif_can_not_be_read_opens_as_it_is_stored(chelsea: Image.Image, exif: bytes) -> None:
    assert open_picture(encoded(chelsea, "JPEG", exif=exif)).size == chelsea.size


def test_nothing_is_left_that_could_turn_a_picture_twice(chelsea: Image.Image) -> None:
    once = open_picture(oriented(chelsea, 6, "JPEG"))
    assert once.decode().info == {}
    assert open_picture(once.decode()).size == once.size == chelsea.size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_file_that_is_upright_and_rgb_already_is_not_copied_once_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, chelsea: Image.Image, kind: str
) -> None:
    copied: list[object] = []
    monkeypatch.setattr(Image.Image, "paste", lambda *given: copied.append(given))
    open_picture(encoded(chelsea, kind))
    assert copied == []
    open_picture(encoded(chelsea.convert("L"), kind))
    assert copied


def test_pillow_image_is_turned_upright_too(chelsea: Image.Image) -> None:
    turned = chelsea.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ORIENTATION] = 6
    assert np.array_equal(np.asarray(open_picture(turned).decode()), np.asarray(chelsea))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_file_keeps_every_pixel(china: Image.Image, kind: str) -> None:
    assert np.array_equal(np.asarray(open_picture(encoded(china, kind)).decode()), np.asarray(china))


def test_file_is_opened_by_its_path(tmp_path: Path, china: Image.Image) -> None:
    path = tmp_path / "china.png"
    china.save(path)
    assert open_picture(path).key == open_picture(str(path)).key == open_picture(path.read_bytes()).key


@pytest.mark.parametrize("name", ["absent.png", ".", "a" * 300, "nul\0byte"])
def test_file_that_can_not_be_read_is_a_bad_picture(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadPicture, match=r"file"):
        open_picture(str(tmp_path / name))


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>", b"{}" * 9999]
)
def test_what_is_no_image_is_a_bad_picture(data: bytes) -> None:
    with pytest.raises(BadPicture, match=r"^The image .+\.$"):
        open_picture(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.95])
def test_file_cut_short_is_a_bad_picture(chelsea: Image.Image, kind: str, share: float) -> None:
    data = encoded(chelsea, kind)
    with pytest.raises(BadPicture):
        open_picture(data[: int(len(data) * share)])


def test_pillow_image_that_turns_out_to_be_cut_short_is_a_bad_picture(tmp_path: Path, chelsea: Image.Image) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(chelsea, "JPEG")[:5000])
    with Image.open(path) as lazy, pytest.raises(BadPicture):
        open_picture(lazy)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_closed_pillow_image_is_a_bad_picture(chelsea: Image.Image, kind: str) -> None:
    with Image.open(io.BytesIO(encoded(chelsea, kind))) as closed:
        pass
    with pytest.raises(BadPicture, match=r": \w.+\.$"):
        open_picture(closed)


def test_pillow_image_is_the_callers_still(chelsea: Image.Image) -> None:
    theirs = chelsea.copy()
    theirs.info["title"] = "cat"
    opened = open_picture(theirs).decode()
    opened.putpixel((0, 0), (1, 2, 3))
    assert theirs.info == {"title": "cat"}
    assert np.array_equal(np.asarray(theirs), np.asarray(chelsea))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_file_is_a_picture_or_a_bad_picture(chelsea: Image.Image, kind: str) -> None:
    whole = encoded(chelsea.resize((40, 28)), kind)
    rng = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(min(len(damaged), rng.choice([64, 300, len(damaged)])))] = rng.integers(256)
        try:
            open_picture(bytes(damaged))
        except BadPicture:
            continue  # anything else than a picture or this fails the test


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 1), (60_000, 60_000)])
def test_few_bytes_that_claim_a_huge_image_are_a_bad_picture(size: tuple[int, int]) -> None:
    with pytest.raises(BadPicture, match="pixels"):
        open_picture(_png_header(*size))


def test_limit_of_pixels_is_the_callers(chelsea: Image.Image) -> None:
    pixels = chelsea.width * chelsea.height
    assert open_picture(encoded(chelsea), ImageLimits(pixels)).size == chelsea.size
    with pytest.raises(BadPicture, match=r"451x300: more than 135,299 pixels"):
        open_picture(encoded(chelsea), ImageLimits(pixels - 1))
    with pytest.raises(BadPicture, match=r"451x300: more than 135,299 pixels"):
        open_picture(chelsea, ImageLimits(pixels - 1))


@pytest.mark.parametrize("size", [(100_000, 1_790), (13_378, 13_378)])
def test_too_many_pixels_are_refused_by_the_header_alone(size: tuple[int, int]) -> None:
    with pytest.raises(BadPicture, match="more than 178,956,970 pixels"):
        open_picture(_png_header(*size))


@pytest.mark.parametrize("size", [(40_000, 100), (100, 40_000), (1, 20_000)])
def test_long_thin_picture_makes_no_giant_square(size: tuple[int, int]) -> None:
    square = pad_to_square(Image.new("RGB", size, (255, 0, 0)), MEAN)
    assert square.width == square.height <= 8_000
    assert square.getpixel(((square.width - 1) // 2, (square.height - 1) // 2)) == (255, 0, 0)


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch, chelsea: Image.Image) -> None:
    """Pillow opens EPS by running Ghostscript on it: a client's file must not get that far."""
    from PIL import EpsImagePlugin

    runs: list[object] = []

    def ghostscript(*given: object, **options: object) -> object:
        runs.append(given)
        return chelsea.im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    with pytest.raises(BadPicture, match="PostScript"):
        open_picture(encoded(chelsea, "EPS"))
    assert not runs


def test_first_frame_of_an_animation_is_the_picture(chelsea: Image.Image, coffee: Image.Image) -> None:
    frames = [chelsea.resize((60, 40)), coffee.resize((60, 40))]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(np.asarray(open_picture(data).decode()), np.asarray(frames[0]))


def test_same_bytes_have_the_same_key_and_others_another(chelsea: Image.Image, coffee: Image.Image) -> None:
    data = encoded(chelsea)
    assert open_picture(data).key == open_picture(bytes(data)).key
    assert open_picture(data).key != open_picture(encoded(coffee)).key


def test_one_pixel_makes_another_key(chelsea: Image.Image) -> None:
    touched = chelsea.copy()
    touched.putpixel((3, 3), (1, 2, 3))
    assert open_picture(chelsea).key == open_picture(chelsea.copy()).key
    assert open_picture(chelsea).key != open_picture(touched).key


def test_same_pixels_in_another_shape_make_another_key() -> None:
    assert open_picture(Image.new("RGB", (20, 30))).key != open_picture(Image.new("RGB", (30, 20))).key


def test_crop_keeps_native_resolution(china: Image.Image) -> None:
    crop = open_picture(china).crop(Region(100, 50, 333, 217))
    assert crop.size == (233, 167)
    assert np.array_equal(np.asarray(crop.decode()), np.asarray(china)[50:217, 100:333])


def test_crops_are_told_apart_by_picture_and_region(china: Image.Image, coffee: Image.Image) -> None:
    regions = [Region(0, 0, 10, 10), Region(0, 0, 10, 11), Region(0, 1, 10, 10), Region(1, 10, 100, 110)]
    pictures = [open_picture(china), open_picture(coffee)]
    keys = {picture.crop(region).key for picture in pictures for region in regions} | {p.key for p in pictures}
    assert len(keys) == 10
    assert pictures[0].crop(regions[0]).key == open_picture(china).crop(regions[0]).key


@pytest.mark.parametrize(
    ("size", "offset"),
    [((4, 2), (0, 1)), ((2, 4), (1, 0)), ((5, 2), (0, 1)), ((2, 5), (1, 0)), ((1, 8), (3, 0)), ((7, 1), (0, 3))],
)
def test_padding_is_centred_as_llava_was_trained(size: tuple[int, int], offset: tuple[int, int]) -> None:
    padded = np.asarray(pad_to_square(Image.new("RGB", size, (255, 0, 0)), MEAN))
    side, (x, y) = max(size), offset
    assert padded.shape == (side, side, 3)
    inside = np.zeros((side, side), bool)
    inside[y : y + size[1], x : x + size[0]] = True
    assert (padded[inside] == (255, 0, 0)).all()
    assert (padded[~inside] == MEAN).all()


def test_square_picture_needs_no_padding(astronaut: Image.Image) -> None:
    assert np.array_equal(np.asarray(pad_to_square(astronaut, MEAN)), np.asarray(astronaut))


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (336, 336), (1, 900), (900, 1), (1, 1)])
def test_encoder_is_shown_a_square_of_its_side(size: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", size), MEAN, 336).size == (336, 336)


def test_whole_width_is_shown_and_the_bars_have_the_mean_colour(china: Image.Image) -> None:
    shown = np.asarray(fit(china, MEAN, 336), int)
    bar = round(336 * (640 - 427) / 2 / 640)
    assert (shown[: bar - 4] == MEAN).all()
    assert (shown[336 - bar + 4 :] == MEAN).all()
    picture = np.asarray(china.resize((336, 224), Image.Resampling.BICUBIC), int)
    assert np.abs(shown[56:280] - picture).mean() < 6, "stretched, cut or shifted"


@pytest.mark.parametrize("size", [(1023, 767), (767, 1023), (300, 299), (90, 60), (90, 500), (4001, 2999)])
def test_picture_is_shown_as_pillow_resizes_it_but_for_a_level_here_and_there(
    china: Image.Image, size: tuple[int, int]
) -> None:
    picture = china.resize(size, Image.Resampling.LANCZOS)
    exact = pad_to_square(picture, MEAN).resize((336, 336), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(fit(picture, MEAN, 336), int) - np.asarray(exact, int))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


def test_fitting_copies_a_part_of_a_picture_at_a_time() -> None:
    """Pillow's own memory is not counted here: numpy's and Python's is."""
    tracemalloc.start()
    try:
        for size in ((8000, 8000), (8000, 10), (10, 8000)):
            fit(Image.new("RGB", size), MEAN, 336)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20, "three bytes for each of a megapixel, three times at most"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [(640, 427), (200, 600), (40, 30), (1344, 1008)])
def test_picture_is_resized_as_pillow_does_but_for_a_level_here_and_there(
    china: Image.Image, size: tuple[int, int]
) -> None:
    exact = china.resize(size, Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(resize(china, size), int) - np.asarray(exact, int))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


def test_without_a_side_the_models_processor_resizes() -> None:
    assert fit(Image.new("RGB", (640, 427)), MEAN, None).size == (640, 640)


def test_without_padding_the_models_processor_does_all(china: Image.Image) -> None:
    assert np.array_equal(np.asarray(fit(china, None, None)), np.asarray(china))


@pytest.mark.parametrize("size", [(10, 400_000), (400_000, 10), (1, 100_000)])
def test_rows_of_a_strip_take_no_gigabytes(size: tuple[int, int]) -> None:
    strip = Image.new("RGB", size, (10, 200, 30))
    tracemalloc.start()
    try:
        shown = resize(strip, (448, 448))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20, "537 MB where all rows of the first are filtered"
    finally:
        tracemalloc.stop()
    assert shown.getcolors() == [(448 * 448, (10, 200, 30))]

"""Of an animation the first frame is taken; what a file says beside its pixels is dropped."""

import io

import pytest
from dualfocus_engine.pictures.pictures import open_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, BLUE)]
    written = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(written, kind, save_all=True, append_images=frames[1:], **lossless)
    assert Image.open(io.BytesIO(written.getvalue())).n_frames == 2
    assert open_picture(written.getvalue()).decode().getpixel((5, 5)) == RED


def test_metadata_is_dropped() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    note = PngInfo()
    note.add_text("Comment", "where I live")
    written = io.BytesIO()
    Image.new("RGB", (20, 10), RED).save(written, "PNG", exif=exif, pnginfo=note)
    opened = open_picture(written.getvalue()).decode()
    assert b"where I live" in written.getvalue()
    assert opened.info == {}
    assert dict(opened.getexif()) == {}

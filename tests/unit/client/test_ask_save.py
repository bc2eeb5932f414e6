"""`dualfocus ask --save`: the picture of how an answer was found."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from dualfocus_client.ask import main
from dualfocus_client.pictures import FORMATS, open_picture
from dualfocus_client.sheet import draw_sheet
from PIL import Image, ImageChops, ImageDraw

from ..local_web import Web, respond, serving

BOX_RED, WON_GREEN = (224, 48, 30), (28, 124, 84)
PAGE_WIDTH = 1252
BOX = [0.25, 0.25, 0.5, 0.75]


def _completion(size: tuple[int, int] = (80, 60), **changes: Any) -> dict[str, Any]:
    width, height = size
    focus: dict[str, Any] = {
        "winner": "micro",
        "selection": "lower_perplexity",
        "box": BOX,
        "crop": [width // 4, height // 4, width // 2, 3 * height // 4],
        "macro": {"text": "Blue.", "perplexity": 21.98765},
        "micro": {"text": "Red.", "perplexity": 1.2345},
        "seconds": 0.1,
    }
    return {"choices": [{"message": {"content": "Red."}}], "dualfocus": focus | changes}


def _picture(size: tuple[int, int] = (80, 60)) -> Image.Image:
    """Grey, and blue inside the box."""
    picture = Image.new("RGB", size, "grey")
    width, height = size
    ImageDraw.Draw(picture).rectangle((width // 4, height // 4, width // 2, 3 * height // 4), fill="blue")
    return picture


def _saved(target: Path, picture: str, completion: dict[str, Any], *arguments: str) -> tuple[int, Web]:
    """Ask about a picture and save; returns the status and who was asked."""
    with serving({"/v1/chat/completions": respond(body=json.dumps(completion).encode())}) as web:
        status = main([picture, "What?", "--base-url", web.address, "--save", str(target), *arguments])
    return status, web


def _data_url(picture: Image.Image, form: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/x;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _places(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The smallest rectangle that holds all pixels of a colour."""
    bands = (ImageChops.difference(sheet, Image.new("RGB", sheet.size, colour))).split()
    found = ImageChops.lighter(ImageChops.lighter(*bands[:2]), bands[2]).point([255] + [0] * 255).getbbox()
    assert found is not None, f"nothing is {colour}"
    return found


@pytest.mark.parametrize("size", [(8, 6), (80, 60), (4000, 3000), (60, 2000), (2000, 60)])
def test_box_is_drawn_where_it_is_whatever_the_pictures_size(size: tuple[int, int]) -> None:
    sheet = draw_sheet(_picture(size), "What?", _completion(size))
    assert sheet.width == PAGE_WIDTH
    scale = min(760 / size[0], 640 / size[1])
    drawn = [share * side * scale + 24 for share, side in zip(BOX, 2 * size, strict=True)]
    left, top, right, bottom = _places(sheet, BOX_RED)
    for edge, outer, side in ((drawn[0], left, -1), (drawn[1], top, -1), (drawn[2], right, 1), (drawn[3], bottom, 1)):
        assert 0 <= side * (outer - edge) <= 6


def test_crop_stands_beside_the_picture() -> None:
    sheet = draw_sheet(_picture(), "What?", _completion())
    # The crop, and nothing but it, is all blue: 20 by 30 pixels, enlarged to a height of 420.
    assert sheet.getpixel((24 + 760 + 24 + 140, 24 + 210)) == (0, 0, 255)
    assert sheet.getpixel((24 + 760 + 24 + 280 + 4, 24 + 210)) == (255, 255, 255)


@pytest.mark.parametrize("winner", ["macro", "micro"])
def test_winner_is_marked(winner: str) -> None:
    sheet = draw_sheet(_picture(), "What?", _completion(winner=winner))
    _, top, _, bottom = _places(sheet.crop((24, 0, 30, sheet.height)), WON_GREEN)
    cards = sheet.height - 100
    assert (bottom < cards) == (winner == "macro")
    assert bottom - top > 50


@pytest.mark.parametrize("text", ["word " * 400, "x" * 2000, "日本語" * 300, "one\ntwo\u2028three\r\n\nfour"])
def test_long_answers_are_wrapped(text: str) -> None:
    short = draw_sheet(_picture(), "What?", _completion())
    sheet = draw_sheet(_picture(), "What?", _completion(macro={"text": text, "perplexity": 2.0}))
    assert sheet.height > short.height + 60
    right_edge = sheet.crop((PAGE_WIDTH - 24 - 10, 0, PAGE_WIDTH, sheet.height)).convert("L")
    assert right_edge.getextrema()[0] > 200, "writing runs off its card"


def test_endless_answers_are_cut() -> None:
    sheet = draw_sheet(_picture(), "What?", _completion(macro={"text": "word\n" * 5000, "perplexity": 2.0}))
    assert sheet.height < 3000


@pytest.mark.parametrize(
    "text", ["日本語", "Ответ", "مرحبا بالعالم", "नमस्ते", "🙂🇫🇷", "e\u0301", "a\x00b\x1b[1m\tc", "\ud800", "", " \n "]
)
def test_any_text_can_be_drawn(text: str) -> None:
    completion = _completion(macro={"text": text, "perplexity": 2.0}, micro={"text": text, "perplexity": 1e300})
    assert draw_sheet(_picture(), text, completion).width == PAGE_WIDTH


@pytest.mark.parametrize(
    "completion",
    [
        {"choices": [{"message": {"content": "Red."}}]},
        _completion(winner="macro", selection="no_box", box=None, crop=None, micro=None),
        _completion(winner="micro", selection="only_answer", macro=None),
        _completion(winner="macro", selection="empty_box", crop=None, micro=None),
    ],
)
def test_what_was_not_run_is_left_out(tmp_path: Path, completion: dict[str, Any]) -> None:
    assert _saved(tmp_path / "out.png", _data_url(_picture()), completion)[0] == 0
    assert Image.open(tmp_path / "out.png").height < draw_sheet(_picture(), "What?", _completion()).height


@pytest.mark.parametrize("suffix", [*FORMATS, ".PNG"])
def test_suffix_names_the_format(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    assert _saved(target, _data_url(_picture()), _completion())[0] == 0
    with Image.open(target) as saved:
        assert saved.format == FORMATS[suffix.lower()]
        assert saved.width == PAGE_WIDTH


def test_answer_is_printed_as_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _saved(tmp_path / "out.png", _data_url(_picture()), _completion(), "--json")[0] == 0
    assert json.loads(capsys.readouterr().out) == _completion()


@pytest.mark.parametrize(
    ("name", "complaints"),
    [
        ("out.xyz", ["out.xyz", "suffix", ".png", ".jpg"]),
        ("out", ["out", "suffix"]),
        ("absent/out.png", ["absent/out.png", "can't be written", "No such file"]),
        ("folder.png", ["folder.png", "can't be written", "directory"]),
        ("nul\0.png", ["can't be written", "null byte"]),
    ],
)
def test_where_it_can_not_be_saved_nothing_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, complaints: list[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    status, web = _saved(tmp_path / name, _data_url(_picture()), _completion())
    err = capsys.readouterr().err
    assert status == 1
    assert web.requests == []
    assert err.startswith("error: --save ")
    assert all(complaint in err for complaint in complaints)


@pytest.mark.parametrize("picture", ["absent.png", "broken.png", "data:image/png;base64,AAAA", "data:nothing"])
def test_where_there_is_nothing_to_draw_on_nothing_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], picture: str
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    named = picture if picture.startswith("data:") else str(tmp_path / picture)
    status, web = _saved(tmp_path / "out.png", named, _completion())
    assert (status, web.requests) == (1, [])
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_what_is_there_stays_where_the_server_refuses(tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"mine")
    with serving({"/v1/chat/completions": respond(400, b'{"error": {"message": "no"}}')}) as web:
        options = ["--base-url", web.address, "--save", str(tmp_path / "out.png")]
        assert main([_data_url(_picture()), "What?", *options]) == 1
    assert (tmp_path / "out.png").read_bytes() == b"mine"


def test_picture_behind_a_url_is_fetched(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    _picture().save(buffer, "PNG")
    with serving({"/a.png": respond(body=buffer.getvalue())}) as web:
        assert _saved(tmp_path / "out.png", f"{web.address}/a.png", _completion())[0] == 0
        assert _saved(tmp_path / "out.png", f"{web.address}/absent.png", _completion())[0] == 1
    assert Image.open(tmp_path / "out.png").width == PAGE_WIDTH


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_shown_upright(orientation: int) -> None:
    """Whatever way a camera was held, blue is at the left of 40 by 20 pixels."""
    upright = Image.new("RGB", (40, 20), "red")
    upright.paste("blue", (0, 0, 10, 20))
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if turned is None else upright.transpose(Image.Transpose(turned))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = open_picture(_data_url(stored, "PNG", exif=exif), 1)
    assert (shown.size, shown.getpixel((2, 10)), shown.getpixel((30, 10))) == ((40, 20), (0, 0, 255), (255, 0, 0))


@pytest.mark.parametrize(
    ("mode", "form", "dark", "bright"),
    [
        ("L", "PNG", 0, 255),
        ("1", "PNG", 0, 1),
        ("I;16", "PNG", 0, 40000),
        ("F", "TIFF", 0.0, 0.5),
        ("RGBA", "PNG", (0, 0, 0, 255), (0, 0, 0, 0)),
        ("LA", "PNG", (0, 255), (9, 0)),
        ("CMYK", "JPEG", (0, 0, 0, 255), (0, 0, 0, 0)),
    ],
)
def test_pictures_of_all_kinds_are_shown(mode: str, form: str, dark: Any, bright: Any) -> None:
    picture = Image.new(mode, (32, 16), dark)
    picture.paste(bright, (16, 0, 32, 16))
    shown = open_picture(_data_url(picture, form), 1)
    assert shown.mode == "RGB"
    assert max(shown.getpixel((4, 8))) < 30
    assert min(shown.getpixel((28, 8))) > 225

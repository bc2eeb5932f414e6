"""The line that says that the server is ready, with a request to try it."""

import base64
import io
import json
import shlex
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from dualfocus_server.playground import PATH

# Where a server that listens on every address can be reached from its own machine.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# As many as the example's picture needs: it is to stay a line that can be pasted.
_COLOURS = 16


def ready_text(name: tuple[Any, ...] | str, *, tls: bool, keys: bool, playground: bool) -> str:
    """Return what is said once the server listens; `name` is its socket's: host and port, or a Unix socket's path."""
    uds = name if isinstance(name, str) else ""
    url = f"http{'s' * tls}://localhost" if isinstance(name, str) else address(name[0], name[1], tls)
    how = " (with a valid key in DUALFOCUS_API_KEY)" if keys else ""
    page = f"In a browser: {url}{PATH}\n\n" if playground and not uds else ""
    where = f"unix:{uds}" if uds else url
    return f"\nDualFocus is ready on {where}. {page}Ask it something{how}:\n\n{example_curl(url, keys, uds)}\n"


def address(host: str, port: int, tls: bool = False) -> str:
    """Return the URL of a server on this machine."""
    reached = _ANY_ADDRESS.get(host, host)
    return f"{'https' if tls else 'http'}://{f'[{reached}]' if ':' in reached else reached}:{port}"


def example_curl(url: str, keys: bool = False, uds: str = "") -> str:
    """Return a request that works when pasted into a shell: a small picture and a question."""
    content = [
        {"type": "image_url", "image_url": {"url": _picture_url()}},
        {"type": "text", "text": "What number is on the red circle?"},
    ]
    body = json.dumps({"messages": [{"role": "user", "content": content}]})
    key = '-H "Authorization: Bearer $DUALFOCUS_API_KEY" ' if keys else ""
    socket = f"--unix-socket {shlex.quote(uds)} " if uds else ""
    return f"curl -s {socket}{url}/v1/chat/completions {key}-H 'Content-Type: application/json' -d '{body}'"


def _picture_url() -> str:
    """Draw a blue square and a red circle with a number too small to be read at first sight, as a data: URL."""
    picture = Image.new("RGB", (480, 360), (226, 224, 218))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((60, 190, 160, 290), fill=(32, 72, 205))
    pen.ellipse((270, 60, 380, 170), fill=(214, 32, 36))
    pen.text((325, 115), "42", fill=(255, 255, 255), font=ImageFont.load_default(size=18), anchor="mm")
    png = io.BytesIO()
    picture.quantize(_COLOURS).save(png, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"

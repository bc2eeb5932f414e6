"""Folders that are made when they are first asked for."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory


def make_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return the folder, written first where it is absent. Any number of processes may ask at once."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, then moved: whoever sees the folder sees all of it.
    with TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place) / folder.name
        write(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return folder

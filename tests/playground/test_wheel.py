"""Who installs the wheel has the page too."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from dualfocus_server.playground import playground_folder

ROOT = Path(__file__).parents[2]
_FOLDER = "from dualfocus_server.playground import playground_folder; print(playground_folder())"


def test_the_page_is_in_the_wheel_and_found_there(tmp_path: Path) -> None:
    built = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    asked = [sys.executable, "-c", _FOLDER]
    folder = subprocess.run(asked, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    assert Path(folder) == tmp_path / "installed" / "dualfocus_server" / "playground"
    assert playground_folder() == ROOT / "clients" / "playground"
    packed = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    assert packed == {path.name: path.read_bytes() for path in playground_folder().iterdir()}

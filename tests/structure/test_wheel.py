"""The wheel is pure Python and complete."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_is_pure_and_complete(tmp_path: Path):
    pytest.importorskip("build", reason="needs the extra `dev`")
    pytest.importorskip("hatchling", reason="needs the extra `dev`")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*command, "--outdir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(ZipFile(wheel).namelist())
    sources = ROOT / "src"
    expected = {path.relative_to(sources).as_posix() for path in sources.rglob("*.py")}
    assert expected | {"kshot/py.typed"} <= names
    assert all(name.startswith(("kshot/", "kshot-")) for name in names)

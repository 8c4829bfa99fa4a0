"""Every Python block of README and docs runs, and every shell block names commands there are."""

import importlib
import re
import zlib
from pathlib import Path

import pytest
import torch

from kshot.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run: [^>]+) -->\n)?^```(python|sh)\n(.*?)^```$", re.M | re.S)


def blocks(language: str) -> list[tuple[str, str]]:
    """The page of each block of a language, and its text; marked ones say why they do not run."""
    return [
        (page.name, found[3])
        for page in PAGES
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if found[2] == language and not found[1]
    ]


def test_there_are_blocks_to_run():
    assert len(blocks("python")) >= 8 and len(blocks("sh")) >= 8


# The translation of README has its code: see below.
@pytest.mark.parametrize(
    ("page", "code"), [block for block in blocks("python") if block[0] != "README.zh.md"]
)
def test_a_python_block_runs(page: str, code: str, monkeypatch, tmp_path):
    # As short as it can be and still pass every line.
    code = code.replace("iterations=30,", "iterations=2,").replace("episodes=50", "episodes=2")
    name = f"block_{zlib.crc32(code.encode())}"
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    default = torch.get_default_dtype()
    try:
        importlib.import_module(name)  # what it defines can be pickled
    finally:
        torch.set_default_dtype(default)


def test_the_translation_of_readme_has_its_code():
    def bare(page: str) -> list[str]:
        return [re.sub(r"\s*#.*", "", code) for name, code in blocks("python") if name == page]

    assert bare("README.zh.md") == bare("README.md")


@pytest.mark.parametrize(("page", "code"), blocks("sh"))
def test_a_shell_block_names_commands_there_are(page: str, code: str):
    for line in code.splitlines():
        found = re.match(r"(?:torchrun .* -m )?kshot (\S+)", line)
        if found:
            assert found[1] in COMMANDS, f"{page}: {line}"

"""How `kshot` ends when it is interrupted, or nobody reads on."""

import importlib
import subprocess
import sys

import pytest

from kshot.cli import main


def test_an_interruption_while_a_command_loads_is_told_in_a_line(monkeypatch, capsys):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert main(["fit", "flowers"]) == 130
    assert capsys.readouterr().err == "kshot fit: interrupted\n"


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--help"]])
def test_a_reader_that_has_enough_is_no_error(arguments: list[str]):
    process = subprocess.Popen(
        [sys.executable, "-m", "kshot", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 141

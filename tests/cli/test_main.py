"""`kshot` starts quickly, helps, and ends well when it is interrupted or nobody reads on."""

import importlib
import os
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


def test_help_does_not_need_torch():
    code = "import sys; from kshot.cli import main; main(['--help']); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.splitlines()[-1] == "False"
    assert "kshot train" in process.stdout


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_threads_wait_a_little_unless_told_otherwise(given: dict[str, str], spins: str | None):
    code = (
        "import os; from kshot.cli import main; main([]); "
        "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    rest = {name: value for name, value in os.environ.items() if name not in names}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=rest | given
    )
    policy = given.get("OMP_WAIT_POLICY", "passive")
    assert process.stdout.splitlines()[-1] == f"{policy} {spins}"


def test_no_argument_shows_help(capsys):
    assert main([]) == 0
    assert "usage: kshot COMMAND" in capsys.readouterr().out


def test_an_unknown_command_suggests_one(capsys):
    assert main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err

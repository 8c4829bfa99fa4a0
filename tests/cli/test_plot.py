"""`kshot plot` draws runs again."""

import shutil

from kshot.cli import main


def test_plot_draws_a_run_again(run_folder, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("figures"))
    assert main(["plot", str(copy)]) == 0
    drawn = {path.name for path in (copy / "figures").iterdir()}
    assert drawn == {path.name for path in (run_folder / "figures").iterdir()}
    assert len(capsys.readouterr().out.splitlines()) == len(drawn)
    assert main(["plot"]) == 1 and "Name at least one" in capsys.readouterr().err

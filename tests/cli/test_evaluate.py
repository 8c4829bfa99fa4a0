"""`kshot evaluate` loses no scores by what cannot be drawn or written, nor by an interruption."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kshot.cli import evaluate, main
from kshot.evaluation.results import read_results


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of regression."""
    folder = tmp_path_factory.mktemp("waves") / "run"
    small = [
        *("--data", "sinusoid", "--backbone", "mlp", "--backbone.widths", "4"),
        *("--training.iterations", "1", "--training.device", "cpu"),
        *("--training.validation-episodes", "2", "--evaluation.episodes", "2"),
    ]
    assert main(["train", "maml", *small, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring is an error."""

    def score(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it is scored")

    monkeypatch.setattr(evaluate, "evaluate_run", score)


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("--figure a.xyz", "'.xyz'"),
        ("--similarity a.xyz", "'.xyz'"),
        ("--gates a.png", "protonet has no gates"),
        ("--similarity a.png", "adapts no layers"),
        ("--figures file", "Nothing can be written into"),
        ("--results file", "a list of result rows"),
    ],
)
def test_what_cannot_be_given_is_told_before_scoring(
    wanted: str, told: str, run_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["evaluate", str(run_folder), *wanted.split()]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize("flag", ["--figure", "--figures"])
def test_runs_of_two_kinds_have_no_figure_together(
    flag: str, run_folder: Path, waves: Path, tmp_path: Path, capsys
):
    place = tmp_path / "a.png"
    assert main(["evaluate", str(run_folder), str(waves), flag, str(place)]) == 1
    assert "runs of one kind" in capsys.readouterr().err


def test_a_figure_that_fails_takes_no_scores_with_it(
    run_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no figure")

    monkeypatch.setattr(evaluate, "side_by_side_figure", broken)
    asked = ["evaluate", str(run_folder), "--figure", str(tmp_path / "a.png")]
    assert main([*asked, "--json"]) == 1
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 4 and "no figure" in told.err


def test_scores_are_kept_as_they_come(run_folder: Path, tmp_path: Path, monkeypatch, capsys):
    score = evaluate.evaluate_run

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, one in enumerate(score(*arguments, **options)):
            if number == 3:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(evaluate, "evaluate_run", interrupted)
    file = tmp_path / "rows.json"
    assert main(["evaluate", str(run_folder), "--results", str(file)]) == 130
    rows = read_results(run_folder / "results.json")[:3]
    assert [row["accuracy"] for row in read_results(file)] == [row["accuracy"] for row in rows]

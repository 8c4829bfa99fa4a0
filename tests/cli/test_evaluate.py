"""`kshot evaluate` scores what is asked, and loses no scores by what cannot be drawn or kept."""

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


def test_evaluate_draws_what_it_scored(run_folder, tmp_path):
    folder = tmp_path / "drawn"
    asked = ["--evaluation.shots", "3", "--evaluation.episodes", "4", "--figures", str(folder)]
    assert main(["evaluate", str(run_folder), *asked]) == 0
    drawn = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert {"side_by_side.png", "protonet/episode.png", "protonet/confusion.png"} <= drawn
    assert "protonet/ways_and_shots.png" not in drawn


def test_rows_of_instances(flags, tmp_path, capsys):
    instances = ("--evaluation.instances", "1", "2", "4", "--evaluation.shots", "1")
    folder, figure = tmp_path / "lstm", tmp_path / "instances.png"
    lstm = [*flags, "--backbone", "flatten", "--episodes.shot", "4", *instances]
    lstm.remove("--backbone.hidden")
    lstm.remove("4")
    assert main(["train", "lstm", *lstm, "--out", str(folder)]) == 0
    assert "4-way, instance 2 of 4" in capsys.readouterr().out
    rows = [row for row in read_results(folder / "results.json") if "instance" in row]
    assert [(row["learner"], row["instance"]) for row in rows] == [
        (name, k) for name in ("lstm", "nearest_centroid") for k in (1, 2, 4)
    ]
    assert all((row["way"], row["shot"], row["query_shot"]) == (4, 4, 0) for row in rows)
    pixels = {row["instance"]: row["accuracy"] for row in rows[3:]}
    assert pixels[1] < 0.6 and pixels[4] > 0.9
    again = ["evaluate", str(folder), "--evaluation.instances", "4", "--figure", str(figure)]
    assert main([*again, "--json"]) == 0
    *_, lstm_row, pixel_row = json.loads(capsys.readouterr().out)
    assert lstm_row["accuracy"] == rows[2]["accuracy"] and figure.stat().st_size > 5_000
    assert pixel_row["instance"] == 4


def test_the_weights_of_the_best_validations_predict_together(run_folder, flags, tmp_path, capsys):
    run = str(tmp_path / "run")
    wanted = ("--training.keep-best", "2", "--evaluation.ensemble", "1", "2")
    assert main(["train", "protonet", *flags, *wanted, "--out", run, "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["learner"] == "protonet"]
    assert [(row["shot"], row.get("ensemble")) for row in rows] == [
        *((1, None), (1, 2)),
        *((2, None), (2, 2)),
    ]
    assert main(["evaluate", run, "--evaluation.ensemble", "2", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("4-way 1-shot, mean of 2") == shown.count("on flatten  4-way 1-shot") == 1
    for folder in (run, str(run_folder)):
        assert main(["evaluate", folder, "--evaluation.ensemble", "3"]) == 1
        kept = 2 if folder == run else 0
        assert f"keeps {kept}. Train with --training.keep-best 3" in capsys.readouterr().err


def test_the_gates_of_a_learned_rule_are_drawn(run_folder, flags, tmp_path, capsys):
    options = ["--learner.num-inner-steps", "2", "--validation.way", "4", "--out", str(tmp_path)]
    assert main(["train", "lstm_meta_learner", *flags, *options]) == 0
    figure = tmp_path / "gates.png"
    assert main(["evaluate", str(tmp_path), "--gates", str(figure)]) == 0
    assert figure.stat().st_size > 10_000
    assert main(["evaluate", str(run_folder), "--gates", str(figure)]) != 0
    assert "protonet has no gates to draw" in capsys.readouterr().err


def test_a_regression_run_draws_its_adaptation(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["sinusoid/maml", "--training.iterations", "3", "--training.no-compile"]
    assert main(["train", *arguments, "--evaluation.episodes", "4", "--out", str(folder)]) == 0
    row, *_ = read_results(folder / "results.json")
    assert row["accuracy"] is None and row["mean_squared_error"] > 0
    assert (folder / "figures" / "adaptation.png").exists()


def test_a_regression_run_is_scored_at_other_numbers_of_steps(tmp_path, capsys):
    folder, figure = tmp_path / "run", tmp_path / "adaptation.png"
    arguments = ["sinusoid/maml", "--training.iterations", "3", "--training.no-compile"]
    assert main(["train", *arguments, "--evaluation.episodes", "4", "--out", str(folder)]) == 0
    capsys.readouterr()
    steps = ["--evaluation.num-test-steps", "0", "5"]
    assert main(["evaluate", str(folder), *steps, "--figure", str(figure), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["num_test_steps"] for row in rows] == [0, 5]
    assert rows[0]["mean_squared_error"] != rows[1]["mean_squared_error"]
    assert figure.stat().st_size > 1000


def test_evaluate_labels_rows_with_what_was_asked_for(run_folder, capsys):
    flags = ["--evaluation.split", "val", "--evaluation.seed", "7", "--evaluation.ways", "3"]
    assert main(["evaluate", str(run_folder), *flags, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["split"], row["evaluation_seed"], row["way"]) for row in rows} == {("val", 7, 3)}


def test_another_learner_is_scored_on_a_runs_encoder(run_folder, tmp_path, capsys):
    asked = ["evaluate", str(run_folder), "--learner", "nearest_centroid", "--json"]
    assert main([*asked, "--learner.normalize"]) == 0
    rows = json.loads(capsys.readouterr().out)
    of_encoder = [row for row in rows if row["backbone"] == "conv4"]
    assert [(row["learner"], row["shot"]) for row in of_encoder] == [
        ("nearest_centroid", 1),
        ("nearest_centroid", 2),
    ]
    # Without its options it is ProtoNet's own prediction, up to the scale of its logits.
    assert main(["evaluate", str(run_folder), "--learner=nearest_centroid", "--json"]) == 0
    plain = [row for row in json.loads(capsys.readouterr().out) if row["backbone"] == "conv4"]
    own = [row for row in read_results(run_folder / "results.json") if row["backbone"] == "conv4"]
    assert [row["accuracy"] for row in plain] == [row["accuracy"] for row in own]


def test_what_a_trained_encoder_of_maml_can_be_used_for(flags, tmp_path, capsys):
    folder = tmp_path / "maml"
    maml = [*flags, "--evaluation.episodes", "2"]
    assert main(["train", "maml", *maml, "--out", str(folder)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--learner", "nil", "--json"]) == 0
    assert "nil" in {row["learner"] for row in json.loads(capsys.readouterr().out)}
    assert main(["evaluate", str(folder), "--learner", "nearest_centroid"]) == 1
    assert "which keeps none: nil can read" in capsys.readouterr().err
    figure = tmp_path / "similarity.png"
    assert main(["evaluate", str(folder), "--similarity", str(figure)]) == 0
    assert figure.stat().st_size > 0
    assert main(["evaluate", str(folder), "--learner", "nil", "--similarity", str(figure)]) == 1
    assert "nil adapts no layers" in capsys.readouterr().err

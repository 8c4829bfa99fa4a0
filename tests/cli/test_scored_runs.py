"""Which scores of several runs are compared with which, and how."""

import json
from pathlib import Path

import numpy as np
import pytest

from kshot.cli import main
from kshot.cli.scored_runs import differences_from_first
from kshot.evaluation.evaluate import Evaluation
from kshot.evaluation.results import read_results
from kshot.training.scoring import Scored


def run(score: float, *steps: int | None) -> list[Scored]:
    evaluation = Evaluation(np.full(3, score), "accuracy", "batch", transductive=True)
    return [Scored({"num_test_steps": number}, evaluation, baseline=False) for number in steps]


def compared(*runs: list[Scored]) -> list[tuple[int | None, int | None, float]]:
    """Steps of a later run, steps of the first, and the difference."""
    return [
        (one.theirs.row["num_test_steps"], one.first.row["num_test_steps"], one.interval.mean)
        for one in differences_from_first({Path(str(n)): each for n, each in enumerate(runs)})
    ]


def test_how_many_steps_a_run_takes_is_its_own_affair():
    assert compared(run(0.5, 5), run(0.75, 1), run(1.0, None)) == [(1, 5, 0.25), (None, 5, 0.5)]


def test_after_several_numbers_of_steps_equal_ones_are_compared():
    assert compared(run(0.5, 1, 5), run(0.75, 1, 5), run(1.0, None)) == [
        *((1, 1, 0.25), (5, 5, 0.25)),
        *((None, 1, 0.5), (None, 5, 0.5)),
    ]


def test_evaluate_gives_the_numbers_of_training_and_compares_runs(
    run_folder, flags, tmp_path, capsys
):
    assert main(["evaluate", str(run_folder), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    first = read_results(run_folder / "results.json")
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in first]

    other = tmp_path / "maml"
    maml = [*flags, "--backbone", "conv4_strided", "--learner.inner-lr", "0.5"]
    assert main(["train", "maml", *maml, "--out", str(other)]) == 0
    capsys.readouterr()
    both = ["evaluate", str(run_folder), str(other), "--evaluation.shots", "1"]
    file = tmp_path / "both.json"
    assert main([*both, "--results", str(file)]) == 0
    assert "paired differences" in capsys.readouterr().out
    protonet, maml = (
        next(row for row in read_results(file) if row["learner"] == name)
        for name in ("protonet", "maml")
    )
    against = maml["against"]
    assert "against" not in protonet
    assert against["learner"] == "protonet" and against["config"] == protonet["config"]
    difference = maml["accuracy"] - protonet["accuracy"]
    assert against["difference"] == pytest.approx(difference) and against["ci95"] > 0


def test_a_row_stands_against_one_of_its_own_policy(run_folder, flags, tmp_path):
    other, file = tmp_path / "other", tmp_path / "both.json"
    assert main(["train", "protonet", *flags, "--training.seed", "1", "--out", str(other)]) == 0
    policies = ["--evaluation.batch-norm", "running", "batch"]
    assert main(["evaluate", str(run_folder), str(other), *policies, "--results", str(file)]) == 0
    rows = [row for row in read_results(file) if row["seed"] == 1 and row["backbone"] != "flatten"]
    assert {row["batch_norm"] for row in rows} == {"running", "batch"}
    assert all(row["against"]["batch_norm"] == row["batch_norm"] for row in rows)


def test_runs_are_compared_over_their_seeds(run_folder, flags, tmp_path, capsys):
    other, figure = tmp_path / "other", tmp_path / "comparison.png"
    assert main(["train", "protonet", *flags, "--training.seed", "1", "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run_folder), str(other), "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    told = shown[shown.index("over training seeds") :]
    assert "protonet" in told and "(n = 2)" in told
    assert "nearest_centroid" not in told, "what is not trained has no spread"
    assert figure.stat().st_size > 1000


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(
    run_folder, flags, tmp_path, capsys
):
    other = tmp_path / "other"
    changed = [*flags, "--training.seed", "1", "--training.outer-lr", "0.5"]
    assert main(["train", "protonet", *changed, "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run_folder), str(other)]) == 0
    assert "over training seeds" not in capsys.readouterr().out


def test_every_run_is_scored_under_its_own_policies(run_folder, flags, tmp_path, capsys):
    other = tmp_path / "maml"
    maml = [*flags, "--backbone", "conv4_strided"]
    policies = ["--evaluation.batch-norm", "batch", "support_and_query"]
    assert main(["train", "maml", *maml, *policies, "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(other), str(run_folder), "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["backbone"] != "flatten"]
    assert {row["batch_norm"] for row in rows if row["learner"] == "protonet"} == {"running"}
    assert main(["evaluate", str(other), str(run_folder), "--evaluation.shots", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(running) - ") == 2 and "(support_and_query, 1 step) " in shown

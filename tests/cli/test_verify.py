"""`kshot verify`: rows, a figure, and what it refuses."""

import json

import pytest

from kshot.cli import main

SMALL = [
    *("--way", "4", "--query-shot", "3", "--episodes", "12"),
]


def test_a_run_verifies_beside_the_pixels(run_folder, tmp_path, capsys):
    results, figure = tmp_path / "rows.json", tmp_path / "roc.png"
    wanted = [*SMALL, "--results", str(results), "--figure", str(figure)]
    assert main(["verify", str(run_folder), *wanted]) == 0
    shown = capsys.readouterr().out
    assert "protonet on conv4" in shown and "nearest_neighbor on flatten" in shown
    assert figure.stat().st_size > 10_000
    rows = json.loads(results.read_text())
    assert [row["learner"] for row in rows] == ["protonet", "nearest_neighbor"]
    for row in rows:
        low, high = (row["equal_error_rate"][key] for key in ("low", "high"))
        assert 0 <= low <= row["equal_error_rate"]["value"] <= high <= 0.6
        assert (row["classes"], row["trials"], row["threshold_split"]) == (6, 12 * 4 * 12, "val")
        assert set(row["true_accepts_at"]) == {"0.001", "0.01", "0.1"}
        assert 0 <= row["false_accepts"] <= 1 and "kshot verify" in row["command"]
    assert rows[1]["train_iterations"] == 0 < rows[0]["train_iterations"]
    assert main(["verify", str(run_folder), *wanted, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(results.read_text())
    assert len(json.loads(results.read_text())) == 2, "measured again, not beside"


def test_another_learner_verifies_on_a_trained_encoder(run_folder, capsys):
    assert main(["verify", str(run_folder), *SMALL, "--learner", "nearest_neighbor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["backbone"] for row in rows] == ["conv4", "flatten"]
    assert rows[0]["equal_error_rate"] != rows[1]["equal_error_rate"]


def test_what_cannot_verify_says_so(run_folder, capsys):
    def told(*arguments: str) -> str:
        assert main(["verify", *arguments]) == 1
        return capsys.readouterr().err

    assert "Name at least one run" in told()
    assert "flatters itself" in told(str(run_folder), "--threshold-split", "test")
    wrong = told(str(run_folder), *SMALL, "--learner", "r2d2")
    assert "R2D2 scores a class by what sets it apart" in wrong


@pytest.mark.parametrize("flag", ["--figure", "--freeze"])
def test_episodes_with_unlabelled_examples_are_not_drawn(flag, flags, tmp_path, capsys):
    data = flags[flags.index("--data") + 1 : flags.index("--backbone.hidden")]
    few = ["--episodes.labelled-share", "0.5", "--episodes.query-shot", "1", "--episodes.way", "3"]
    assert main(["data", *data, *few, flag, str(tmp_path / "episodes")]) == 1
    assert "neither drawn nor frozen yet" in capsys.readouterr().err

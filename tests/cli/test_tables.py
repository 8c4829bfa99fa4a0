"""Rows on the terminal are told apart."""

from kshot.cli import main


def test_the_baseline_differs_in_name_from_a_learner_that_is_scored(run_folder, capsys):
    asked = ["--learner", "nearest_centroid", "--evaluation.episodes", "2"]
    assert main(["evaluate", str(run_folder), *asked, "--evaluation.shots", "1"]) == 0
    shown = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown == ["nearest_centroid", "nearest_centroid on flatten"]

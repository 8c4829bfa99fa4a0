"""Examples run, and what they show is so."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_one_class_learns_from_any_inputs():
    scores = runpy.run_path(str(EXAMPLES / "01_any_inputs.py"))["main"]()
    assert scores["numbers"] < 3.5  # squared error; 4.2 to 4.5 before
    assert scores["pictures"] > 0.55
    assert scores["dictionaries"] > 0.6


def test_the_sinusoid_table_reads_results_and_knows_an_oracle(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "02_sinusoid_table.py"))
    scores = example["main"](str(tmp_path / "steps.png"))
    assert {"maml", "fine_tuning"} <= set(scores)
    assert (tmp_path / "steps.png").stat().st_size > 10_000
    assert example["oracle"]() < 1e-4
    assert "maml               1 steps" in capsys.readouterr().out


@pytest.mark.data
def test_a_face_unlocks_for_its_owner(data_folder):
    example = runpy.run_path(str(EXAMPLES / "03_face_unlock.py"))
    scores = example["main"]()
    assert scores["opened"] > 0.6 and scores["broken"] < 0.15
    assert scores["equal_error_rate"] < 0.15


def test_a_class_comes_later_to_a_served_predictor():
    scores = runpy.run_path(str(EXAMPLES / "05_a_class_comes_later.py"))["main"]()
    assert scores["two classes"] > 0.9 and scores["two classes, the third"] == 0
    assert scores["three classes"] > 0.75 and scores["three classes, the third"] > 0.75


def test_twenty_classes_are_learned_from_five_pictures_each():
    assert runpy.run_path(str(EXAMPLES / "04_twenty_classes.py"))["main"]() > 0.75


@pytest.mark.slow
def test_a_network_of_ones_own_is_optimized_by_a_learned_optimizer():
    example = runpy.run_path(str(EXAMPLES / "06_your_own_network.py"))
    first, last = example["main"]()
    assert first > 0.5 and last < 0.2

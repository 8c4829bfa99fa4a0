"""Flags are those of the chosen rows."""

import pytest

from kshot.cli import main


def test_a_row_may_be_chosen_with_an_equals_sign(capsys):
    with pytest.raises(SystemExit):
        main(["train", "maml", "--data=sinusoid", "--backbone=mlp", "--help"])
    assert "--data.variant" in capsys.readouterr().out


def test_help_of_a_partial_is_that_of_its_class(capsys):
    with pytest.raises(SystemExit):
        main(["train", "fomaml", "--help"])
    shown = capsys.readouterr().out
    assert "inner learning rate" in shown and "partial(" not in shown

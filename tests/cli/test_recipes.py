"""Recipes by name, and what may be changed in them."""

import pytest

from kshot.cli import main
from kshot.cli.recipes import recipe_names
from kshot.cli.train import parse


def test_a_changed_recipe_is_not_called_by_its_name(tmp_path):
    def recipe(*flags: str) -> str | None:
        return parse(["glyphs/protonet", *flags])[1]

    name = "recipes/glyphs/protonet.toml"
    assert recipe() == recipe("--training.seed", "3", "--evaluation.shots", "1") == name
    assert recipe("--training.iterations", "10") is None


def test_a_recipe_for_data_of_ones_own_needs_to_be_told_where_they_are(pictures, capsys):
    def recipe(*flags: str) -> str | None:
        return parse(["pictures/protonet", *flags])[1]

    place = ["--data.path", str(pictures)]
    assert recipe(*place) == recipe(*place, "--training.seed", "3")
    assert recipe(*place) == "recipes/pictures/protonet.toml"
    assert recipe(*place, "--data.size", "16") is None
    with pytest.raises(SystemExit):
        recipe()
    assert "--data.path" in capsys.readouterr().err


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_its_flags(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", name, "--help"])
    assert stop.value.code == 0
    assert "--training.iterations" in capsys.readouterr().out

"""`kshot list` names all there is."""

import json

import pytest

from kshot.cli import main


@pytest.mark.parametrize("what", ["learners", "backbones", "datasets", "recipes"])
def test_list(what, capsys):
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["name"] for row in rows) and len(rows) >= 4

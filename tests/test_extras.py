"""Extras: what is said of them agrees with what installs them."""

import re
import tomllib
from pathlib import Path

from kshot.extras import EXTRAS


def test_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {re.split("[>=<]", requirement)[0] for requirement in requirements}
        for extra, requirements in project["optional-dependencies"].items()
        if extra in EXTRAS
    }
    assert declared == {extra: set(brought.values()) for extra, brought in EXTRAS.items()}

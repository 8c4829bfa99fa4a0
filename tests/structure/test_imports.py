"""Imports point left only: each stage may use the stages before it, never those after it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "kshot"

ORDER = (
    (
        "episodes",
        "losses",
        "learner",
        "paper",
        "options",
        "extras",
        "device",
        "config",
        "recipe",
        "transforms",
    ),
    ("data", "backbones"),
    ("encoders",),
    ("learners",),
    ("evaluation",),
    ("training",),
    ("testing", "user_examples", "heads"),
    ("predictor", "predictor_file"),
    ("estimator", "settings", "plots", "report"),
    ("cli", "demo", "__main__", "__init__"),
)
PLACE = {stage: place for place, stages in enumerate(ORDER) for stage in stages}
STRANGERS = {"data", "backbones"}  # side by side, yet neither may know the other


def stage_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_stages(path: Path, package: Path) -> Iterator[tuple[str, int]]:
    """Each stage of the package a file imports, with the line, wherever in the file it does so."""
    folder = ("kshot", *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else ()
            module = (*start, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "kshot":
                known = len(name) > 1 and name[1] in PLACE
                yield name[1] if known else "__init__", node.lineno


def wrong_imports(package: Path) -> list[str]:
    wrong = []
    for path in sorted(package.rglob("*.py")):
        stage = stage_of(path, package)
        for other, line in imported_stages(path, package):
            strangers = stage != other and {stage, other} == STRANGERS
            if strangers or PLACE[other] > PLACE[stage]:
                wrong.append(f"{path.relative_to(package)}:{line}: {stage} imports {other}")
    return wrong


def test_every_file_belongs_to_a_stage():
    stages = {stage_of(path, PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert {"episodes", "learner"} <= stages, f"no sources of kshot in {PACKAGE}"
    assert stages <= set(PLACE), f"give {stages - set(PLACE)} a place in ORDER"


def test_imports_point_left():
    assert not wrong_imports(PACKAGE)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("episodes.py", "import kshot.data.sampler"),
        ("data/sampler.py", "from kshot.backbones import conv4"),
        ("backbones/conv4.py", "from ..data.sampler import EpisodeSampler"),
        ("learners/metric/prototypical.py", "from ...training import trainer"),
        ("evaluation/evaluate.py", "from kshot import training"),
        ("training/trainer.py", "from kshot import ProtoNet"),
        ("training/trainer.py", "def train():\n    import kshot.cli"),
        ("testing.py", "import typing\nif typing.TYPE_CHECKING:\n    from kshot import estimator"),
    ],
)
def test_an_import_to_the_right_is_found(tmp_path: Path, file: str, line: str):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert len(wrong_imports(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("learners/maml.py", "import torch\nfrom kshot.backbones import conv4\nimport kshot.data"),
        ("data/sources/glyphs.py", "from ..dataset import LabelledDataset"),
        ("learner.py", "from .episodes import Episodes"),
        ("cli/train.py", "from kshot import ProtoNet\nfrom kshot.demo import server"),
    ],
)
def test_an_import_to_the_left_is_allowed(tmp_path: Path, file: str, line: str):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert not wrong_imports(tmp_path)

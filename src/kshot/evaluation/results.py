"""Result rows: a number together with everything that identifies it."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from kshot.config import VARIATIONS, EpisodeConfig, EvaluationConfig, Published, RunConfig
from kshot.data.atomic import write_atomically
from kshot.evaluation.evaluate import Evaluation
from kshot.evaluation.intervals import MeanInterval, mean_interval

__all__ = [
    "git_revision",
    "machine",
    "merge_results",
    "published_figure",
    "read_results",
    "result_row",
    "same_episodes",
    "score",
    "spread_over_seeds",
    "versions",
    "write_results",
]

Row = dict[str, Any]


def result_row(
    config: RunConfig,
    wanted: EvaluationConfig,
    evaluation: Evaluation,
    episode: EpisodeConfig,
    *,
    learner: str,
    backbone: str,
    protocol: str,
    training: Mapping[str, Any],
    provenance: Mapping[str, Any],
    ensemble: int = 1,
    instance: int | None = None,
) -> Row:
    """One row of results/<data>/<recipe>.json.

    Args:
        config: the run the number belongs to.
        wanted: what was asked for: split and seed of the episodes.
        evaluation: its scores.
        episode: way, shot and query_shot they were scored at.
        learner: registry name of what was scored.
        backbone: registry name of its network.
        protocol: name of the data's preparation and split.
        training: `train_seconds` and `train_iterations` of what was scored.
        provenance: `command`, `recipe`, `versions`, `git`, `machine`.
        ensemble: how many weights of one training predicted together; told when it is not one.
        instance: k when the scores are of the k-th example of each class among the support
            examples in turn; the row then has it too, and no queries.

    Returns:
        A row in which `accuracy` is a fraction (None in regression, which has
        `mean_squared_error`) and `ci95` the half-width of its 95 % interval over episodes.
    """
    mean, half_width, n = evaluation.interval
    classified = evaluation.metric == "accuracy"
    row: Row = {
        "learner": learner,
        "data": config.data.name,
        "protocol": protocol,
        "split": wanted.split,
        "train_split": config.training.split,
        "within": episode.within,
        "backbone": backbone,
        "way": episode.way,
        "shot": episode.shot,
        "query_shot": episode.query_shot if instance is None else 0,
        **({} if instance is None else {"instance": instance}),
        **{
            key: value
            for key, none in VARIATIONS.items()
            if (value := getattr(episode, key)) != none
        },
        "episodes": n,
        "accuracy": mean if classified else None,
        "ci95": half_width,
        "batch_norm": evaluation.batch_norm,
        "transductive": evaluation.transductive,
        "num_test_steps": evaluation.num_test_steps,
        **({"ensemble": ensemble} if ensemble > 1 else {}),
        "config": config.fingerprint,
        "seed": config.training.seed,
        "evaluation_seed": wanted.seed,
        **training,
        **provenance,
        "published": None,
    }
    if learner == config.learner.name and wanted.split == "test":
        row["published"] = published_figure(config.published, row)
    if not classified:
        row["mean_squared_error"] = mean
        row["median_squared_error"] = float(np.median(evaluation.scores))
    return row


def merge_results(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a results file; a row there stays unless one of these measures the same.

    One process at a time, held by the file `.lock` beside it: runs may end at the same moment.
    """
    new = {_identity(row): row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):
        kept = [row for row in read_results(path) if _identity(row) not in new]
        write_results(path, [*kept, *new.values()])


def published_figure(figures: Sequence[Published], row: Row) -> dict[str, Any] | None:
    """The first of a paper's figures that was measured as a row was, if there is one."""
    for figure in figures:
        if (
            (figure.way, figure.shot) == (row["way"], row["shot"])
            and figure.instance == row.get("instance")
            and figure.query_shot in (None, row["query_shot"])
            and figure.batch_norm in (None, row["batch_norm"])
        ):
            return {"accuracy": figure.accuracy, "where": figure.where}
    return None


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Write a results file of these rows alone."""
    write_atomically(path, json.dumps(rows, indent=2) + "\n")


def read_results(path: Path) -> list[Row]:
    """The rows of a results file; [] when there is none.

    Raises:
        ValueError: when the file is not a list of rows.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or not even text
        raise ValueError(
            f"{path} should be a list of result rows in JSON, and cannot be read as such "
            f"({error}). Restore it, or name another file."
        ) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path} should be a list of result rows, and holds other JSON. Restore it, or name "
            "another file."
        )
    return rows


def same_episodes(first: Row, second: Row) -> bool:
    """Whether two rows were scored on the same episodes, so that they can be compared in pairs."""
    return all(first.get(key) == second.get(key) for key in _EPISODES)


def spread_over_seeds(rows: Sequence[Row]) -> list[tuple[Row, MeanInterval]]:
    """How results vary with the training seed: a row of each kind, its mean over seeds.

    The interval of a single row says how well its episodes know one trained learner; this one says
    what training again would give.
    """
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        kind = tuple(row.get(key) for key in (*_IDENTITY, "config") if key != "seed")
        groups.setdefault(kind, {})[row["seed"]] = row
    repeated = [list(group.values()) for group in groups.values() if len(group) > 1]
    return [(group[0], mean_interval(np.array([*map(score, group)]))) for group in repeated]


def score(row: Row) -> float:
    """The accuracy of a row as a fraction, or in regression its mean squared error."""
    return row["mean_squared_error"] if row["accuracy"] is None else row["accuracy"]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a number depends on."""
    packages = ("kshot", "torch", "numpy", "pillow", "matplotlib")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str | None:
    """The source's git revision, with "+changes" when files differ from it; None outside git.

    A package installed into an environment within someone's repository is none of its files.
    """
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", __file__)
        revision = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", str(folder))
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+changes" if changed else "")


def machine() -> str:
    """Processor, number of cores, operating system, and the GPU when PyTorch sees one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores, {platform.system()}{gpu}"


def _identity(row: Row) -> tuple[Any, ...]:
    """What makes two rows measurements of the same thing."""
    return tuple(row.get(key) for key in _IDENTITY)


_EPISODES = (
    *("data", "protocol", "split", "within", "way", "shot", "query_shot", "instance", "episodes"),
    *("evaluation_seed", "frozen", *VARIATIONS),
)
_IDENTITY = (
    *("learner", "backbone", "data", "protocol", "split", "train_split", "within"),
    *("way", "shot", "query_shot", "instance", "batch_norm", "num_test_steps", "ensemble"),
    *("seed", "evaluation_seed", "frozen", "recipe", *VARIATIONS),
    *("setting", "threshold_split", "threshold_at"),
)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

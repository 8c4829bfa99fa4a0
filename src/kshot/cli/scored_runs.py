"""Several runs scored on the same episodes: how each is scored, and how they differ."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from kshot.cli.figures import adaptation_figure, comparison_figure
from kshot.cli.tables import condition, task_name
from kshot.config import EvaluationConfig, RunConfig
from kshot.evaluation.evaluate import paired_difference
from kshot.evaluation.intervals import MeanInterval
from kshot.evaluation.results import same_episodes
from kshot.recipe import parse_run
from kshot.training.run import Run, read_description
from kshot.training.scoring import Scored

__all__ = [
    "Difference",
    "check_side_by_side",
    "difference_rows",
    "differences_from_first",
    "first_configuration",
    "named_runs",
    "own_conditions",
    "side_by_side_figure",
]


class Difference(NamedTuple):
    """A later run's scores less the first run's, episode by episode."""

    folders: tuple[Path, Path]
    theirs: Scored
    first: Scored
    interval: MeanInterval

    @property
    def same_policy(self) -> bool:
        """Whether both were scored under the same BatchNorm policy."""
        return self.theirs.row["batch_norm"] == self.first.row["batch_norm"]

    @property
    def against(self) -> dict[str, Any]:
        """What the later run's result row says of it."""
        of = ("learner", "backbone", "batch_norm", "num_test_steps", "config", "seed")
        identity = {key: self.first.row[key] for key in of}
        return {**identity, "difference": self.interval.mean, "ci95": self.interval.half_width}


def first_configuration(arguments: list[str]) -> RunConfig:
    """What is not said by flags: the configuration of the first run that arguments name.

    But how its BatchNorm works, how many steps it takes and how many of its weights predict
    together is each run's own affair.
    """
    first = next((Path(word) for word in arguments if (Path(word) / "run.json").exists()), None)
    base = RunConfig() if first is None else parse_run(read_description(first)["config"])
    evaluation = replace(base.evaluation, batch_norm=(), num_test_steps=(), ensemble=())
    return replace(base, evaluation=evaluation)


def own_conditions(
    runs: dict[Path, Run], wanted: EvaluationConfig, *, other: bool = False
) -> dict[Path, EvaluationConfig]:
    """How each run is scored: as wanted, and where that says nothing as it was configured.

    Args:
        runs: the runs by their folders.
        wanted: what is asked of all of them.
        other: whether they have another learner than they were configured for.
    """
    conditions = {}
    for folder, run in runs.items():
        own = EvaluationConfig() if other else run.config.evaluation
        conditions[folder] = replace(
            wanted,
            batch_norm=wanted.batch_norm or own.batch_norm,
            num_test_steps=wanted.num_test_steps or own.num_test_steps,
            ensemble=wanted.ensemble or own.ensemble,
        )
    return conditions


def differences_from_first(scored: dict[Path, list[Scored]]) -> list[Difference]:
    """Every later run less the first, where the episodes are the same.

    How many inner steps it takes is each run's own affair; where one was scored after several
    numbers of steps, equal numbers are compared.
    """
    start, *others = scored
    several = any(len(_steps(runs)) > 1 for runs in scored.values())
    return [
        Difference(
            (other, start), theirs, first, paired_difference(theirs.evaluation, first.evaluation)
        )
        for other in others
        for first, theirs in product(scored[start], scored[other])
        if not (first.baseline or theirs.baseline)
        and same_episodes(first.row, theirs.row)
        and (not several or len(_steps([first, theirs])) <= 1)
    ]


def difference_rows(differences: list[Difference]) -> list[list[str]]:
    """Of each difference: the two runs, the task, and the interval."""
    return [
        [
            " - ".join(
                f"{folder} ({condition(scored.row)})"
                for folder, scored in zip(one.folders, (one.theirs, one.first), strict=True)
            ),
            task_name(one.theirs.row),
            _interval(one),
        ]
        for one in differences
    ]


def named_runs(runs: dict[Path, Run]) -> dict[str, Run]:
    """Runs by the names of their learners where these tell them apart, else by their folders."""
    learners = [run.config.learner.name for run in runs.values()]
    names = learners if len(set(learners)) == len(learners) else map(str, runs)
    return dict(zip(names, runs.values(), strict=True))


def check_side_by_side(runs: dict[Path, Run]) -> None:
    """Refuse, before any work, runs that `side_by_side_figure` cannot draw.

    Raises:
        ValueError: for runs of both kinds, or in regression a learner without inner steps.
    """
    kinds = {run.tasks.kind for run in runs.values()}
    if len(kinds) > 1:
        raise ValueError("A figure shows runs of one kind: classification or regression.")
    for name, run in named_runs(runs).items():
        if run.tasks.kind == "regression" and run.learner.num_test_steps is None:
            raise ValueError(f"{name} takes no inner steps, so there is no adaptation to draw.")


def side_by_side_figure(runs: dict[Path, Run], rows: list[dict[str, Any]]) -> Figure:
    """The scores of runs of one kind side by side, or in regression how each adapts to a task."""
    if all(run.tasks.kind == "regression" for run in runs.values()):
        return adaptation_figure(named_runs(runs))
    return comparison_figure(rows)


def _steps(scored: list[Scored]) -> set[int]:
    """The numbers of inner steps after which a run was scored, of a learner that takes any."""
    return {each.row["num_test_steps"] for each in scored} - {None}


def _interval(one: Difference) -> str:
    mean, half_width, _ = one.interval
    unit = 100 if one.theirs.evaluation.metric == "accuracy" else 1
    return f"{unit * mean:+.2f} +- {unit * half_width:.2f}"

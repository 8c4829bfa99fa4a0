"""`kshot evaluate`: score a trained run, or several on the same episodes."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from matplotlib.figure import Figure

from kshot.cli.figures import (
    adaptation_figure,
    comparison_figure,
    gates_figure,
    run_figures,
    save_figures,
    similarity_figure,
)
from kshot.cli.flags import parse_flags
from kshot.cli.tables import condition, print_results, print_table, task_name
from kshot.config import Choice, EvaluationConfig, RunConfig
from kshot.evaluation.evaluate import paired_difference
from kshot.evaluation.intervals import MeanInterval
from kshot.evaluation.results import merge_results, same_episodes, spread_over_seeds
from kshot.recipe import parse_run
from kshot.training.run import Run, load_run, on_trained_encoder, read_description
from kshot.training.scoring import Scored, evaluate_run

__all__ = ["main"]


DESCRIPTION = """Score trained runs: kshot evaluate RUN... [FLAGS].

Later runs are also compared with the first, episode by episode, and all over their training seeds.
What the flags do not say is as in the first run's own configuration. --learner NAME scores another
learner, with the flags that are its options, on each run's trained encoder: nil, nearest_centroid
or fine_tuning, say."""


@dataclass(frozen=True)
class Evaluate:
    """What to score, and where the scores go.

    Attributes:
        runs: Folders of runs.
        frozen: Score on the episodes of this file (`kshot data --freeze`), whose way, shot and
            number then hold.
        results: Also write the rows to this JSON file.
        figure: Also draw the learners side by side to this picture file: their scores, or in
            regression how each adapts to one task.
        figures: Also draw into this folder every figure that applies: runs side by side, and in
            folders of their names their episodes, embeddings, mistakes and the like.
        similarity: Also draw, to this picture file, how similar each layer's outputs are before and
            after adaptation.
        gates: Also draw, to this picture file, how the gates of the first run's learned update rule
            go over its steps.
        json: Print the rows as JSON instead of a table.
        device: Where to compute: "auto" takes a GPU when there is one.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    frozen: Path | None = None
    results: Path | None = None
    figure: Path | None = None
    figures: Path | None = None
    similarity: Path | None = None
    gates: Path | None = None
    json: bool = False
    device: str = "auto"


def main(arguments: list[str]) -> int:
    """Parse the arguments, score, print; the exit status."""
    # What is not said is as the first run's own configuration has it.
    first = next((Path(word) for word in arguments if (Path(word) / "run.json").exists()), None)
    base = RunConfig()
    if first is not None:
        base = parse_run(read_description(first)["config"])
    # But how its BatchNorm works and how many steps it takes is each run's own affair.
    evaluation = replace(base.evaluation, batch_norm=(), num_test_steps=())
    other = any(argument.split("=")[0] == "--learner" for argument in arguments)
    config, flags = parse_flags(
        arguments,
        replace(base, evaluation=evaluation, learner=Choice("")),
        Evaluate,
        program="kshot evaluate",
        description=DESCRIPTION,
        parts=("evaluation", "learner") if other else ("evaluation",),
    )
    if not flags.runs:
        raise ValueError("Name at least one run's folder: kshot evaluate runs/glyphs-protonet-1.")
    command = shlex.join(["kshot", "evaluate", *arguments])
    runs = {folder: load_run(folder, flags.device) for folder in flags.runs}
    if other:
        runs = {folder: on_trained_encoder(run, config.learner) for folder, run in runs.items()}
    scored, conditions = {}, {}
    for folder, run in runs.items():
        own = EvaluationConfig() if other else run.config.evaluation
        wanted = replace(
            config.evaluation,
            batch_norm=config.evaluation.batch_norm or own.batch_norm,
            num_test_steps=config.evaluation.num_test_steps or own.num_test_steps,
        )
        conditions[folder] = wanted
        scored[folder] = evaluate_run(run, folder, wanted, command=command, frozen=flags.frozen)
    differences = _differences(scored)
    # Of the first run's ways to score these episodes, a row stands against its own, or the first.
    for one in sorted(differences, key=lambda one: not one.same_policy):
        one.theirs.row.setdefault("against", _against(one))
    rows = [one.row for parts in scored.values() for one in parts]
    if flags.results is not None:
        merge_results(flags.results, rows)
    if flags.figure is not None:
        _figure(runs, rows).savefig(flags.figure, dpi=150)
    if flags.figures is not None:
        save_figures({"side_by_side": _figure(runs, rows)}, flags.figures)
        for (folder, run), name in zip(runs.items(), _named(runs), strict=True):
            asked = replace(run, config=replace(run.config, evaluation=conditions[folder]))
            drawn = run_figures(asked, folder, [one.row for one in scored[folder]])
            save_figures(drawn, flags.figures / Path(name).name)
    if flags.similarity is not None:
        similarity_figure(_named(runs), config.evaluation).savefig(flags.similarity, dpi=150)
    if flags.gates is not None:
        gates_figure(next(iter(runs.values())), config.evaluation).savefig(flags.gates, dpi=150)
    if flags.json:
        print(json.dumps(rows, indent=2))
        return 0
    for parts in scored.values():
        print_results([one.row for one in parts])
    _print_differences(differences, len(runs))
    _print_spread([one.row for parts in scored.values() for one in parts if not one.baseline])
    return 0


def _figure(runs: dict[Path, Run], rows: list[dict[str, Any]]) -> Figure:
    kinds = {run.tasks.kind for run in runs.values()}
    if len(kinds) > 1:
        raise ValueError("A figure shows runs of one kind: classification or regression.")
    return adaptation_figure(_named(runs)) if kinds == {"regression"} else comparison_figure(rows)


def _named(runs: dict[Path, Run]) -> dict[str, Run]:
    """Runs by the names of their learners where these tell them apart, else by their folders."""
    learners = [run.config.learner.name for run in runs.values()]
    names = learners if len(set(learners)) == len(learners) else map(str, runs)
    return dict(zip(names, runs.values(), strict=True))


class _Difference(NamedTuple):
    """A later run's scores less the first run's, episode by episode."""

    folders: tuple[Path, Path]
    theirs: Scored
    first: Scored
    interval: MeanInterval

    @property
    def same_policy(self) -> bool:
        return self.theirs.row["batch_norm"] == self.first.row["batch_norm"]


def _differences(scored: dict[Path, list[Scored]]) -> list[_Difference]:
    """Every later run less the first, where the episodes are the same."""
    start, *others = scored
    return [
        _Difference(
            (other, start), theirs, first, paired_difference(theirs.evaluation, first.evaluation)
        )
        for other in others
        for first, theirs in product(scored[start], scored[other])
        if not (first.baseline or theirs.baseline)
        and same_episodes(first.row, theirs.row)
        and _same_steps(first.row, theirs.row)
    ]


def _against(one: _Difference) -> dict[str, Any]:
    """What a result row says of its difference from another."""
    of = ("learner", "backbone", "batch_norm", "num_test_steps", "config", "seed")
    identity = {key: one.first.row[key] for key in of}
    return {**identity, "difference": one.interval.mean, "ci95": one.interval.half_width}


def _print_differences(differences: Sequence[_Difference], runs: int) -> None:
    table = [
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
    if table:
        print_table("paired differences, 95 % interval", ["runs", "task", "difference"], table)
    elif runs > 1:
        print("No paired differences: no two runs were scored on the same episodes.")


def _same_steps(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two learners took equally many inner steps, as far as both take any."""
    steps = {ours["num_test_steps"], theirs["num_test_steps"]} - {None}
    return len(steps) <= 1


def _interval(one: _Difference) -> str:
    mean, half_width, _ = one.interval
    unit = 100 if one.theirs.evaluation.metric == "accuracy" else 1
    return f"{unit * mean:+.2f} +- {unit * half_width:.2f}"


def _print_spread(rows: list[dict[str, Any]]) -> None:
    table = []
    for row, (mean, half_width, n) in spread_over_seeds(rows):
        unit = 1 if row["accuracy"] is None else 100
        spread = f"{unit * mean:.2f} +- {unit * half_width:.2f} (n = {n})"
        table.append([row["learner"], task_name(row), row["batch_norm"], spread])
    if table:
        columns = ["learner", "task", "BatchNorm", "mean, 95 % interval"]
        print_table("over training seeds", columns, table)

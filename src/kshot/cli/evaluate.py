"""`kshot evaluate`: score a trained run, or several on the same episodes."""

import json
import shlex
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from kshot.cli.figures import adaptation_figure, comparison_figure, similarity_figure
from kshot.cli.flags import parse_flags
from kshot.cli.tables import condition, print_results, print_table, task_name
from kshot.config import Choice, EvaluationConfig, RunConfig
from kshot.evaluation.evaluate import Evaluation, paired_difference
from kshot.evaluation.results import merge_results, same_episodes, spread_over_seeds
from kshot.recipe import parse_run
from kshot.training.run import Run, load_run, on_trained_encoder, read_description
from kshot.training.scoring import Scored, evaluate_run

__all__ = ["main"]


DESCRIPTION = """Score trained runs: kshot evaluate RUN... [FLAGS].

Several runs are also compared in pairs, and over their training seeds. What the flags do not say is
as in the first run's own configuration. --learner NAME scores another learner, with the flags that
are its options, on each run's trained encoder: nil, nearest_centroid or fine_tuning, say."""


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
        similarity: Also draw, to this picture file, how similar each layer's outputs are before and
            after adaptation.
        json: Print the rows as JSON instead of a table.
        device: Where to compute: "auto" takes a GPU when there is one.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    frozen: Path | None = None
    results: Path | None = None
    figure: Path | None = None
    similarity: Path | None = None
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
    scored = {}
    for folder, run in runs.items():
        own = EvaluationConfig() if other else run.config.evaluation
        wanted = replace(
            config.evaluation,
            batch_norm=config.evaluation.batch_norm or own.batch_norm,
            num_test_steps=config.evaluation.num_test_steps or own.num_test_steps,
        )
        scored[folder] = evaluate_run(run, folder, wanted, command=command, frozen=flags.frozen)
    rows = [one.row for parts in scored.values() for one in parts]
    if flags.results is not None:
        merge_results(flags.results, rows)
    if flags.figure is not None:
        _figure(runs, rows).savefig(flags.figure, dpi=150)
    if flags.similarity is not None:
        similarity_figure(_named(runs), config.evaluation).savefig(flags.similarity, dpi=150)
    if flags.json:
        print(json.dumps(rows, indent=2))
        return 0
    for parts in scored.values():
        print_results([one.row for one in parts])
    _print_differences(scored)
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


def _print_differences(scored: dict[Path, list[Scored]]) -> None:
    """Every later run against the first, episode by episode, where the episodes are the same."""
    first, *others = scored
    table = [
        [
            f"{first} ({condition(ours.row)}) - {other} ({condition(theirs.row)})",
            task_name(ours.row),
            _difference(ours.evaluation, theirs.evaluation),
        ]
        for other in others
        for ours, theirs in product(scored[first], scored[other])
        if not (ours.baseline or theirs.baseline)
        and same_episodes(ours.row, theirs.row)
        and _same_steps(ours.row, theirs.row)
    ]
    if table:
        print_table("paired differences, 95 % interval", ["runs", "task", "difference"], table)
    elif others:
        print("No paired differences: no two runs were scored on the same episodes.")


def _same_steps(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two learners took equally many inner steps, as far as both take any."""
    steps = {ours["num_test_steps"], theirs["num_test_steps"]} - {None}
    return len(steps) <= 1


def _difference(ours: Evaluation, theirs: Evaluation) -> str:
    mean, half_width, _ = paired_difference(ours, theirs)
    unit = 100 if ours.metric == "accuracy" else 1
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

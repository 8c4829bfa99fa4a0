"""`kshot evaluate`: score a trained run, or several on the same episodes."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from kshot.cli.tables import print_results, print_table
from kshot.config import EvaluationConfig
from kshot.evaluation.evaluate import paired_difference
from kshot.evaluation.results import merge_results
from kshot.training.run import Scored, evaluate_run, load_run

__all__ = ["main"]


@dataclass(frozen=True)
class Evaluate:
    """Score one or more trained runs; with several, also their paired differences.

    Attributes:
        runs: Folders of runs.
        evaluation: Which numbers; what is not said is as in the first run's own configuration.
        results: Also write the rows to this JSON file.
        json: Print the rows as JSON instead of a table.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    results: Path | None = None
    json: bool = False


def main(arguments: list[str]) -> int:
    """Parse the arguments, score, print; the exit status."""
    folders = [Path(argument) for argument in arguments if (Path(argument) / "run.json").exists()]
    runs = {folder: load_run(folder) for folder in folders}
    # What is not said is as the first run's own configuration has it.
    wanted = next((run.config.evaluation for run in runs.values()), EvaluationConfig())
    flags = tyro.cli(
        Evaluate, args=arguments, prog="kshot evaluate", default=Evaluate(evaluation=wanted)
    )
    if not flags.runs:
        raise ValueError("Name at least one run's folder: kshot evaluate runs/glyphs-protonet-1.")
    command = shlex.join(["kshot", "evaluate", *arguments])
    scored: dict[Path, list[Scored]] = {}
    for folder in flags.runs:
        run = runs.get(folder) or load_run(folder)
        scored[folder] = evaluate_run(run, folder, flags.evaluation, command=command)
    rows = [row for parts in scored.values() for row, _ in parts]
    if flags.results is not None:
        merge_results(flags.results, rows)
    if flags.json:
        print(json.dumps(rows, indent=2))
        return 0
    for parts in scored.values():
        print_results([row for row, _ in parts])
    _print_differences(scored)
    return 0


def _print_differences(scored: dict[Path, list[Scored]]) -> None:
    """Every later run against the first, episode by episode."""
    first, *others = scored
    rows = []
    for other in others:
        for (row, ours), (_, theirs) in zip(scored[first], scored[other], strict=False):
            if row["learner"] == "nearest_centroid" and row["backbone"] == "flatten":
                continue
            mean, half_width, _ = paired_difference(ours, theirs)
            unit = 100 if ours.metric == "accuracy" else 1
            task = f"{row['way']}-way {row['shot']}-shot, {row['query_shot']} queries"
            difference = f"{unit * mean:+.2f} +- {unit * half_width:.2f}"
            rows.append([f"{first} - {other}", task, difference])
    if rows:
        print_table("paired differences, 95 % interval", ["runs", "task", "difference"], rows)

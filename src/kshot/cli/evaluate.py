"""`kshot evaluate`: score a trained run, or several on the same episodes."""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from kshot.cli.figures import (
    check_gates,
    check_similarity,
    gates_figure,
    run_figures,
    save_figures,
    similarity_figure,
)
from kshot.cli.flags import parse_flags
from kshot.cli.outputs import check_outputs
from kshot.cli.scored_runs import (
    Difference,
    check_side_by_side,
    difference_rows,
    differences_from_first,
    first_configuration,
    named_runs,
    own_conditions,
    side_by_side_figure,
)
from kshot.cli.tables import print_results, print_table, task_name
from kshot.config import Choice
from kshot.evaluation.results import merge_results, spread_over_seeds
from kshot.training.run import Run, load_run, on_trained_encoder
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
    other = any(argument.split("=")[0] == "--learner" for argument in arguments)
    config, flags = parse_flags(
        arguments,
        replace(first_configuration(arguments), learner=Choice("")),
        Evaluate,
        program="kshot evaluate",
        description=DESCRIPTION,
        parts=("evaluation", "learner") if other else ("evaluation",),
    )
    if not flags.runs:
        raise ValueError("Name at least one run's folder: kshot evaluate runs/glyphs-protonet-1.")
    files = (flags.figure, flags.similarity, flags.gates)
    check_outputs(flags.results, *files, folder=flags.figures)
    command = shlex.join(["kshot", "evaluate", *arguments])
    runs = {folder: load_run(folder, flags.device) for folder in flags.runs}
    if other:
        runs = {folder: on_trained_encoder(run, config.learner) for folder, run in runs.items()}
    _check_figures(runs, flags)
    conditions = own_conditions(runs, config.evaluation, other=other)
    scored: dict[Path, list[Scored]] = {folder: [] for folder in runs}
    for folder, run in runs.items():
        wanted = conditions[folder]
        for one in evaluate_run(run, folder, wanted, command=command, frozen=flags.frozen):
            scored[folder].append(one)
            if flags.results is not None:
                merge_results(flags.results, [one.row])
    differences = differences_from_first(scored)
    # Of the first run's ways to score these episodes, a row stands against its own, or the first.
    for one in sorted(differences, key=lambda one: not one.same_policy):
        one.theirs.row.setdefault("against", one.against)
    rows = [one.row for parts in scored.values() for one in parts]
    if flags.results is not None and differences:  # the rows say now what they stand against
        merge_results(flags.results, rows)
    if flags.json:
        print(json.dumps(rows, indent=2))
    else:
        _print(scored, differences)
    # Last, since these alone can be had again without scoring; some also move a learner.
    if flags.figure is not None:
        side_by_side_figure(runs, rows).savefig(flags.figure, dpi=150)
    if flags.figures is not None:
        save_figures({"side_by_side": side_by_side_figure(runs, rows)}, flags.figures)
        for (folder, run), name in zip(runs.items(), named_runs(runs), strict=True):
            asked = replace(run, config=replace(run.config, evaluation=conditions[folder]))
            drawn = run_figures(asked, folder, [one.row for one in scored[folder]])
            save_figures(drawn, flags.figures / Path(name).name)
    if flags.similarity is not None:
        similarity_figure(named_runs(runs), config.evaluation).savefig(flags.similarity, dpi=150)
    if flags.gates is not None:
        gates_figure(next(iter(runs.values())), config.evaluation).savefig(flags.gates, dpi=150)
    return 0


def _check_figures(runs: dict[Path, Run], flags: Evaluate) -> None:
    """Refuse figures that cannot be drawn of these runs, before they are scored."""
    if flags.figure is not None or flags.figures is not None:
        check_side_by_side(runs)
    if flags.similarity is not None:
        check_similarity(named_runs(runs))
    if flags.gates is not None:
        check_gates(next(iter(runs.values())))


def _print(scored: dict[Path, list[Scored]], differences: list[Difference]) -> None:
    for parts in scored.values():
        print_results([one.row for one in parts])
    if differences:
        columns = ["runs", "task", "difference"]
        print_table("paired differences, 95 % interval", columns, difference_rows(differences))
    elif len(scored) > 1:
        print("No paired differences: no two runs were scored on the same episodes.")
    _print_spread([one.row for parts in scored.values() for one in parts if not one.baseline])


def _print_spread(rows: list[dict[str, Any]]) -> None:
    table = []
    for row, (mean, half_width, n) in spread_over_seeds(rows):
        unit = 1 if row["accuracy"] is None else 100
        spread = f"{unit * mean:.2f} +- {unit * half_width:.2f} (n = {n})"
        table.append([row["learner"], task_name(row), row["batch_norm"], spread])
    if table:
        columns = ["learner", "task", "BatchNorm", "mean, 95 % interval"]
        print_table("over training seeds", columns, table)

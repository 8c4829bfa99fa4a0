"""`kshot verify`: how well trained runs tell true claims from false ones."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from kshot.backbones.heads import Flatten
from kshot.cli.flags import parse_flags
from kshot.cli.outputs import check_outputs
from kshot.cli.tables import print_table
from kshot.config import Choice, EpisodeConfig, RunConfig
from kshot.evaluation.results import git_revision, machine, merge_results, versions
from kshot.learner import MetaLearner
from kshot.learners.baselines.nearest_neighbor import NearestNeighbor
from kshot.plots import plot_roc
from kshot.settings.verification.rates import (
    Rates,
    Share,
    accept_rates,
    error_rates,
    roc,
    threshold_at,
)
from kshot.settings.verification.trials import Trials, collect_trials
from kshot.training.run import Run, load_run, on_trained_encoder, read_description

__all__ = ["main"]


DESCRIPTION = """Score verification: kshot verify RUN... [FLAGS].

In each episode, classes are enrolled by a few examples, and every other example claims to be of
each of them. A threshold is chosen on the classes of another split. --learner NAME verifies by
another learner, with the flags that are its options, on each run's trained encoder."""


@dataclass(frozen=True)
class Verify:
    """What to verify, and where the scores go.

    Attributes:
        runs: Folders of runs.
        split: Classes to try.
        threshold_split: Classes to choose the threshold on; they may not be those of `split`.
        way: Classes enrolled in an episode.
        shot: Examples to enroll a class by.
        query_shot: Other examples of each class that claim to be of every one.
        within: Whether all classes of an episode come from one group.
        episodes: Episodes to try.
        seed: Seed of the episodes.
        false_accept: Rate of false accepts that the threshold is chosen for.
        results: Also write the rows to this JSON file.
        figure: Also draw the curves to this picture file.
        json: Print the rows as JSON instead of a table.
        device: Where to compute: "auto" takes a GPU when there is one.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    split: str = "test"
    threshold_split: str = "val"
    way: int = 10
    shot: int = 1
    query_shot: int = 5
    within: bool = False
    episodes: int = 200
    seed: int = 1
    false_accept: float = 0.01
    results: Path | None = None
    figure: Path | None = None
    json: bool = False
    device: str = "auto"


def main(arguments: list[str]) -> int:
    """Parse the arguments, verify, print; the exit status."""
    other = any(argument.split("=")[0] == "--learner" for argument in arguments)
    config, flags = parse_flags(
        arguments,
        RunConfig(learner=Choice("")),
        Verify,
        program="kshot verify",
        description=DESCRIPTION,
        parts=("learner",) if other else (),
    )
    if not flags.runs:
        raise ValueError("Name at least one run's folder: kshot verify runs/glyphs-protonet-1.")
    check_outputs(flags.results, flags.figure)
    command = shlex.join(["kshot", "verify", *arguments])
    rows: list[dict[str, Any]] = []
    curves: dict[str, Trials] = {}
    pixels_of: set[str] = set()
    for folder in flags.runs:
        run = load_run(folder, flags.device)
        if other:
            run = on_trained_encoder(run, config.learner)
        _check_splits(run, folder, flags)
        candidates = [(run.config.learner.name, run.config.backbone.name, run.learner)]
        data = f"{run.source.name} / {run.source.protocol}"
        if data not in pixels_of:  # every run on the same data would bring the same
            pixels_of.add(data)
            pixels = NearestNeighbor(Flatten(run.tasks.input_shape))
            candidates.append(("nearest_neighbor", "flatten", pixels))
        for name, backbone, learner in candidates:
            trials = {
                split: _trials(learner, run, split, flags)
                for split in (flags.split, flags.threshold_split)
            }
            label = f"{name} on {backbone}, {data}"
            curves[label if label not in curves else f"{label}, {folder}"] = trials[flags.split]
            described = {"learner": name, "backbone": backbone, "batch_norm": learner.batch_norm}
            rows.append(_row(run, folder, flags, command, described, trials))
            if flags.results is not None:
                merge_results(flags.results, rows[-1:])
    if flags.json:
        print(json.dumps(rows, indent=2))
    else:
        _print(rows, flags)
    if flags.figure is not None:
        _figure(curves).savefig(flags.figure, dpi=150)
    return 0


def _figure(curves: dict[str, Trials]) -> Figure:
    """The curves; what all learners were tried on is said once."""
    data = {name.split(", ", 1)[1] for name in curves}
    title = data.pop() if len(data) == 1 else ""
    rates = {name.removesuffix(f", {title}"): roc(trials) for name, trials in curves.items()}
    return plot_roc(rates, title=title)


def _check_splits(run: Run, folder: Path, flags: Verify) -> None:
    """A threshold chosen on classes that were tried, or trained on, flatters itself."""
    trained = {"trainval": ("train", "val", "trainval")}.get(
        run.config.training.split, (run.config.training.split,)
    )
    seen = {flags.split: "tried there too", **dict.fromkeys(trained, f"{folder} was trained on it")}
    if flags.threshold_split in seen:
        raise ValueError(
            f"The threshold is chosen on {flags.threshold_split!r}, and "
            f"{seen[flags.threshold_split]}: one that has seen the classes flatters itself. Name "
            "another --threshold-split, or train another run without it."
        )


def _trials(learner: MetaLearner, run: Run, split: str, flags: Verify) -> Trials:
    # A validation split may have fewer classes than are enrolled at test.
    way = min(flags.way, run.source.num_classes(split)) if split != flags.split else flags.way
    episode = EpisodeConfig(way, flags.shot, flags.query_shot, flags.within)
    return collect_trials(learner, run.source.sampler(split, episode, flags.seed), flags.episodes)


def _row(
    run: Run,
    folder: Path,
    flags: Verify,
    command: str,
    described: dict[str, Any],
    trials: dict[str, Trials],
) -> dict[str, Any]:
    tried, chosen_on = trials[flags.split], trials[flags.threshold_split]
    rates = error_rates(tried)
    threshold = threshold_at(chosen_on, flags.false_accept)
    description = read_description(folder)
    trained = described["backbone"] != "flatten"
    return {
        **described,
        "setting": "verification",
        "config": run.config.fingerprint,
        "data": run.config.data.name,
        "protocol": run.source.protocol,
        "split": flags.split,
        "train_split": run.config.training.split,
        "threshold_split": flags.threshold_split,
        "within": flags.within,
        "way": flags.way,
        "shot": flags.shot,
        "query_shot": flags.query_shot,
        "episodes": flags.episodes,
        **_rates(rates),
        "threshold_at": flags.false_accept,
        **dict(zip(("false_accepts", "true_accepts"), accept_rates(tried, threshold), strict=True)),
        "seed": run.config.training.seed,
        "evaluation_seed": flags.seed,
        "train_seconds": round(run.training.seconds, 1) if trained else 0.0,
        "train_iterations": run.training.iteration if trained else 0,
        "command": f"{description['command']}; {command}",
        "recipe": description["recipe"],
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
    }


def _rates(rates: Rates) -> dict[str, Any]:
    return {
        "equal_error_rate": rates.equal_error_rate._asdict(),
        "true_accepts_at": {str(at): share._asdict() for at, share in rates.true_accepts.items()},
        "classes": rates.num_classes,
        "trials": rates.num_trials,
    }


def _print(rows: Sequence[dict[str, Any]], flags: Verify) -> None:
    first = rows[0]
    at = list(first["true_accepts_at"])
    table = [
        [
            f"{row['learner']} on {row['backbone']}, {row['data']} / {row['protocol']}",
            _percent(row["equal_error_rate"]),
            *(_percent(row["true_accepts_at"][rate]) for rate in at),
            f"{100 * row['false_accepts']:.2f} / {100 * row['true_accepts']:.1f}",
        ]
        for row in rows
    ]
    title = (
        f"{first['split']} classes, enrolled by {first['shot']}; in %, 95 % intervals over classes"
    )
    accepted = [f"true at {100 * float(rate):g} % false" for rate in at]
    chosen = f"false / true by {flags.threshold_split}"
    columns = ["learner", "equal error", *accepted, chosen]
    print_table(title, columns, table)


def _percent(share: dict[str, float]) -> str:
    value, low, high = (100 * each for each in Share(**share))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"

"""A run: a configuration made into data and learner, trained, evaluated, kept in a folder."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kshot.backbones.heads import Flatten
from kshot.config import EpisodeConfig, EvaluationConfig, RunConfig, bounds, parse_run
from kshot.data.sampler import Sampler
from kshot.data.sources import load_data
from kshot.data.splits import TaskSource
from kshot.evaluation.evaluate import Evaluation, evaluate
from kshot.evaluation.results import git_revision, machine, result_row, versions
from kshot.learner import MetaLearner
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.registry import TaskShape, build_learner, learner_row
from kshot.training.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    load_weights,
)
from kshot.training.trainer import TrainingState, choose_device, meta_train

__all__ = [
    "Run",
    "Scored",
    "build_run",
    "check_run",
    "create_folder",
    "evaluate_run",
    "load_run",
    "train_run",
]


@dataclass(frozen=True, eq=False)
class Run:
    """A configuration made real.

    Attributes:
        config: what it was made from.
        source: its tasks.
        learner: its learner.
        training: how far the learner is trained.
    """

    config: RunConfig
    source: TaskSource
    learner: MetaLearner
    training: TrainingState


class Scored(NamedTuple):
    """A result row with the evaluation it sums up."""

    row: dict[str, Any]
    evaluation: Evaluation


def build_run(config: RunConfig) -> Run:
    """Load the data and build the learner, its weights drawn from the training seed."""
    learner_row(config.learner.name)
    source = load_data(config.data)
    if source.num_outputs is not None:
        columns = source.num_outputs
    else:
        ways = [bounds(config.episodes.way)[1], bounds(config.validation.way)[1]]
        columns = max(*ways, *config.evaluation.ways)
    num_classes = source.num_classes(config.training.split)
    torch.manual_seed(config.training.seed)
    tasks = TaskShape(source.input_shape, columns, num_classes, source.kind)
    return Run(
        config, source, build_learner(config.learner, config.backbone, tasks), TrainingState()
    )


def create_folder(folder: Path, config: RunConfig, command: str, recipe: str | None) -> None:
    """Make the folder of a new run, with its configuration and where it comes from.

    Raises:
        FileExistsError: when there is a run already.
    """
    if (folder / "run.json").exists():
        raise FileExistsError(
            f"There is a run in {folder} already. Continue it with `kshot train --resume {folder}`,"
            " or name another folder with --out."
        )
    description = {
        "config": config.as_dict(),
        "command": command,
        "recipe": recipe,
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "run.json.partial"
    partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / "run.json")


def train_run(run: Run, folder: Path, *, resume: bool = False, quiet: bool = False) -> Run:
    """Train a run's learner; a learner without meta-parameters is returned as it is."""
    config = run.config
    if not learner_row(config.learner.name).meta_trained:
        return run
    state = meta_train(
        run.learner,
        _training_sampler(run),
        config.training,
        validation=_validation_sampler(run),
        folder=folder,
        name=config.learner.name,
        resume=resume,
        quiet=quiet,
    )
    return Run(config, run.source, run.learner, state)


def check_run(run: Run) -> None:
    """Draw one episode of everything a run will need, so that it cannot fail after training.

    Raises:
        ValueError: when a split has too few classes, or a class too few examples.
    """
    config = run.config
    if learner_row(config.learner.name).meta_trained:
        _training_sampler(run).sample([0])
        validation = _validation_sampler(run)
        if validation is not None:
            validation.sample([0])
    for episode, _ in _conditions(config.evaluation, run.source.kind):
        run.source.sampler(config.evaluation.split, episode, config.evaluation.seed).sample([0])


def load_run(folder: Path) -> Run:
    """The run of a folder with its trained learner: the best weights, else the latest.

    Raises:
        CheckpointError: when the folder holds no run or no usable checkpoint.
    """
    config = parse_run(read_description(folder)["config"], where=str(folder / "run.json"))
    run = build_run(config)
    if not learner_row(config.learner.name).meta_trained:
        return run
    checkpoints = CheckpointFolder(folder / "checkpoints")
    path, checkpoint = checkpoints.load_latest()
    state = TrainingState(**checkpoint.state["training"])
    best = checkpoints.load_best()
    load_weights(run.learner, best or checkpoint, config.learner.name, path)
    dtype = torch.float64 if config.training.precision == "float64" else torch.float32
    learner = run.learner.to(choose_device(config.training.device), dtype).eval()
    return Run(config, run.source, learner, state)


def read_description(folder: Path) -> dict[str, Any]:
    """What run.json says of a run: its configuration, command, versions, machine."""
    path = folder / "run.json"
    if not path.exists():
        raise CheckpointError(
            f"{folder} is not the folder of a run: it has no run.json. Train one with "
            f"`kshot train --out {folder}`."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def evaluate_run(
    run: Run,
    folder: Path,
    evaluation: EvaluationConfig | None = None,
    *,
    command: str | None = None,
) -> list[Scored]:
    """Score a run's learner, and the pixel nearest-centroid baseline beside it.

    Args:
        run: the trained run.
        folder: its folder, which says where the numbers come from.
        evaluation: which numbers; None takes the run's own configuration.
        command: the command that asks for the numbers, when it is not the one that trained.
    """
    description = read_description(folder)
    provenance = {
        key: description[key] for key in ("command", "recipe", "versions", "git", "machine")
    }
    if command is not None:
        provenance |= {"command": f"{provenance['command']}; {command}"}
        provenance |= {"versions": versions(), "git": git_revision(), "machine": machine()}
    wanted = evaluation or run.config.evaluation
    trained = {
        "train_seconds": round(run.training.seconds, 1),
        "train_iterations": run.training.iteration,
        "best_iteration": run.training.best_iteration or run.training.iteration,
    }
    untrained = {"train_seconds": 0.0, "train_iterations": 0, "best_iteration": 0}
    scored = []
    for episode, policy in _conditions(wanted, run.source.kind):
        sampler = run.source.sampler(wanted.split, episode, wanted.seed)
        own = (run.config.learner.name, run.config.backbone.name)
        candidates = [(*own, run.learner, trained)]
        if (
            run.source.kind == "classification"
            and own != ("nearest_centroid", "flatten")
            and policy in (None, *wanted.batch_norm[:1])
        ):
            # Cosine, as the pixel baseline of the papers.
            pixels = NearestCentroid(Flatten(run.source.input_shape), normalize=True)
            candidates.append(("nearest_centroid", "flatten", pixels, untrained))
        for name, backbone, learner, training in candidates:
            result = evaluate(
                learner,
                sampler,
                wanted.episodes,
                batch_episodes=wanted.batch_episodes,
                batch_norm=policy,
            )
            row = result_row(
                run.config,
                wanted,
                result,
                episode,
                learner=name,
                backbone=backbone,
                protocol=run.source.protocol,
                training=training,
                provenance=provenance,
            )
            scored.append(Scored(row, result))
    return scored


def _training_sampler(run: Run) -> Sampler:
    training = run.config.training
    return run.source.sampler(training.split, run.config.episodes, training.seed)


def _validation_sampler(run: Run) -> Sampler | None:
    """None when there is no validation split, or it is trained on."""
    training = run.config.training
    if training.split != "train" or not run.source.has_split("val"):
        return None
    if not training.validation_episodes:
        return None
    return run.source.sampler("val", run.config.validation, training.seed)


def _conditions(wanted: EvaluationConfig, kind: str) -> Iterator[tuple[EpisodeConfig, Any]]:
    ways = wanted.ways if kind == "classification" else (1,)
    policies = wanted.batch_norm or (None,)
    for way, shot, query_shot, policy in product(ways, wanted.shots, wanted.query_shots, policies):
        yield EpisodeConfig(way, shot, query_shot, wanted.within), policy

"""A run: a configuration made into data and learner, trained, evaluated, kept in a folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kshot.backbones.heads import Flatten
from kshot.config import (
    BatchNormPolicy,
    EpisodeConfig,
    EvaluationConfig,
    RunConfig,
    bounds,
    parse_run,
)
from kshot.data.atomic import write_atomically
from kshot.data.augment import AugmentedSampler
from kshot.data.frozen import FrozenEpisodes, load_episodes
from kshot.data.sampler import Sampler
from kshot.data.sources import load_data
from kshot.data.splits import LabelledSplits, TaskSource
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
        tasks: what its learner was built for.
        preparation: how a new picture becomes an input; empty when inputs are not pictures.
        learner: its learner.
        training: how far the learner is trained.
    """

    config: RunConfig
    tasks: TaskShape
    preparation: Mapping[str, Any]
    learner: MetaLearner
    training: TrainingState

    @cached_property
    def source(self) -> TaskSource:
        """Its data, read when first asked for: a trained learner predicts without."""
        return load_data(self.config.data)


class Scored(NamedTuple):
    """A result row with the evaluation it sums up."""

    row: dict[str, Any]
    evaluation: Evaluation


def build_run(config: RunConfig) -> Run:
    """Load the data and build the learner, its weights drawn from the training seed."""
    learner_row(config.learner.name)  # a wrong name is said before the data are prepared
    source = load_data(config.data)
    if source.num_outputs is not None:
        columns = source.num_outputs
    else:
        ways = [bounds(config.episodes.way)[1], bounds(config.validation.way)[1]]
        columns = max(*ways, *config.evaluation.ways)
    num_classes = source.num_classes(config.training.split)
    tasks = TaskShape(source.input_shape, columns, num_classes, source.kind)
    return _assemble(config, tasks, source.preparation)


def create_folder(folder: Path, run: Run, command: str, recipe: str | None) -> None:
    """Make the folder of a new run, with all that is needed to build its learner again.

    Raises:
        FileExistsError: when there is a run already.
    """
    if (folder / "run.json").exists():
        raise FileExistsError(
            f"There is a run in {folder} already. Continue it with `kshot train --resume {folder}`,"
            " or name another folder with --out."
        )
    description = {
        "config": run.config.as_dict(),
        "tasks": run.tasks._asdict(),
        "preparation": dict(run.preparation),
        "command": command,
        "recipe": recipe,
        "versions": versions(),
        "git": git_revision(),
        "machine": machine(),
    }
    write_atomically(folder / "run.json", json.dumps(description, indent=2) + "\n")


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
    return replace(run, training=state)


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
    for episode, _, _ in _conditions(config.evaluation, run.tasks.kind):
        run.source.sampler(config.evaluation.split, episode, config.evaluation.seed).sample([0])


def load_run(folder: Path, device: str = "auto") -> Run:
    """The run of a folder with its trained learner: the best weights, else the latest.

    The data it was trained on are not read before someone asks for its `source`.

    Args:
        folder: the run's folder.
        device: where the learner computes: "auto" takes a GPU when there is one.

    Raises:
        CheckpointError: when the folder holds no run or no usable checkpoint.
    """
    description = read_description(folder)
    config = parse_run(description["config"], where=str(folder / "run.json"))
    shape = description["tasks"]
    tasks = TaskShape(**{**shape, "input_shape": tuple(shape["input_shape"])})
    run = _assemble(config, tasks, description["preparation"])
    if learner_row(config.learner.name).meta_trained:
        checkpoint = CheckpointFolder(folder / "checkpoints").load_for_use()
        load_weights(run.learner, checkpoint, config.learner.name, folder)
        run = replace(run, training=TrainingState(**checkpoint.state["training"]))
    dtype = torch.float64 if config.training.precision == "float64" else torch.float32
    run.learner.to(choose_device(device), dtype).eval()
    return run


def read_description(folder: Path) -> dict[str, Any]:
    """What run.json says of a run: its configuration, tasks, command, versions, machine."""
    path = folder / "run.json"
    if not path.exists():
        raise CheckpointError(
            f"{folder} is not the folder of a run: it has no run.json. Train one with "
            f"`kshot train --out {folder}`."
        )
    needed = ("config", "tasks", "preparation", "command", "recipe", "versions", "git", "machine")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in needed if key not in description]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Restore it, or train again.") from None
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}. Restore it, or train again.")
    return description


def evaluate_run(
    run: Run,
    folder: Path,
    evaluation: EvaluationConfig | None = None,
    *,
    command: str | None = None,
    frozen: Path | None = None,
) -> list[Scored]:
    """Score a run's learner, and the pixel nearest-centroid baseline beside it.

    Args:
        run: the trained run.
        folder: its folder, which says where the numbers come from.
        evaluation: which numbers; None takes the run's own configuration.
        command: the command that asks for the numbers, when it is not the one that trained.
        frozen: a file of episodes to score on, instead of drawing them by way, shot and seed.
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
    stored = None
    if frozen is not None:
        wanted, stored = _frozen(run, wanted, frozen)
        provenance |= {"evaluation_seed": None, "frozen": frozen.name}
    for episode, policy, steps in _conditions(wanted, run.tasks.kind):
        sampler = stored or run.source.sampler(wanted.split, episode, wanted.seed)
        own = (run.config.learner.name, run.config.backbone.name)
        candidates = [(*own, run.learner, trained)]
        if (
            run.tasks.kind == "classification"
            and own != ("nearest_centroid", "flatten")
            and policy in (None, *wanted.batch_norm[:1])
            and steps in (None, *wanted.num_test_steps[:1])
        ):
            # Cosine, as the pixel baseline of the papers.
            pixels = NearestCentroid(Flatten(run.tasks.input_shape), normalize=True)
            candidates.append(("nearest_centroid", "flatten", pixels, untrained))
        for name, backbone, learner, training in candidates:
            result = evaluate(
                learner,
                sampler,
                wanted.episodes,
                batch_episodes=wanted.batch_episodes,
                batch_norm=policy,
                num_test_steps=None if learner is not run.learner else steps,
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


def _assemble(config: RunConfig, tasks: TaskShape, preparation: Mapping[str, Any]) -> Run:
    torch.manual_seed(config.training.seed)
    learner = build_learner(config.learner, config.backbone, tasks)
    return Run(config, tasks, preparation, learner, TrainingState())


def _frozen(
    run: Run, wanted: EvaluationConfig, path: Path
) -> tuple[EvaluationConfig, FrozenEpisodes]:
    """The stored episodes of a file, and what is wanted of them."""
    if not isinstance(run.source, LabelledSplits):
        raise ValueError(f"{run.source.name} has no classes, so no frozen episodes.")
    stored = load_episodes(path, run.source.dataset(wanted.split))
    way, shot, query_shot = stored.shape
    return replace(
        wanted, ways=(way,), shots=(shot,), query_shots=(query_shot,), episodes=len(stored)
    ), stored


def _training_sampler(run: Run) -> Sampler:
    training, augmentation = run.config.training, run.config.augmentation
    sampler = run.source.sampler(training.split, run.config.episodes, training.seed)
    if not augmentation.moves:
        return sampler
    return AugmentedSampler(sampler, augmentation, seed=training.seed, split=training.split)


def _validation_sampler(run: Run) -> Sampler | None:
    """None when there is no validation split, or it is trained on."""
    training = run.config.training
    if training.split != "train" or not run.source.has_split("val"):
        return None
    if not training.validation_episodes:
        return None
    return run.source.sampler("val", run.config.validation, training.seed)


def _conditions(
    wanted: EvaluationConfig, kind: str
) -> Iterator[tuple[EpisodeConfig, BatchNormPolicy | None, int | None]]:
    """Episodes, BatchNorm policy and inner steps of every row."""
    ways = wanted.ways if kind == "classification" else (1,)
    policies, steps = wanted.batch_norm or (None,), wanted.num_test_steps or (None,)
    for way, shot, query_shot, policy, count in product(
        ways, wanted.shots, wanted.query_shots, policies, steps
    ):
        yield EpisodeConfig(way, shot, query_shot, wanted.within), policy, count

"""A run: a configuration made into data and learner, trained, kept in a folder."""

import copy
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kshot.backbones.normalization import has_running_averages
from kshot.config import Choice, RunConfig, bounds
from kshot.data.atomic import write_atomically
from kshot.data.augment import AugmentedSampler
from kshot.data.sampler import Sampler
from kshot.data.sources import load_data
from kshot.data.splits import TaskSource
from kshot.device import choose_device
from kshot.evaluation.results import git_revision, machine, versions
from kshot.learner import MetaLearner
from kshot.learners.embedding import encoder_of
from kshot.learners.ensemble import Ensemble
from kshot.learners.registry import LEARNERS, TaskShape, build_learner, learner_row
from kshot.recipe import parse_run
from kshot.training.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    load_checkpoint,
    load_weights,
)
from kshot.training.trainer import TrainingState, meta_train

__all__ = [
    "Data",
    "Run",
    "build_run",
    "create_folder",
    "discard_unstarted",
    "load_run",
    "on_trained_encoder",
    "read_description",
    "train_run",
    "training_sampler",
    "validation_sampler",
    "with_ensemble",
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
        data: where its tasks come from.
    """

    config: RunConfig
    tasks: TaskShape
    preparation: Mapping[str, Any]
    learner: MetaLearner
    training: TrainingState
    data: "Data"

    @property
    def source(self) -> TaskSource:
        """Its data, read when first asked for: a trained learner predicts without."""
        return self.data.source


class Data:
    """The data that a configuration names, read when first asked for.

    Args:
        choice: their name and options.
        source: what they are, when they were read already.
    """

    def __init__(self, choice: Choice, source: TaskSource | None = None) -> None:
        self._choice = choice
        self._source = source

    @property
    def source(self) -> TaskSource:
        """The tasks."""
        if self._source is None:
            self._source = load_data(self._choice)
        return self._source


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
    return _assemble(config, tasks, source.preparation, Data(config.data, source))


def create_folder(folder: Path, run: Run, command: str, recipe: str | None) -> None:
    """Make the folder of a new run, with all that is needed to build its learner again.

    Raises:
        FileExistsError: when there is a run already, or anything else.
    """
    if (folder / "run.json").exists():
        raise FileExistsError(
            f"There is a run in {folder} already. Continue it with `kshot train --resume "
            f"{shlex.quote(str(folder))}`, or name another folder with --out."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"There is something other than a run at {folder}: name a new folder with --out, or "
            "an empty one."
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


def discard_unstarted(folder: Path) -> None:
    """Take a new run back whose training failed; what has saved any weights stays.

    There is nothing to continue, and its folder would be in the way of the next attempt.
    """
    if not CheckpointFolder(folder / "checkpoints").empty():
        return
    for name in ("run.json", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
    for made in (folder / "checkpoints", folder / "tensorboard"):
        if made.exists():
            shutil.rmtree(made)


def train_run(run: Run, folder: Path, *, resume: bool = False, quiet: bool = False) -> Run:
    """Train a run's learner; a learner without meta-parameters is returned as it is."""
    config = run.config
    if not learner_row(config.learner.name).meta_trained:
        return run
    state = meta_train(
        run.learner,
        training_sampler(run),
        config.training,
        validation=validation_sampler(run),
        folder=folder,
        name=config.learner.name,
        resume=resume,
        quiet=quiet,
    )
    return replace(run, training=state)


def load_run(folder: Path | str, device: str = "auto", source: TaskSource | None = None) -> Run:
    """The run of a folder with its trained learner: the best weights, else the latest.

    The data it was trained on are not read before someone asks for its `source`.

    Args:
        folder: the run's folder.
        device: where the learner computes: "auto" takes a GPU when there is one.
        source: its data, when they were read already.

    Raises:
        CheckpointError: when the folder holds no run or no usable checkpoint.
    """
    folder = Path(folder)
    description = read_description(folder)
    config = parse_run(description["config"], where=str(folder / "run.json"))
    shape = description["tasks"]
    tasks = TaskShape(**{**shape, "input_shape": tuple(shape["input_shape"])})
    run = _assemble(config, tasks, description["preparation"], Data(config.data, source))
    dtype = torch.float64 if config.training.precision == "float64" else torch.float32
    run.learner.to(choose_device(device), dtype).eval()
    if learner_row(config.learner.name).meta_trained:
        checkpoint = CheckpointFolder(folder / "checkpoints").load_for_use()
        load_weights(run.learner, checkpoint, config.learner.name, folder)
        run = replace(run, training=TrainingState.stored(checkpoint, folder))
    return run


def with_ensemble(run: Run, folder: Path, count: int) -> Run:
    """A run whose learner is the mean of the weights of its best validations.

    Args:
        run: the trained run.
        folder: its folder.
        count: how many weights predict together; 1 leaves the run as it is.

    Raises:
        CheckpointError: when the training kept fewer, or one of them is damaged.
    """
    if count == 1:
        return run
    checkpoints = CheckpointFolder(folder / "checkpoints")
    good = checkpoints.load_for_use().state["training"].get("good", ())
    if len(good) < count:
        raise CheckpointError(
            f"An ensemble of {count} needs the weights of so many validations, and {folder} keeps "
            f"{len(good)}. Train with --training.keep-best {count} and at least {count} "
            "validations."
        )
    members = []
    for iteration, _ in good[:count]:
        path = checkpoints.good(iteration)
        members.append(copy.deepcopy(run.learner))
        load_weights(members[-1], load_checkpoint(path), run.config.learner.name, path)
    return replace(run, learner=Ensemble(members))


def on_trained_encoder(run: Run, learner: Choice) -> Run:
    """A run with another learner on its trained encoder: what the features alone are worth.

    Args:
        run: a trained run, whose encoder the other learner shares.
        learner: the other learner, which is not trained further.

    Raises:
        ValueError: when the run's learner has no encoder, or the other learner has parts that had
            to be trained, or would read running averages that the encoder does not have.
    """
    if not learner_row(learner.name).of_any_encoder:
        able = [name for name, row in LEARNERS.items() if row.of_any_encoder]
        raise ValueError(
            f"{learner.name} has to be trained as a whole: on another learner's encoder the rest "
            f"of it would be as it was drawn. These take any encoder: {', '.join(able)}."
        )
    other = build_learner(learner, encoder_of(run.learner), run.tasks)
    if other.batch_norm == "running" and not has_running_averages(other):
        raise ValueError(
            f"{learner.name} reads BatchNorm's running averages, and {run.config.learner.name} was "
            f"trained under {run.learner.batch_norm!r}, which keeps none: nil can read the "
            "statistics of the batch."
        )
    like = next(run.learner.parameters())
    # Published figures are of the run's own learner.
    config = replace(run.config, learner=learner, published=())
    return replace(run, config=config, learner=other.to(like.device, like.dtype).eval())


def read_description(folder: Path) -> dict[str, Any]:
    """What run.json says of a run: its configuration, tasks, command, versions, machine."""
    path = folder / "run.json"
    if not path.exists():
        raise CheckpointError(
            f"{folder} is not the folder of a run: it has no run.json. Train one with "
            f"`kshot train --out {shlex.quote(str(folder))}`."
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


def _assemble(
    config: RunConfig, tasks: TaskShape, preparation: Mapping[str, Any], data: Data
) -> Run:
    torch.manual_seed(config.training.seed)
    learner = build_learner(config.learner, config.backbone, tasks)
    return Run(config, tasks, preparation, learner, TrainingState(), data)


def training_sampler(run: Run) -> Sampler:
    """The episodes a run trains on, augmented as it says."""
    training, augmentation = run.config.training, run.config.augmentation
    sampler = run.source.sampler(training.split, run.config.episodes, training.seed)
    if not augmentation.moves:
        return sampler
    return AugmentedSampler(sampler, augmentation, seed=training.seed, split=training.split)


def validation_sampler(run: Run) -> Sampler | None:
    """The episodes a run is validated on; None without a validation split of its own."""
    training = run.config.training
    if training.split != "train" or not run.source.has_split("val"):
        return None
    if not training.validation_episodes:
        return None
    return run.source.sampler("val", run.config.validation, training.seed)

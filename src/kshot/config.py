"""Configuration: frozen dataclasses, the one source of defaults, CLI flags and saved runs.

A run is described by the same tables everywhere: as TOML in a recipe, as flags on the command line,
as JSON in a run's folder and in every result row. Nothing here imports torch.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from kshot.options import convert_fields

__all__ = [
    "VARIATIONS",
    "AugmentationConfig",
    "BatchNormPolicy",
    "Choice",
    "EpisodeConfig",
    "EvaluationConfig",
    "Published",
    "RunConfig",
    "TrainingConfig",
    "bounds",
]

BatchNormPolicy = Literal["running", "batch", "support", "support_and_query", "per_step", "none"]
"""Which examples give BatchNorm its statistics; docs/glossary.md explains each."""

Table = TypeVar("Table")

Count = int | tuple[int, int]
"""A number, or a range (lowest, highest) from which every episode draws its own."""


VARIATIONS: dict[str, Any] = {
    "aligned": False,
    "labelled_share": 1.0,
    "label_splits": 1,
    "unlabelled": 0,
    "distractors": 0,
}
"""What episodes may vary besides way, shot and queries, with the values that mean they do not."""


def bounds(count: Count) -> tuple[int, int]:
    """Lowest and highest value of a number or a range."""
    return (count, count) if isinstance(count, int) else count


@dataclass(frozen=True)
class Choice:
    """A named row of a registry with the options given to its constructor.

    The constructor's signature is the one source of the options' names, types and defaults.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpisodeConfig:
    """How episodes are drawn from classes.

    Attributes:
        way: Classes an episode, or a range (lowest, highest).
        shot: Support examples a class, or a range.
        query_shot: Query examples a class.
        within: Whether all classes of an episode come from one group (alphabet, script, person).
        aligned: Whether the examples of a class stand in an order that means something, such as
            one drawer after the other: support examples are then by the same drawers in all
            classes of an episode, and queries by the same others.
        labelled_share: Share of each class's examples that have labels. Support and query come
            from these, unlabelled examples from the others.
        label_splits: Random ways to choose them: episode i has way i modulo their number.
        unlabelled: Support examples a class without a label.
        distractors: Other classes, each with `unlabelled` examples in the support set.
    """

    way: Count = 5
    shot: Count = 1
    query_shot: int = 15
    within: bool = False
    aligned: bool = False
    labelled_share: float = 1.0
    label_splits: int = 1
    unlabelled: int = 0
    distractors: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("way", "shot", "query_shot"):
            low, high = bounds(getattr(self, name))
            if low < 1 or high < low:
                raise ValueError(
                    f"{name} must be at least 1, or a range (lowest, highest); "
                    f"it is {getattr(self, name)!r}."
                )
        _check_labels(self)


def _check_labels(config: "EpisodeConfig | EvaluationConfig") -> None:
    if not 0 < config.labelled_share <= 1 or config.label_splits < 1:
        raise ValueError(
            "labelled_share must be above 0 and at most 1, and label_splits at least 1; they are "
            f"{config.labelled_share} and {config.label_splits}."
        )
    if min(config.unlabelled, config.distractors) < 0:
        raise ValueError("unlabelled and distractors must be at least 0.")
    if config.label_splits > 1 and config.labelled_share == 1:
        raise ValueError("label_splits chooses who has labels: set labelled_share below 1.")
    if config.aligned and config.labelled_share < 1:
        raise ValueError("aligned needs all examples of every class: leave labelled_share at 1.")
    if config.unlabelled and config.labelled_share == 1:
        raise ValueError(
            "Unlabelled examples come from those without labels: set labelled_share below 1."
        )
    if config.distractors and not config.unlabelled:
        raise ValueError("Distractors are unlabelled examples: set unlabelled above 0.")


@dataclass(frozen=True)
class AugmentationConfig:
    """How training pictures are moved at random; by default they are not.

    Each picture is moved on its own and, for new classes to learn from, all pictures of a class in
    an episode are moved alike (pre-training with global labels keeps the label).

    Attributes:
        rotation: Largest turn of a picture, in degrees.
        shear: Largest shear, as a fraction of the height.
        scale: Largest change of size, as a fraction.
        shift: Largest shift in both directions, in pixels.
        class_rotation: Largest turn of a class, in degrees.
        class_shear: Largest shear of a class.
        class_scale: Largest change of size of a class.
        mirror: Mirror a class with probability 1/2.
        smooth: Mix neighboring pixels; otherwise the nearest is taken, which keeps black and white.
    """

    rotation: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    class_rotation: float = 0.0
    class_shear: float = 0.0
    class_scale: float = 0.0
    mirror: bool = False
    smooth: bool = True

    def __post_init__(self) -> None:
        convert_fields(self)
        if min(self._limits) < 0 or max(self.scale, self.class_scale) >= 1:
            raise ValueError(f"Augmentation must be at least 0, and scale below 1; it is {self}.")

    @property
    def moves(self) -> bool:
        """Whether anything is moved."""
        return self.mirror or max(self._limits) > 0

    @property
    def moves_classes(self) -> bool:
        """Whether all examples of a class are moved alike."""
        return self.mirror or max(self.class_rotation, self.class_shear, self.class_scale) > 0

    @property
    def _limits(self) -> tuple[float, ...]:
        own = (self.rotation, self.shear, self.scale, self.shift)
        return (*own, self.class_rotation, self.class_shear, self.class_scale)


@dataclass(frozen=True)
class TrainingConfig:
    """How meta-parameters are learned.

    Attributes:
        iterations: Outer steps.
        meta_batch_size: Episodes an outer step.
        micro_batch_size: Episodes computed at once within an outer step, which bounds memory and
            leaves the meta-gradient as it is, but for running averages; 0 computes all at once.
        optimizer: Outer optimizer.
        outer_lr: Outer learning rate at the start.
        schedule: How the outer learning rate falls: not at all, as a half cosine to zero, linearly
            to zero, or halved every `halve_every` iterations.
        halve_every: Iterations between halvings of the "halving" schedule.
        weight_decay: Weight decay of the outer optimizer.
        clip_norm: Largest norm of the meta-gradient; 0 leaves it as it is.
        split: Classes to train on.
        validate_every: Iterations between validations, and between lines of metrics.jsonl.
        validation_episodes: Episodes of a validation, the same each time; 0 never validates and
            keeps the last weights.
        patience: Validations without a better one before training stops; 0 never stops early.
        keep_best: Weights of so many best validations are kept, for `evaluation.ensemble`.
        checkpoint_every: Iterations between checkpoints; there is one after each validation too.
        seed: Seed of a run's weights and episodes (`kshot train`); `meta_train` draws nothing.
        device: Where to train: "auto" takes a GPU when there is one.
        precision: Precision of the network's own arithmetic.
        compile: Compile the meta-gradient, or the steps of a learner that reads in turn: a minute
            or two at the start, then mostly faster. Needs a C++ compiler.
        tensorboard: Also write TensorBoard event files (extra `tensorboard`).
    """

    iterations: int = 600
    meta_batch_size: int = 1
    micro_batch_size: int = 0
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    outer_lr: float = 1e-3
    schedule: Literal["constant", "cosine", "linear", "halving"] = "cosine"
    halve_every: int = 2000
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    split: str = "train"
    validate_every: int = 100
    validation_episodes: int = 200
    patience: int = 0
    keep_best: int = 1
    checkpoint_every: int = 100
    seed: int = 0
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    compile: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        convert_fields(self)
        counts = ("iterations", "meta_batch_size", "validate_every", "keep_best")
        for name in (*counts, "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.micro_batch_size < 0:
            raise ValueError(f"micro_batch_size must be at least 0, not {self.micro_batch_size}.")
        if self.halve_every < 1 or self.clip_norm < 0 or self.validation_episodes == 1:
            raise ValueError(
                "halve_every must be at least 1, clip_norm at least 0, validation_episodes 0 or at "
                f"least 2; they are {self.halve_every}, {self.clip_norm} and "
                f"{self.validation_episodes}."
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """Which numbers to report: one row for each way, shot and query_shot.

    Attributes:
        ways: Classes an episode.
        shots: Support examples a class.
        query_shots: Query examples a class.
        within: Whether all classes of an episode come from one group.
        aligned: Whether support examples are by the same drawers in all classes of an episode.
        labelled_share: Share of each class's examples that have labels.
        label_splits: Random ways to choose them: episode i has way i modulo their number.
        unlabelled: Support examples a class without a label.
        distractors: Other classes, each with `unlabelled` examples in the support set.
        episodes: Episodes a row.
        batch_episodes: Episodes computed at once; 0 chooses.
        split: Classes to evaluate on.
        seed: Seed of the episodes: the same seed gives the same episodes to every learner.
        batch_norm: BatchNorm policy of the rows; none given keeps the learner's own.
        num_test_steps: Inner steps of the rows, for learners that take gradient steps; none given
            keeps the learner's own.
        ensemble: How many weights of one training predict together, by the mean of their logits or
            values: those of its best validations, which `training.keep_best` keeps; a row for each
            number given, none given takes the best alone.
        instances: Also the accuracy at the k-th example of a class, for each k given, when examples
            come one by one and each is told after it was predicted: a row for each, of episodes
            with as many examples a class as the largest k.
    """

    ways: tuple[int, ...] = (5,)
    shots: tuple[int, ...] = (1,)
    query_shots: tuple[int, ...] = (15,)
    within: bool = False
    aligned: bool = False
    labelled_share: float = 1.0
    label_splits: int = 1
    unlabelled: int = 0
    distractors: int = 0
    episodes: int = 600
    batch_episodes: int = 0
    split: str = "test"
    seed: int = 1
    batch_norm: tuple[BatchNormPolicy, ...] = ()
    num_test_steps: tuple[int, ...] = ()
    ensemble: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.episodes < 2:
            raise ValueError(f"An evaluation needs at least 2 episodes, not {self.episodes}.")
        if min(self.ensemble, default=1) < 1 or (self.ensemble and self.instances):
            raise ValueError(
                f"ensemble counts weights from 1, and not together with instances; it is "
                f"{self.ensemble}, with instances {self.instances}."
            )
        if min(self.instances, default=1) < 1:
            raise ValueError(f"instances are counted from 1; they are {self.instances}.")
        _check_labels(self)


@dataclass(frozen=True)
class Published:
    """A figure of the paper, to stand beside the row of the same way and shot.

    Attributes:
        way: Classes an episode.
        shot: Support examples a class.
        accuracy: The figure, as a fraction.
        where: Where it stands.
        query_shot: Query examples a class it was measured with; None stands beside any.
        batch_norm: BatchNorm policy it was measured under; None stands beside any.
        instance: Of a figure for the k-th example of a class: k. Then `shot` is how many come.
    """

    way: int
    shot: int
    accuracy: float
    where: str
    query_shot: int | None = None
    batch_norm: str | None = None
    instance: int | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything that identifies a run."""

    data: Choice = Choice("glyphs")
    backbone: Choice = Choice("conv4")
    learner: Choice = Choice("protonet")
    episodes: EpisodeConfig = EpisodeConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    validation: EpisodeConfig = EpisodeConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    published: tuple[Published, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The configuration as nested plain dictionaries, the inverse of `parse_run`."""
        tables = {}
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Choice):
                tables[part.name] = {"name": value.name, **value.options}
            elif isinstance(value, tuple):
                tables[part.name] = [dataclasses.asdict(row) for row in value]
            else:
                tables[part.name] = dataclasses.asdict(value)
        return json.loads(json.dumps(tables, default=_readable_from_anywhere))

    @property
    def fingerprint(self) -> str:
        """Of what the run learns from and how: of all but seed, device and what is evaluated."""
        training = dataclasses.replace(self.training, seed=0, device="", tensorboard=False)
        same = dataclasses.replace(
            self, training=training, evaluation=EvaluationConfig(), published=()
        )
        tables = same.as_dict()
        # What came later: where it is as before, or changes nothing, so is the fingerprint.
        del tables["evaluation"]["instances"], tables["evaluation"]["ensemble"]
        del tables["training"]["keep_best"]
        for table in ("episodes", "validation", "evaluation"):
            for key, value in VARIATIONS.items():
                if tables[table][key] == value:
                    del tables[table][key]
        text = json.dumps(tables, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _readable_from_anywhere(path: Path) -> str:
    """A path as a run's folder keeps it; one that is sought in $KSHOT_DATA stays as it is."""
    return str(path.absolute() if path.exists() else path)

"""Learners as the API serves them: adapt once to a visitor's examples, predict many, draw a map."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kshot.backbones.normalization import reads_stored
from kshot.demo.drawings import INK, Ink, as_input
from kshot.encoders import Encoder
from kshot.episodes import Examples, leaves, one_hot
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_query
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.registry import learner_row
from kshot.learners.row import encoder_and_way, net_with_head
from kshot.predictor import Predictor
from kshot.training.run import load_run
from kshot.user_examples import as_inputs, inductive

__all__ = [
    "SHIPPED",
    "Adapted",
    "Answer",
    "FittedPredictor",
    "Map",
    "PictureLearner",
    "load_learners",
]

SHIPPED = Path(__file__).parent / "weights"
"""Folders of the runs that come with kshot."""

Item = Image.Image | str
"""What is named: a picture of mode "RGB", or a text."""


class Answer(NamedTuple):
    """What is said of one input.

    Attributes:
        probabilities: of every class, in order.
        place: (x, y) on the map; None where there is no map.
        known: whether it is near enough to any class; None where nobody can tell.
    """

    probabilities: list[float]
    place: tuple[float, float] | None = None
    known: bool | None = None


class Map(NamedTuple):
    """Where the support set lies in the plane in which it differs most (PCA).

    Attributes:
        support: (x, y) of each example, in the order they were given.
        prototypes: (x, y) of each class: the mean of its examples.
        of: what the plane cuts through: "embeddings", or the learner's "outputs".
    """

    support: list[tuple[float, float]]
    prototypes: list[tuple[float, float]]
    of: Literal["embeddings", "outputs"]


@runtime_checkable
class Adapted(Protocol):
    """What was learned from a class set; it never changes, so that threads can share it."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        ...

    @property
    def reads(self) -> Literal["pictures", "text"]:
        """What it names."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory that is kept for it."""
        ...

    @property
    def map(self) -> Map | None:
        """A map of its examples."""
        ...

    def predict(self, items: Sequence[Item]) -> list[Answer]:
        """Name inputs; what is said of one never depends on the others."""
        ...


@dataclass(frozen=True, eq=False)
class PictureLearner:
    """A trained run, ready to learn from pictures.

    Attributes:
        name: by which visitors choose it, unlike that of any other.
        learner: in evaluation mode, under a policy that looks at one query at a time.
        preparation: how its training pictures were made.
        ink: how drawings look there; None when it learned from other pictures.
        most_classes: of a class set; None when there is no bound.
        summary: the idea, in one line.
        trained_on: its data.
    """

    name: str
    learner: MetaLearner
    preparation: Mapping[str, Any]
    ink: Ink | None
    most_classes: int | None
    summary: str
    trained_on: str

    @classmethod
    def load(cls, folder: Path, name: str, device: str = "cpu") -> "PictureLearner":
        """The learner of a run's folder.

        Raises:
            ValueError: when it was not trained on pictures, or looks at queries together only.
        """
        run = load_run(folder, device)
        if not run.preparation:
            raise ValueError(
                f"The run {folder} was not trained on pictures, so it cannot name any: give a run "
                "on glyphs, Omniglot or pictures of your own."
            )
        row, data = learner_row(run.config.learner.name), run.config.data
        bounded = row.arguments in (net_with_head, encoder_and_way)
        strokes = "scripts-pen" if data.options.get("strokes") == "pen" else "scripts"
        with warnings.catch_warnings():
            # A change of policy is told to visitors, as `batch_norm`, and not at every start.
            warnings.simplefilter("ignore", UserWarning)
            learner = inductive(run.learner)
        return cls(
            name,
            learner,
            dict(run.preparation),
            INK.get(strokes if data.name == "glyphs" else data.name),
            run.tasks.way if bounded else None,
            row.summary,
            data.name,
        )

    @property
    def shows_embeddings(self) -> bool:
        """Whether pictures have embeddings of their own, which are what is compared."""
        return isinstance(self.learner, EmbeddingLearner) and reads_stored(self.learner.batch_norm)

    @property
    def comparing(self) -> MetaLearner:
        """The learner of what `see` gives."""
        if not self.shows_embeddings:
            return self.learner
        assert isinstance(self.learner, EmbeddingLearner)
        return self.learner.over_embeddings()

    def see(self, pictures: np.ndarray) -> Float[Tensor, "1 n *shape"]:
        """Pictures as they are compared, each embedded once: embeddings, or the inputs.

        Args:
            pictures: uint8 (n, channels, size, size), by `as_input`.
        """
        inputs = as_inputs(pictures, self.learner)
        if not self.shows_embeddings:
            return inputs
        assert isinstance(self.learner, EmbeddingLearner)
        with torch.no_grad():
            return embed_query(
                self.learner.encoder, self.learner.batch_norm, inputs, None, None, None
            )

    def as_input(self, image: Image.Image, name: str = "the picture") -> np.ndarray:
        """What it sees of a picture, uint8 (channels, size, size)."""
        return as_input(image, self.preparation, self.ink, name)

    def rehearse(self) -> None:
        """Learn two blank classes, and forget them."""
        side = self.preparation["size"]
        blank = np.zeros((2, self.preparation["channels"], side, side), dtype=np.uint8)
        self.adapt(blank, [0, 1], ["a", "b"])

    def adapt(
        self, pictures: np.ndarray, columns: Sequence[int], classes: Sequence[str]
    ) -> "LearnedPictures":
        """Learn a class set.

        Args:
            pictures: uint8 (n, channels, size, size), by `as_input`.
            columns: the class of each, as a place in `classes`.
            classes: their names.
        """
        targets = one_hot(torch.tensor(columns), len(classes))
        order = torch.arange(len(pictures))
        if self.learner.online:  # it reads in order, and learned to from orders that tell nothing
            order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
        seen = self.see(pictures)
        support = Examples(seen[:, order], targets[order].to(seen).unsqueeze(0))
        with torch.no_grad():
            state = self.comparing.adapt(support)
        learned = LearnedPictures(self, state, tuple(classes), None, None)
        points, _ = learned.outputs(seen)
        plane = _Plane.of(points)
        means = np.stack([points[np.array(columns) == c].mean(0) for c in range(len(classes))])
        of = "embeddings" if self.shows_embeddings else "outputs"
        drawn = Map(plane.places(points), plane.places(means), of)
        return replace(learned, map=drawn, plane=plane)


@dataclass(frozen=True, eq=False)
class LearnedPictures:
    """What a `PictureLearner` learned from a class set.

    Attributes:
        by: who learned.
        state: its adapted state, a batch of one task.
        classes: names of the classes.
        map: a map of the examples.
        plane: the plane of the map.
    """

    by: PictureLearner
    state: Any
    classes: tuple[str, ...]
    map: Map | None
    plane: "_Plane | None"
    reads: Literal["pictures", "text"] = "pictures"

    @property
    def num_bytes(self) -> int:
        """Memory of the adapted state."""
        return sum(leaf.numel() * leaf.element_size() for leaf in leaves(self.state))

    def predict(self, items: Sequence[Item]) -> list[Answer]:
        """Name pictures, one by one: what is said of one never depends on the others."""
        answers = []
        for number, item in enumerate(items, 1):
            assert isinstance(item, Image.Image)
            picture = self.by.as_input(item, f"picture {number}" if len(items) > 1 else "it")
            points, logits = self.outputs(self.by.see(picture[None]))
            place = None if self.plane is None else self.plane.places(points)[0]
            answers.append(Answer(logits[0].softmax(-1).tolist(), place))
        return answers

    def outputs(
        self, seen: Float[Tensor, "1 m *shape"]
    ) -> tuple[np.ndarray, Float[Tensor, "m way"]]:
        """Points (m, dim) of which the map shows a plane, and logits, of what `see` gives.

        Raises:
            ValueError: when the adaptation diverged.
        """
        with torch.no_grad():
            logits = self.by.comparing.predict(self.state, seen)[0].cpu().double()
        points = seen[0] if self.by.shows_embeddings else logits.log_softmax(-1)
        if not bool(logits.isfinite().all()):
            raise ValueError(
                f"{self.by.name} diverged on these examples: give it other examples, or take "
                "another learner."
            )
        return points.cpu().double().numpy(), logits


class _Plane(NamedTuple):
    """A plane through some points in which they differ most."""

    center: np.ndarray
    axes: np.ndarray
    unit: float

    @classmethod
    def of(cls, points: np.ndarray) -> "_Plane":
        center = points.mean(0)
        _, _, rows = np.linalg.svd(points - center, full_matrices=False)
        axes = np.zeros((2, points.shape[1]))
        axes[: len(rows[:2])] = rows[:2]
        # The sign of an axis is arbitrary: its largest part is positive, the same every time.
        axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[:, None]
        farthest = float(np.abs((points - center) @ axes.T).max())
        return cls(center, axes, max(farthest, 1e-9))

    def places(self, points: np.ndarray) -> list[tuple[float, float]]:
        """Where points are, the farthest of the support set at a distance of 1 along an axis."""
        return [(float(x), float(y)) for x, y in (points - self.center) @ self.axes.T / self.unit]


@dataclass(frozen=True, eq=False)
class FittedPredictor:
    """What `kshot fit` made, with its encoder, as the API serves it.

    Attributes:
        predictor: the predictor.
        encoder: its encoder.
    """

    predictor: Predictor
    encoder: Encoder
    num_bytes: int = 0
    map: None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(map(str, self.predictor.classes))

    @property
    def reads(self) -> Literal["pictures", "text"]:
        """What its encoder reads."""
        return self.encoder.kind

    def predict(self, items: Sequence[Item]) -> list[Answer]:
        """Name inputs; they are kept nowhere, also not in the cache of embeddings."""
        rows = self.encoder.encode(list(items))
        found = replace(self.predictor, encoder=None).predict(rows)
        return [
            Answer(probabilities.tolist(), None, bool(known))
            for probabilities, known in zip(found.probabilities, found.known, strict=True)
        ]


def load_learners(folders: Sequence[Path], device: str = "cpu") -> list[PictureLearner]:
    """The learners of some runs, by their names where these differ, else by their folders.

    Args:
        folders: of runs; none gives those that come with kshot.
        device: where they compute.
    """
    found = folders or (SHIPPED / "protonet", SHIPPED / "maml")
    loaded = [PictureLearner.load(folder, folder.name, device) for folder in found]
    names = [one.name for one in loaded]
    if len(set(names)) == len(names):
        return loaded
    return [replace(one, name=str(folder)) for one, folder in zip(loaded, found, strict=True)]

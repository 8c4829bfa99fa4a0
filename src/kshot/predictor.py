"""A predictor from a handful of examples of one's own: an encoder, a head, and what they know."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from kshot.encoders import Encoder, encode_cached
from kshot.heads import Familiarity, FittedHead, Rejection, fit_head, rejection_threshold
from kshot.learner import MetaLearner
from kshot.learners.metric.prototypical import ProtoNet

__all__ = ["Predictions", "Predictor", "Support"]

Label = str | int | float | bool


class Support(NamedTuple):
    """The examples that a predictor learned from, as embeddings.

    Attributes:
        embeddings: (n, dim).
        labels: of each example.
        sources: where each came from, for people: a file's name, a sentence, or "".
        is_name: (n,) whether it is the name of its class instead of an example.
    """

    embeddings: Float[np.ndarray, "n dim"]
    labels: tuple[Label, ...]
    sources: tuple[str, ...]
    is_name: Bool[np.ndarray, " n"]

    @classmethod
    def of(
        cls,
        embeddings: Float[np.ndarray, "n dim"],
        labels: Sequence[Label] | np.ndarray,
        sources: Sequence[str] | None = None,
    ) -> "Support":
        """Labelled examples; as many labels, and sources if there are any, as embeddings."""
        plain = tuple(_plain(label) for label in labels)
        named = ("",) * len(plain) if sources is None else tuple(map(str, sources))
        if not len(embeddings) == len(plain) == len(named):
            raise ValueError(
                f"There are {len(embeddings)} examples and {len(plain)} labels"
                f"{'' if sources is None else f' and {len(named)} sources'}."
            )
        return cls(embeddings, plain, named, np.zeros(len(plain), dtype=bool))

    def joined(self, other: "Support") -> "Support":
        """These examples, then others of the same size."""
        (_, dim), (_, other_dim) = self.embeddings.shape, other.embeddings.shape
        if dim != other_dim:
            raise ValueError(f"The new examples have {other_dim} numbers each, the others {dim}.")
        return Support(
            np.concatenate([self.embeddings, other.embeddings]),
            self.labels + other.labels,
            self.sources + other.sources,
            np.concatenate([self.is_name, other.is_name]),
        )

    def with_names(self, encoder: Encoder | None, classes: Sequence[Label] = ()) -> "Support":
        """Also the names, as text, of all classes here and of others, that have none yet.

        Raises:
            ValueError: when the encoder has no words for them.
        """
        named = {label for label, is_name in zip(self.labels, self.is_name, strict=True) if is_name}
        others = tuple(_plain(label) for label in classes)
        new = [label for label in _sorted(self.labels + others) if label not in named]
        if not new:
            return self
        words = [str(label).replace("_", " ").replace("-", " ") for label in new]
        rows = None if encoder is None else encoder.encode_names(words)
        if rows is None:
            raise ValueError(
                "Names of classes help only where the encoder understands text: take an encoder of "
                "sentences or open_clip, or use_names=False."
            )
        return self.joined(Support(rows, tuple(new), tuple(words), np.ones(len(new), dtype=bool)))

    def classes_and_columns(self) -> tuple[tuple[Label, ...], Int[np.ndarray, " n"]]:
        """The different labels in order, and the place of each example's among them."""
        classes = _sorted(self.labels)
        place = {label: column for column, label in enumerate(classes)}
        return classes, np.array([place[label] for label in self.labels], dtype=np.int64)


class Predictions(NamedTuple):
    """What a predictor says of some inputs.

    Attributes:
        labels: the most probable class of each.
        probabilities: (n, way), calibrated, in the order of the predictor's classes.
        familiarity: (n,) how near each is to the nearest class; higher is nearer.
        known: (n,) whether that is near enough to be of any of the classes.
    """

    labels: list[Label]
    probabilities: Float[np.ndarray, "n way"]
    familiarity: Float[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A frozen encoder, and a head fitted to a few labelled examples.

    Make one with `Predictor.fit`. It never changes: `add` returns another one.
    `save_predictor` keeps it in a file.

    Attributes:
        encoder: from raw inputs to embeddings; None when inputs are embeddings already.
        support: what it learned from.
        classes: the labels, sorted.
        head: fitted and calibrated; says how good it will be and what else was tried.
        rejection: where inputs are of no known class; None with fewer than three classes.
        asked: the head that was asked for.
        false_accept: the share of unknown inputs that may pass for known ones.
        adapter: what was learned from other classes, if anything.

    Example:
        >>> X = np.array([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]])
        >>> predictor = Predictor.fit(X, ["cat", "cat", "dog", "dog"], head="centroid")
        >>> predictor.predict([[0.9, 0.3], [0.2, 1.1]]).labels
        ['cat', 'dog']
    """

    encoder: Encoder | None
    support: Support
    classes: tuple[Label, ...]
    head: FittedHead
    rejection: Rejection | None
    asked: str | MetaLearner
    false_accept: float
    adapter: ProtoNet | None = None

    @classmethod
    def fit(
        cls,
        X: Any,
        y: Sequence[Label] | np.ndarray,
        *,
        encoder: Encoder | None = None,
        head: str | MetaLearner = "auto",
        adapter: ProtoNet | None = None,
        false_accept: float = 0.05,
        use_names: bool = False,
        classes: Sequence[Label] = (),
        sources: Sequence[str] | None = None,
    ) -> "Predictor":
        """Learn from examples, from names of classes, or from both.

        Args:
            X: n pictures or sentences, as the encoder reads them, or embeddings (n, dim). Each is
                embedded once, ever: embeddings are kept in kshot's cache.
            y: their n labels, of 2 classes or more.
            encoder: from `load_encoder`; None when X are embeddings.
            head: a key of `kshot.HEADS`, "adapter", "auto" to choose among them by
                cross-validation within X, or a classification learner over embeddings.
            adapter: one more head, from `kshot.train_adapter` on embeddings of other classes.
            false_accept: the share of unknown inputs that may pass for known ones.
            use_names: let the name of each class, embedded as text, be one more example of it; for
                encoders that understand text.
            classes: with `use_names`, classes to know by their name even without an example; X
                and y may then be empty: zero-shot.
            sources: where each example came from, for people.

        Raises:
            ValueError: for one class only, for another number of labels than of examples, for
                examples that cannot be read, for names and an encoder that has no words for them,
                for classes without examples and names.
        """
        support = Support.of(_embedded(encoder, X), y, sources)
        if use_names:
            support = support.with_names(encoder, classes)
        elif classes:
            raise ValueError(
                "A class without an example is known by its name alone: give use_names=True, and "
                "an encoder that understands text."
            )
        return cls.of(encoder, support, head, false_accept, adapter)

    @classmethod
    def of(
        cls,
        encoder: Encoder | None,
        support: Support,
        asked: str | MetaLearner,
        false_accept: float,
        adapter: ProtoNet | None = None,
    ) -> "Predictor":
        """The predictor that learns from a support set of embeddings."""
        classes, places = support.classes_and_columns()
        if len(classes) < 2:
            raise ValueError(
                f"A predictor needs examples of at least 2 classes, not of {len(classes)}: "
                f"{', '.join(map(repr, classes))}."
            )
        rows, columns, kept = map(torch.from_numpy, (support.embeddings, places, support.is_name))
        head = fit_head(rows, columns, asked, adapter=adapter, kept=kept)
        rejection = rejection_threshold(rows, columns, false_accept=false_accept, kept=kept)
        return cls(encoder, support, classes, head, rejection, asked, false_accept, adapter)

    def add(
        self, X: Any, y: Sequence[Label] | np.ndarray, *, sources: Sequence[str] | None = None
    ) -> "Predictor":
        """The predictor of all examples so far and of these: as if it were fitted to all of them.

        Nothing is embedded again; new classes get their name as an example where others have it.
        """
        return self.learn(Support.of(_embedded(self.encoder, X), y, sources))

    def learn(self, more: Support) -> "Predictor":
        """As `add`, of examples that are embedded already."""
        support = self.support.joined(more)
        if self.support.is_name.any():
            support = support.with_names(self.encoder)
        return self.of(self.encoder, support, self.asked, self.false_accept, self.adapter)

    def predict(self, X: Any, *, batch_size: int = 4096) -> Predictions:
        """Name inputs, as `fit` takes them.

        Embeddings may be a memory map: a batch of rows is read at a time.
        """
        parts = [self._predict_batch(rows) for rows in _batches(self.encoder, X, batch_size)]
        if not parts:
            nothing = np.zeros(0)
            return Predictions([], np.zeros((0, len(self.classes))), nothing, nothing.astype(bool))
        probabilities, familiar = (np.concatenate(part) for part in zip(*parts, strict=True))
        labels = [self.classes[column] for column in probabilities.argmax(1).tolist()]
        known = familiar >= (-np.inf if self.rejection is None else self.rejection.threshold)
        return Predictions(labels, probabilities, familiar, known)

    def _predict_batch(self, rows: Float[np.ndarray, "n dim"]) -> tuple[np.ndarray, np.ndarray]:
        inputs = torch.from_numpy(np.array(rows, dtype=np.float32))
        if inputs.shape[1:] != self.support.embeddings.shape[1:]:
            raise ValueError(
                f"Embeddings must have {self.support.embeddings.shape[1]} numbers, not "
                f"{inputs.shape[1]}."
            )
        probabilities = self.head.logits(inputs).softmax(-1)
        return probabilities.numpy(), self._familiarity(inputs).double().numpy()

    @cached_property
    def _familiarity(self) -> Familiarity:
        _, columns = self.support.classes_and_columns()
        return Familiarity(*map(torch.from_numpy, (self.support.embeddings, columns)))


def _sorted(labels: Sequence[Label]) -> tuple[Label, ...]:
    """The different labels, in order."""
    return tuple(sorted(set(labels), key=lambda label: (str(type(label)), label)))


def _embedded(encoder: Encoder | None, X: Any) -> Float[np.ndarray, "n dim"]:
    if encoder is not None:
        return encode_cached(encoder, X)
    rows = np.asarray(X, dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(
            f"Without an encoder, X must be embeddings (n, dim), but it is {rows.shape}. For "
            "pictures or sentences, give one: encoder=load_encoder(...)."
        )
    if not np.isfinite(rows).all():
        raise ValueError("Embeddings must be finite numbers, and some are NaN or infinite.")
    return rows


def _batches(
    encoder: Encoder | None, X: Any, batch_size: int
) -> Iterator[Float[np.ndarray, "n dim"]]:
    for start in range(0, len(X), batch_size):
        yield _embedded(encoder, X[start : start + batch_size])


def _plain(label: Any) -> Label:
    """A label that JSON can hold."""
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, str | int | float | bool):
        raise TypeError(f"Labels are text or numbers, and one is a {type(label).__name__}.")
    return value

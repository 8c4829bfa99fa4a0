"""A predictor from a handful of examples of one's own: an encoder, a head, and what they know."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kshot.encoders import Encoder, check_list, encode_cached
from kshot.heads import Familiarity, FittedHead, Rejection, fit_head, rejection_threshold
from kshot.heads.choice import LAST_BLOCK, check_head
from kshot.heads.last_block import LastBlockTuning, fit_last_block
from kshot.learner import MetaLearner
from kshot.learners.metric.prototypical import ProtoNet
from kshot.user_examples import as_numbers

__all__ = ["Predictions", "Predictor", "Support"]

Label = str | int | float | bool

_TUNED_AT_ONCE = 256
"""Inputs whose activations are held at a time."""


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
                cross-validation within X, or a classification learner over embeddings; or
                "last_block", which also tunes the end of the encoder: slow, and worth a try with
                inputs unlike those that the encoder was trained on (docs/heads.md).
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
        check_head(head, with_adapter=adapter is not None, with_names=use_names)
        support = Support.of(_embedded(encoder, X), y, sources)
        if use_names:
            support = support.with_names(encoder, classes)
        elif classes:
            raise ValueError(
                "A class without an example is known by its name alone: give use_names=True, and "
                "an encoder that understands text."
            )
        return cls.of(encoder, support, head, false_accept, adapter, X)

    @classmethod
    def of(
        cls,
        encoder: Encoder | None,
        support: Support,
        asked: str | MetaLearner,
        false_accept: float,
        adapter: ProtoNet | None = None,
        inputs: Any = (),
    ) -> "Predictor":
        """The predictor that learns from a support set of embeddings.

        Args:
            encoder: that made them.
            support: the examples.
            asked: the head, as in `fit`.
            false_accept: as in `fit`.
            adapter: as in `fit`.
            inputs: for the head "last_block": the examples as the encoder reads them.
        """
        classes, places = support.classes_and_columns()
        if len(classes) < 2:
            raise ValueError(
                f"A predictor needs examples of at least 2 classes, not of {len(classes)}: "
                f"{', '.join(map(repr, classes))}."
            )
        rows, columns, kept = map(torch.from_numpy, (support.embeddings, places, support.is_name))
        if asked == LAST_BLOCK:
            head = fit_last_block(_reader(encoder), inputs, rows, columns)
        else:
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
        """As `add`, of examples that are embedded already.

        Raises:
            ValueError: for the head "last_block", which would need the earlier examples again.
        """
        if self.asked == LAST_BLOCK:
            raise ValueError(
                "A predictor whose encoder's last block was tuned cannot be given more examples: "
                "fit it again to all of them."
            )
        support = self.support.joined(more)
        if self.support.is_name.any():
            support = support.with_names(self.encoder)
        return self.of(self.encoder, support, self.asked, self.false_accept, self.adapter)

    def predict(self, X: Any, *, batch_size: int = 4096) -> Predictions:
        """Name inputs, as `fit` takes them.

        Embeddings may be a memory map: a batch of rows is read at a time.

        Raises:
            ValueError: for one input in place of a list, and for inputs that cannot be read.
        """
        check_list(X)
        starts = range(0, max(1, len(X)), batch_size)
        batches = (X[start : start + batch_size] for start in starts)
        parts = [self.predict_embedded(_embedded(self.encoder, batch), batch) for batch in batches]
        labels = [label for part in parts for label in part.labels]
        columns = zip(*(part[1:] for part in parts), strict=True)
        return Predictions(labels, *map(np.concatenate, columns))

    def predict_embedded(self, rows: Float[np.ndarray, "n dim"], inputs: Any = ()) -> Predictions:
        """As `predict`, of inputs that are embedded already.

        Args:
            rows: their embeddings.
            inputs: themselves, which the head "last_block" reads.
        """
        embeddings = torch.from_numpy(np.array(rows, dtype=np.float32))
        if embeddings.shape[1:] != self.support.embeddings.shape[1:]:
            raise ValueError(
                f"Embeddings must have {self.support.embeddings.shape[1]} numbers, not "
                f"{embeddings.shape[1]}."
            )
        probabilities = self._logits(embeddings, inputs).softmax(-1).numpy()
        familiar = self._familiarity(embeddings).double().numpy()
        labels = [self.classes[column] for column in probabilities.argmax(1).tolist()]
        known = familiar >= (-np.inf if self.rejection is None else self.rejection.threshold)
        return Predictions(labels, probabilities, familiar, known)

    def _logits(self, embeddings: Float[Tensor, "n dim"], inputs: Any) -> Float[Tensor, "n way"]:
        """Of embedded inputs; a tuned block reads them itself, some at a time."""
        learner = self.head.learner
        if not len(embeddings):
            return torch.zeros(0, len(self.classes))
        if not isinstance(learner, LastBlockTuning):
            return self.head.logits(embeddings)
        starts = range(0, len(inputs), _TUNED_AT_ONCE)
        batches = (inputs[start : start + _TUNED_AT_ONCE] for start in starts)
        return torch.cat([self.head.logits(learner.end.activations(batch)) for batch in batches])

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
    rows = np.asarray(as_numbers(X), dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(
            f"Without an encoder, X must be embeddings (n, dim), but it is {rows.shape}. For "
            "pictures or sentences, give one: encoder=load_encoder(...)."
        )
    if not np.isfinite(rows).all():
        raise ValueError("Embeddings must be finite numbers, and some are NaN or infinite.")
    return rows


def _reader(encoder: Encoder | None) -> Encoder:
    """The encoder, of which there must be one."""
    if encoder is None:
        raise ValueError(
            "The head 'last_block' tunes an encoder: give one, and pictures or sentences instead "
            "of embeddings."
        )
    return encoder


def _plain(label: Any) -> Label:
    """A label that JSON can hold."""
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, str | int | float | bool):
        raise TypeError(f"Labels are text or numbers, and one is a {type(label).__name__}.")
    return value

"""What a support set tells of itself: classes hard to tell apart, and examples to look at again."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kshot.heads.choice import HEADS, in_span
from kshot.heads.held_out import HeldOut, hold_out
from kshot.learner import MetaLearner

__all__ = [
    "HardPair",
    "Suspicion",
    "Twins",
    "hard_pairs",
    "hold_out_support",
    "likely_mislabelled",
    "repeated_rows",
    "twins_across_classes",
]

NEARLY_THE_SAME = 0.999
"""Cosine above which two examples are near-duplicates."""

CLEAR_ODDS = 10.0
"""How much more probable than its own class another must be for an example to look mislabelled."""

_ROWS_AT_ONCE = 1024


class HardPair(NamedTuple):
    """Two classes, and how often held-out examples of one go to the other.

    Attributes:
        one: column of a class.
        other: column of the other.
        mistaken: how many of their held-out examples are taken for the other class, averaged over
            the repeats of the cross-validation.
        judged: how many were held out.
        probability: what such an example gives to the other class on average.
    """

    one: int
    other: int
    mistaken: float
    judged: int
    probability: float


class Suspicion(NamedTuple):
    """An example that looks as if its label were wrong.

    Attributes:
        example: its place in the support set.
        other: column of the class it seems to be of.
        own_probability: of its label's class, by heads that did not see it.
        other_probability: of the other class.
    """

    example: int
    other: int
    own_probability: float
    other_probability: float


class Twins(NamedTuple):
    """Two examples of different classes that are nearly or wholly the same.

    Attributes:
        first: place of one in the support set.
        second: place of the other.
        cosine: of their embeddings.
        same: whether the encoder sees no difference at all: their content is the same.
    """

    first: int
    second: int
    cosine: float
    same: bool


def hold_out_support(
    learner: MetaLearner,
    name: str,
    embeddings: Float[Tensor, "n dim"],
    columns: Int[Tensor, " n"],
    kept: Bool[Tensor, " n"] | None = None,
) -> HeldOut:
    """Predictions for each example by heads that did not see it, dealt out as by `fit_head`.

    Args:
        learner: the head.
        name: its key in `HEADS`, or another for a head of one's own.
        embeddings: of the support set.
        columns: (n,) the class of each.
        kept: (n,) examples that are never held out, such as names of classes.
    """
    inputs = in_span(embeddings) if name in HEADS else embeddings
    return hold_out(learner, inputs, columns, kept=kept)


def hard_pairs(held_out: HeldOut, most: int = 5) -> list[HardPair]:
    """The pairs of classes that are hardest to tell apart, the hardest first.

    First those of which most examples are mistaken, then those that share most probability. A
    pair of which no example could be held out is in no place of the list.
    """
    probabilities = _probabilities(held_out)
    repeats, _, way = probabilities.shape
    own = held_out.columns[held_out.judged].cpu().numpy()
    taken = np.zeros((way, way))
    shared = np.zeros((way, way))
    for part in probabilities:
        np.add.at(taken, (own, part.argmax(1)), 1 / repeats)
        np.add.at(shared, own, part / repeats)
    counts = np.bincount(own, minlength=way)
    judged = counts[:, None] + counts[None, :]
    mistaken = taken + taken.T
    probability = (shared + shared.T) / np.maximum(judged, 1)
    one, other = np.triu_indices(way, 1)
    seen = judged[one, other] > 0
    one, other = one[seen], other[seen]
    order = np.lexsort((-probability[one, other], -mistaken[one, other]))[:most]
    return [
        HardPair(int(a), int(b), float(mistaken[a, b]), int(judged[a, b]), float(probability[a, b]))
        for a, b in zip(one[order], other[order], strict=True)
    ]


def likely_mislabelled(held_out: HeldOut, odds: float = CLEAR_ODDS) -> list[Suspicion]:
    """Examples that heads which did not see them clearly give to another class.

    That is one other class, `odds` times as probable as the example's own or more, in more than
    half of the repeats of the cross-validation. The clearest come first.
    """
    probabilities = _probabilities(held_out)
    repeats = len(probabilities)
    places = np.flatnonzero(held_out.judged.cpu().numpy())
    own = held_out.columns[held_out.judged].cpu().numpy()
    found = []
    for row, (place, column) in enumerate(zip(places.tolist(), own.tolist(), strict=True)):
        mine = probabilities[:, row]
        mean = mine.mean(0)
        others = mean.copy()
        others[column] = -1.0
        other = int(others.argmax())
        clear = (mine.argmax(1) == other) & (mine[:, other] >= odds * mine[:, column])
        if 2 * int(clear.sum()) > repeats:
            found.append(Suspicion(place, other, float(mean[column]), float(mean[other])))
    return sorted(found, key=lambda one: one.own_probability / one.other_probability)


def twins_across_classes(
    embeddings: Float[np.ndarray, "n dim"],
    columns: Int[np.ndarray, " n"],
    least_cosine: float = NEARLY_THE_SAME,
) -> list[Twins]:
    """Pairs of examples of different classes that are nearly or wholly the same."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
    found = []
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        cosines = unit[start : start + _ROWS_AT_ONCE] @ unit[start:].T
        foreign = columns[start : start + _ROWS_AT_ONCE, None] != columns[None, start:]
        for row, other in np.argwhere(np.triu(foreign & (cosines > least_cosine))).tolist():
            first, second = start + row, start + other
            same = bool((embeddings[first] == embeddings[second]).all())
            found.append(Twins(first, second, min(1.0, float(cosines[row, other])), same))
    return sorted(found, key=lambda twins: (-twins.same, -twins.cosine, twins.first))


def repeated_rows(embeddings: Float[np.ndarray, "n dim"]) -> list[list[int]]:
    """Groups of two or more examples with the same embedding, by their places.

    Each content is embedded once, so these are examples of the same content; and those between
    which the encoder sees no difference, such as sentences that differ in capitals.
    """
    groups: dict[bytes, list[int]] = {}
    for place, row in enumerate(embeddings):
        groups.setdefault(row.tobytes(), []).append(place)
    return [places for places in groups.values() if len(places) > 1]


def _probabilities(held_out: HeldOut) -> Float[np.ndarray, "repeats judged way"]:
    """Calibrated, of the examples that were held out."""
    logits = held_out.logits[:, held_out.judged].double() / held_out.temperature
    return torch.softmax(logits, -1).cpu().numpy()

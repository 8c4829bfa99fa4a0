"""Repeated cross-validation within a support set: predictions by heads that did not see them."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kshot.episodes import Examples, Inputs, leaves, map_tensors, one_hot
from kshot.evaluation.intervals import Share, share_interval
from kshot.heads.temperature import fit_temperature
from kshot.learner import MetaLearner

__all__ = ["HeldOut", "accuracy_estimate", "adapted", "hold_out"]

_MOST_NUMBERS = 1 << 26
"""Inputs of the tasks of one call, in numbers: 256 MiB of float32."""

_ENOUGH_PREDICTIONS = 400
"""More dealings than give so many tell little more, and take their time."""


@dataclass(frozen=True)
class HeldOut:
    """Predictions for each example of a support set by heads that were fitted without it.

    Attributes:
        logits: (repeats, n, way).
        columns: (n,) the class of each example.
        judged: (n,) whether it was held out at all: the only example of a class never is.
        num_folds: in how many parts the examples were.
    """

    logits: Float[Tensor, "repeats n way"]
    columns: Int[Tensor, " n"]
    judged: Bool[Tensor, " n"]
    num_folds: int

    @property
    def correct(self) -> Float[Tensor, " judged"]:
        """How often each judged example was given its own class, as a share of the repeats."""
        hits = self.logits[:, self.judged].argmax(-1) == self.columns[self.judged]
        return hits.double().mean(0)

    @cached_property
    def temperature(self) -> float:
        """What logits are divided by for calibrated probabilities; 1 when nothing can be said."""
        return fit_temperature(*self._flat) if bool(self.judged.any()) else 1.0

    @property
    def log_losses(self) -> Float[Tensor, " judged"]:
        """Of each judged example, with calibrated probabilities, averaged over the repeats."""
        logits, columns = self._flat
        losses = F.cross_entropy(logits / self.temperature, columns, reduction="none")
        return losses.view(len(self.logits), -1).mean(0)

    @property
    def _flat(self) -> tuple[Float[Tensor, "rows way"], Int[Tensor, " rows"]]:
        logits = self.logits[:, self.judged]
        columns = self.columns[self.judged].expand(logits.shape[:2])
        return logits.flatten(0, 1).double(), columns.flatten()


def adapted(learner: MetaLearner, inputs: Inputs, columns: Int[Tensor, " n"]) -> Any:
    """What a learner learns from one support set of classes 0 .. way - 1: a batch of one task."""
    targets = one_hot(columns, int(columns.max()) + 1, leaves(inputs)[0].dtype)
    task = map_tensors(lambda rows: rows.unsqueeze(0), (inputs, targets))
    with torch.no_grad():
        return learner.adapt(Examples(*task))


def hold_out(
    learner: MetaLearner,
    inputs: Inputs,
    columns: Int[Tensor, " n"],
    *,
    kept: Bool[Tensor, " n"] | None = None,
    most_folds: int = 10,
    most_repeats: int = 4,
    seed: int = 0,
) -> HeldOut:
    """Cross-validate a learner within a support set.

    Each class is dealt out evenly to as many folds as the largest class has examples, or to
    `most_folds`. With five examples a class, a fold thus holds out one of each, and heads learn
    from four. Few examples are dealt out up to four times, many once. Each fold is a task, so all
    of one dealing are computed as a batch.

    Args:
        learner: in evaluation mode.
        inputs: the support set, (n, *shape).
        columns: (n,) the class of each, 0 .. way - 1.
        kept: (n,) examples that are in every fold's support and are not judged.
        most_folds: of one dealing, at least 2.
        most_repeats: how often examples are dealt out at most.
        seed: of the dealing.
    """
    way = int(columns.max()) + 1
    always = np.zeros(len(columns), bool) if kept is None else kept.cpu().numpy()
    repeats = int(np.clip(_ENOUGH_PREDICTIONS / len(columns), 1, most_repeats))
    folds = _deal(columns.cpu().numpy(), always, repeats, most_folds, np.random.default_rng(seed))
    tensors = leaves(inputs)
    targets = one_hot(columns, way, tensors[0].dtype)
    held = torch.from_numpy(
        np.stack([folds == fold for fold in range(max(folds.max(), 0) + 1)], axis=1)
    )
    held = held.to(columns.device)  # (repeats, folds, n)
    logits = targets.new_zeros(repeats, len(columns), way)
    size = max(1, _MOST_NUMBERS // max(1, sum(tensor.numel() for tensor in tensors)))
    for repeat in range(repeats):
        for part in held[repeat].split(size):
            if not bool(part.any()):
                continue
            (learned, seen), (judged, asked) = _places(~part), _places(part)
            with torch.no_grad():
                state = learner.adapt(Examples(_at(learned, inputs), targets[learned], seen))
                predictions = learner.predict(state, _at(judged, inputs), asked)
            logits[repeat, judged[asked]] = predictions[asked].to(logits.dtype)
    return HeldOut(logits, columns, held.any(1)[0], held.shape[1])


def _at(places: Int[Tensor, "folds m"], inputs: Inputs) -> Inputs:
    """The inputs (folds, m, *shape) at some places of a support set."""
    return map_tensors(lambda tensor: tensor[places], inputs)


def _places(
    chosen: Bool[Tensor, "folds n"],
) -> tuple[Int[Tensor, "folds most"], Bool[Tensor, "folds most"]]:
    """Where each row is True, padded to the longest, and what is not padding."""
    counts = chosen.sum(1)
    order = chosen.int().argsort(dim=1, descending=True, stable=True)
    most = int(counts.max())
    return order[:, :most], torch.arange(most, device=counts.device) < counts.unsqueeze(1)


def accuracy_estimate(fine: HeldOut, coarse: HeldOut) -> Share | None:
    """The accuracy of a head on new examples of its classes, from the support set alone.

    Heads of cross-validation learn from fewer examples than the one in use: from a share
    f = 1 - 1 / folds of them. Errors fall about as a + b / f^2, so two cross-validations, of many
    folds and of two, tell how much lower the error is at f = 1.

    Args:
        fine: predictions by heads that saw nearly all examples.
        coarse: predictions by heads that saw about half of them.

    Returns:
        The estimate and its interval, None when no class has two examples. Where no class has more
        than two, heads saw one of each: then it is that of half of the examples, a lower bound.

    Note:
        The interval takes the examples for independent trials, and is rounded outwards to a tenth
        of one of them. How often it holds is measured (docs/heads.md).
    """
    if not bool(fine.judged.any()):
        return None
    error = 1 - float(fine.correct.mean())
    if fine.num_folds > coarse.num_folds:
        excess = max(0.0, 1 - float(coarse.correct.mean()) - error)
        inverse, coarse_inverse = _inverse_square(fine), _inverse_square(coarse)
        error -= excess * (inverse - 1) / (coarse_inverse - inverse)
    n = int(fine.judged.sum())
    value, low, high = share_interval(min(1.0, 1 - max(0.0, error)), n)
    steps = 10 * n
    return Share(value, math.floor(low * steps) / steps, math.ceil(high * steps) / steps)


def _inverse_square(held_out: HeldOut) -> float:
    """1 / f^2."""
    return (held_out.num_folds / (held_out.num_folds - 1)) ** 2


def _deal(
    columns: np.ndarray,
    kept: np.ndarray,
    repeats: int,
    most_folds: int,
    random: np.random.Generator,
) -> np.ndarray:
    """(repeats, n) the fold that holds each example out; -1 for the only one of a class."""
    counts, free = np.bincount(columns), np.bincount(columns[~kept], minlength=columns.max() + 1)
    num_folds = int(min(max(free.max(), 2), most_folds))
    folds = np.full((repeats, len(columns)), -1)
    for repeat in range(repeats):
        for column in np.flatnonzero((counts > 1) & (free > 0)).tolist():
            places = random.permutation(np.flatnonzero((columns == column) & ~kept))
            first = random.integers(num_folds)
            folds[repeat, places] = (first + np.arange(len(places))) % num_folds
    return folds

"""Fit a head to a support set of embeddings: choose it, and say how good it will be."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kshot.episodes import Inputs, map_tensors
from kshot.evaluation.intervals import Share, mean_interval
from kshot.heads.held_out import HeldOut, accuracy_estimate, adapted, hold_out
from kshot.learner import MetaLearner
from kshot.learners.baselines.linear_heads import LogisticHead, RidgeHead, spanning_basis
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.metric.prototypical import ProtoNet
from kshot.options import nearest

__all__ = [
    "HEADS",
    "LAST_BLOCK",
    "Candidate",
    "FittedHead",
    "check_head",
    "fit_head",
    "in_span",
    "judged",
]

HEADS: dict[str, Callable[[], MetaLearner]] = {
    "centroid": lambda: NearestCentroid(nn.Identity(), center=True, normalize=True),
    "cosine": lambda: ProtoNet(nn.Identity(), distance="cosine"),
    "ridge": lambda: RidgeHead(nn.Identity()),
    "logistic": lambda: LogisticHead(nn.Identity()),
}
"""Learners over embeddings that need no training, by the name of the head."""

ADAPTER = "adapter"
"""The head that is there where other classes were learned from."""

LAST_BLOCK = "last_block"
"""The head that also tunes the end of its encoder (`kshot.heads.last_block`)."""

DEFAULT = "logistic"
"""What "auto" takes where the examples cannot choose, without an adapter (docs/heads.md)."""

LEAST_TO_CHOOSE = 10
"""Held-out examples without which differences between heads are noise."""


@dataclass(frozen=True)
class Candidate:
    """A head that was tried, and what cross-validation says of it.

    Attributes:
        name: its key in `HEADS`, "adapter", "last_block", or its class.
        accuracy: estimated on new examples; None when no class has two examples.
        log_loss: mean, of held-out examples, with calibrated probabilities; None likewise.
        temperature: what its logits are divided by for calibrated probabilities.
    """

    name: str
    accuracy: Share | None
    log_loss: float | None
    temperature: float


@dataclass(frozen=True)
class FittedHead:
    """A head that has seen a support set.

    Attributes:
        learner: the head, in evaluation mode.
        state: what it learned.
        chosen: what is known of it.
        candidates: of all heads that were tried, the chosen one among them.
        reason: why this one.
    """

    learner: MetaLearner
    state: Any
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    reason: str

    def logits(self, inputs: Inputs) -> Float[Tensor, "n way"]:
        """Calibrated: their softmax is the probability of each class.

        Args:
            inputs: what the head learned from: embeddings (n, dim), or activations.
        """
        task = map_tensors(lambda rows: rows.unsqueeze(0), inputs)
        with torch.no_grad():
            logits = self.learner.predict(self.state, task)[0]
        return logits.double() / self.chosen.temperature


def fit_head(
    embeddings: Float[Tensor, "n dim"],
    columns: Int[Tensor, " n"],
    head: str | MetaLearner = "auto",
    *,
    adapter: MetaLearner | None = None,
    kept: Bool[Tensor, " n"] | None = None,
    seed: int = 0,
) -> FittedHead:
    """Fit a head to embeddings of a support set.

    "auto" tries every head by repeated cross-validation within the support set alone. It takes
    logistic regression unless another head's held-out log-loss is lower by more than two standard
    errors of their difference: with few examples most differences are chance. With too few
    examples to hold any out, it takes the adapter if there is one.

    Args:
        embeddings: of the support set.
        columns: (n,) the class of each, 0 .. way - 1.
        head: a key of `HEADS`, "adapter", "auto", or a classification learner over embeddings.
        adapter: from `train_adapter`, one more head.
        kept: (n,) examples that cross-validation never holds out: not what is to be predicted,
            such as the names of classes.
        seed: of the cross-validation.

    Raises:
        ValueError: for an unknown name, naming the nearest known one; for "adapter" without
            one, and for one beside a head that does not use it.
    """
    learners = _learners(head, adapter)
    spanned = in_span(embeddings)
    tried: dict[str, tuple[Candidate, HeldOut]] = {}
    for name, learner in learners.items():
        inputs = spanned if name in HEADS else embeddings
        tried[name] = judged(name, learner.eval(), inputs, columns, kept, seed=seed)
    if head == "auto":
        name, reason = _choose({name: held_out for name, (_, held_out) in tried.items()})
    else:
        name, reason = next(iter(learners)), "as asked"
    learner = learners[name]
    state = adapted(learner, embeddings, columns)
    candidates = tuple(candidate for candidate, _ in tried.values())
    return FittedHead(learner, state, tried[name][0], candidates, reason)


def check_head(head: str | MetaLearner, *, with_adapter: bool, with_names: bool = False) -> None:
    """Raise what fitting a head would, before anything is read or trained.

    Args:
        head: as for `fit_head`, or "last_block".
        with_adapter: whether there will be one.
        with_names: whether names of classes will be among the examples.
    """
    if with_names and head == LAST_BLOCK:
        raise ValueError(
            f"The head {LAST_BLOCK!r} learns from examples and not from names: leave them "
            "(--names, use_names) out, or take another head."
        )
    if with_adapter and head not in (ADAPTER, "auto"):
        raise ValueError(
            f"The head {head!r} does not use the adapter: leave it (--others) out, or ask for "
            "'adapter' or 'auto'."
        )
    if head == ADAPTER and not with_adapter:
        raise ValueError(
            "The head 'adapter' learns from other labelled classes first, and there are none: "
            "give adapter=train_adapter(...), or --others to kshot fit."
        )
    known = ("auto", *HEADS, ADAPTER, LAST_BLOCK)
    if isinstance(head, str) and head not in known:
        raise ValueError(
            f"Unknown head {head!r}; there are {', '.join(known)}.{nearest(head, known)}"
        )


def _learners(head: str | MetaLearner, adapter: MetaLearner | None) -> dict[str, MetaLearner]:
    """What to try, by name."""
    check_head(head, with_adapter=adapter is not None)
    if head == LAST_BLOCK:
        raise ValueError(
            f"The head {LAST_BLOCK!r} tunes an encoder and cannot learn from embeddings alone: "
            "Predictor.fit(X, y, encoder=..., head='last_block') gives it both."
        )
    if not isinstance(head, str):
        return {type(head).__name__: head}
    learners = {name: make() for name, make in HEADS.items() if head in (name, "auto")}
    return learners if adapter is None else {**learners, ADAPTER: adapter}


def in_span(embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, "n small"]:
    """Embeddings in coordinates of their span, which has fewer dimensions when they are few.

    Heads by name learn the same from these, and faster: they see lengths and angles alone.
    """
    basis = spanning_basis(embeddings)
    return embeddings if basis is None else embeddings @ basis


def judged(
    name: str,
    learner: MetaLearner,
    inputs: Inputs,
    columns: Int[Tensor, " n"],
    kept: Bool[Tensor, " n"] | None,
    *,
    seed: int,
    most_repeats: int = 4,
) -> tuple[Candidate, HeldOut]:
    """What cross-validation says of a head, and its predictions."""
    deal = partial(
        hold_out, learner, inputs, columns, kept=kept, most_repeats=most_repeats, seed=seed
    )
    fine = deal()
    if not bool(fine.judged.any()):
        return Candidate(name, None, None, 1.0), fine
    coarse = deal(most_folds=2)
    accuracy = accuracy_estimate(fine, coarse)
    return Candidate(name, accuracy, float(fine.log_losses.mean()), fine.temperature), fine


def _choose(tried: dict[str, HeldOut]) -> tuple[str, str]:
    """The name of the head to take, and why."""
    number = int(tried[DEFAULT].judged.sum())
    if number < LEAST_TO_CHOOSE:
        usual = ADAPTER if ADAPTER in tried else DEFAULT
        return usual, (
            f"{number} of the examples can be held out, too few to choose by: {usual} is the "
            "usual choice"
        )
    best, worth = DEFAULT, 0.0
    for name, held_out in tried.items():
        gains = (tried[DEFAULT].log_losses - held_out.log_losses).cpu().numpy()
        gain = mean_interval(gains)
        if gain.mean > max(gain.half_width, worth):
            best, worth = name, gain.mean
    if best == DEFAULT:
        return best, "no other head is better beyond chance in cross-validation"
    return best, f"its held-out log-loss is {worth:.3f} lower than that of {DEFAULT}"

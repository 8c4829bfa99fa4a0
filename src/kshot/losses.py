"""Losses over target rows: one value a task, padding and unlabelled rows left out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kshot.episodes import Examples

__all__ = [
    "LOSSES",
    "Loss",
    "check_examples",
    "counted_rows",
    "cross_entropy",
    "mask_absent",
    "mean_squared_error",
    "squared_score_error",
]


@dataclass(frozen=True)
class Loss:
    """A loss of predictions against target rows, averaged within each task.

    Attributes:
        name: its key in `LOSSES`.
        kind: what target rows are: class probabilities, or regression values.
        rows: the function (*tasks, m, way), (*tasks, m, way) -> (*tasks, m) it averages.

    Example:
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])  # the second row is unlabelled
        >>> cross_entropy(torch.zeros(1, 2, 2), targets)
        tensor([0.6931])
    """

    name: str
    kind: Literal["classification", "regression"]
    rows: Callable[[Tensor, Tensor], Tensor]

    def __call__(
        self,
        predictions: Float[Tensor, "*tasks m way"],
        targets: Float[Tensor, "*tasks m way"],
        mask: Bool[Tensor, "*tasks m"] | None = None,
    ) -> Float[Tensor, "*tasks"]:
        """Mean over the rows that count: unmasked and, in classification, labelled.

        A task in which no row counts has loss zero. The leading dimensions may be absent, so that
        the same loss serves one task inside `torch.func.vmap`.
        """
        counted = counted_rows(targets, mask, self.kind)
        # Whatever padding rows hold, NaN too, must not reach the gradient.
        rows = self.rows(predictions, targets.masked_fill(~counted.unsqueeze(-1), 0))
        total = torch.where(counted, rows, torch.zeros_like(rows)).sum(-1)
        return total / counted.sum(-1).clamp_min(1)


def counted_rows(
    targets: Float[Tensor, "*tasks m way"], mask: Bool[Tensor, "*tasks m"] | None, kind: str
) -> Bool[Tensor, "*tasks m"]:
    """Which rows are examples to learn from: unmasked and, in classification, labelled."""
    counted = torch.ones_like(targets[..., 0], dtype=torch.bool) if mask is None else mask
    return counted & (targets.sum(-1) > 0) if kind == "classification" else counted


def mask_absent(
    logits: Float[Tensor, "*tasks m way"], present: Bool[Tensor, "*tasks way"] | None
) -> Float[Tensor, "*tasks m way"]:
    """Logits with the columns of absent classes at the lowest finite value.

    The one place where padded columns are taken out: losses and metrics read logits through it.
    """
    if present is None:
        return logits
    return logits.masked_fill(~present.unsqueeze(-2), torch.finfo(logits.dtype).min)


def check_examples(examples: Examples, kind: str, name: str) -> None:
    """Raise a ValueError that says what is wrong with a set of examples, if anything is.

    Args:
        examples: the set to check.
        kind: "classification" or "regression", as `Loss.kind`.
        name: what to call the set in the message ("support", "query").
    """
    inputs, targets, mask = examples
    tensors = inputs.values() if isinstance(inputs, dict) else [inputs]
    if not all(bool(x.isfinite().all()) for x in tensors if x.is_floating_point()):
        raise ValueError(
            f"The {name} inputs hold NaN or infinite values. Every value must be a finite number: "
            "drop or repair the examples that have missing values."
        )
    if targets.dim() != 3 or any(x.shape[:2] != targets.shape[:2] for x in tensors):
        raise ValueError(
            f"The {name} targets must be (tasks, n, way) for inputs (tasks, n, ...), but targets "
            f"are {tuple(targets.shape)} for inputs {[tuple(x.shape) for x in tensors]}. "
            "One task is a batch of one: add a leading dimension."
        )
    if mask is not None and mask.shape != targets.shape[:2]:
        raise ValueError(
            f"The {name} mask must be (tasks, n) = {tuple(targets.shape[:2])}, one truth value an "
            f"example, but is {tuple(mask.shape)}."
        )
    rows = targets if mask is None else targets[mask]
    if kind == "regression":
        if not bool(rows.isfinite().all()):
            raise ValueError(f"The {name} targets hold NaN or infinite values.")
        return
    total = rows.sum(-1)
    valid = (rows >= 0).all(-1) & ((total == 0) | ((total - 1).abs() < 1e-3))
    if not bool(valid.all()):
        bad = rows[~valid][0].tolist()
        raise ValueError(
            f"A {name} target row is {bad}, which is neither class probabilities (not negative, "
            "summing to 1) nor zero (an unlabelled example). Use kshot.one_hot(labels, way), or "
            "loss=mean_squared_error when targets are values."
        )


def _cross_entropy_rows(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(-1)).sum(-1)


def _squared_error_rows(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions - targets).square().mean(-1)


def _squared_score_error_rows(logits: Tensor, targets: Tensor) -> Tensor:
    present = logits > torch.finfo(logits.dtype).min  # `mask_absent` put the others there
    return ((logits.sigmoid() - targets).square() * present).sum(-1) / present.sum(-1).clamp_min(1)


cross_entropy = Loss("cross_entropy", "classification", _cross_entropy_rows)
"""Cross-entropy of logits against class probabilities."""

mean_squared_error = Loss("mean_squared_error", "regression", _squared_error_rows)
"""Squared error, averaged over outputs."""

squared_score_error = Loss("squared_score_error", "classification", _squared_score_error_rows)
"""Squared error of each class's own score, the sigmoid of its logit, averaged over classes."""

LOSSES = {loss.name: loss for loss in (cross_entropy, mean_squared_error, squared_score_error)}
"""Every loss, by name."""

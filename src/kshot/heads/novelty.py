"""Whether an input is of any known class: a threshold from leaving each class out in turn."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kshot.episodes import Examples, one_hot
from kshot.evaluation.thresholds import accept_threshold
from kshot.heads.choice import in_span
from kshot.heads.held_out import adapted, hold_out
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.losses import mask_absent

__all__ = ["Familiarity", "Rejection", "rejection_threshold"]

LEAST_CLASSES = 3
"""With fewer, leaving one out leaves nothing to tell apart."""


class Rejection(NamedTuple):
    """Where to reject, and what that costs by the support set's own account.

    Attributes:
        threshold: inputs less familiar than this are of no known class.
        false_accept: the share of unknown inputs that pass.
        false_reject: the share of known ones that do not; None when none could be held out.
    """

    threshold: float
    false_accept: float
    false_reject: float | None


class Familiarity:
    """How near inputs (m, dim) are to the nearest class: higher is more familiar.

    Minus the squared distance to the nearest class mean, among directions from the mean of the
    support set. Whatever head names the class, this tells unknown inputs better than how sure
    the head is (docs/heads.md).

    Args:
        support: embeddings of the support set.
        columns: (n,) the class of each, 0 .. way - 1.
    """

    def __init__(self, support: Float[Tensor, "n dim"], columns: Int[Tensor, " n"]) -> None:
        self._learner = _learner()
        self._state = adapted(self._learner, support, columns)

    def __call__(self, inputs: Float[Tensor, "m dim"]) -> Float[Tensor, " m"]:
        """The familiarity of each input."""
        with torch.no_grad():
            return self._learner.predict(self._state, inputs.unsqueeze(0))[0].amax(-1)


def rejection_threshold(
    support: Float[Tensor, "n dim"],
    columns: Int[Tensor, " n"],
    *,
    false_accept: float,
    kept: Bool[Tensor, " n"] | None = None,
) -> Rejection | None:
    """The familiarity below which an input is of no known class.

    Each class in turn is left out, and its examples stand for the unknown: so this is right for
    unknown classes that are to the known ones as these are to each other, and on the safe side for
    inputs that are more foreign than that.

    Args:
        support: embeddings of the support set.
        columns: (n,) the class of each, 0 .. way - 1.
        false_accept: the share of unknown inputs that may pass.
        kept: (n,) examples that are not what is to be predicted, as for `fit_head`.

    Returns:
        None with fewer than three classes, or without examples.
    """
    way = int(columns.max()) + 1
    if way < LEAST_CLASSES or (kept is not None and bool(kept.all())):
        return None
    learner = _learner()
    rows = in_span(support)
    per_dimension = rows.shape[1] / support.shape[1]  # distances are told per embedding dimension
    targets = one_hot(columns, way, support.dtype)
    unknown = support.new_empty(len(support))
    for left_out in range(way):
        mine = columns == left_out
        examples = Examples(rows[None, ~mine], targets[None, ~mine])
        logits = learner.predict(learner.adapt(examples), rows[None, mine])
        present = torch.arange(way, device=columns.device) != left_out
        unknown[mine] = mask_absent(logits, present[None])[0].amax(-1).to(unknown.dtype)
    unknown *= per_dimension
    if kept is not None:
        unknown = unknown[~kept]
    threshold = accept_threshold(unknown.cpu().numpy(), false_accept)
    held_out = hold_out(learner, rows, columns, kept=kept)
    known = held_out.logits[:, held_out.judged].amax(-1) * per_dimension
    return Rejection(
        threshold,
        float((unknown >= threshold).double().mean()),
        float((known < threshold).double().mean()) if known.numel() else None,
    )


def _learner() -> NearestCentroid:
    return NearestCentroid(nn.Identity(), center=True, normalize=True).eval()

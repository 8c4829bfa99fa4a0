"""R2D2: each task's head is the closed-form solution of a ridge regression."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.papers import BERTINETTO_2019
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options

__all__ = ["R2D2"]


class R2D2(EmbeddingLearner[Float[Tensor, "tasks dim way"]]):
    """Ridge-regression differentiable discriminator: adaptation is solved, not stepped.

    With embeddings X = f(support) and target rows Y, a task's head is (equation 6 of the paper)

        W = X' (X X' + lambda I)^-1 Y,

    which takes an n x n system, or the dim x dim one where that is smaller. Logits are alpha f(x) W
    + beta (equation 7); f, lambda, alpha and beta are learned through the solution.

    State:
        `EmbeddingState` of the head of every task (tasks, dim, way).

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim).
        strength: lambda at the start; it stays positive.
        scale: alpha at the start; in regression values are not scaled.
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn and the rest its queries; it needs batch_norm "running", and classification.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = R2D2(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).argmax(-1)[0]
        tensor([0, 1, 2])

    Reference:
        Meta-learning with differentiable closed-form solvers. ICLR 2019.
        https://arxiv.org/abs/1805.08136
    """

    paper = BERTINETTO_2019

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        strength: float = 1.0,
        scale: float = 10.0,
        rotate_support: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, rotate_support=rotate_support, batch_norm=batch_norm, loss=loss)
        self.log_strength = nn.Parameter(torch.tensor(float(strength)).log())
        if loss.kind == "classification":
            self.scale = nn.Parameter(torch.tensor(float(scale)))
            self.shift = nn.Parameter(torch.zeros(()))

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks dim way"]:
        """Solve each task's ridge regression from embeddings to target rows."""
        # Rows of zeros, in both, leave the solution as it is.
        counted = counted_rows(targets, mask, self.loss.kind).unsqueeze(-1)
        with torch.autocast(embeddings.device.type, enabled=False):  # a solution needs its digits
            inputs = embeddings.to(targets.dtype) * counted
            return _ridge(inputs, targets * counted, self.log_strength.exp())

    def compare(
        self,
        summary: Float[Tensor, "tasks dim way"],
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits, or values, of each task's head."""
        with torch.autocast(embeddings.device.type, enabled=False):
            outputs = embeddings.to(summary.dtype) @ summary
        return outputs if self.loss.kind == "regression" else self.scale * outputs + self.shift


def _ridge(
    inputs: Float[Tensor, "tasks n dim"],
    targets: Float[Tensor, "tasks n way"],
    strength: Float[Tensor, ""],
) -> Float[Tensor, "tasks dim way"]:
    """The minimizers of |inputs W - targets|^2 + strength |W|^2, by the smaller linear system."""
    n, dim = inputs.shape[1:]
    eye = strength * torch.eye(min(n, dim), dtype=inputs.dtype, device=inputs.device)
    if n <= dim:
        return inputs.mT @ torch.linalg.solve(inputs @ inputs.mT + eye, targets)
    return torch.linalg.solve(inputs.mT @ inputs + eye, inputs.mT @ targets)

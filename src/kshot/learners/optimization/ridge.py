"""R2D2: each task's head is the closed-form solution of a ridge regression."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import policy_for, reads_stored, reads_support, split_affine
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_query, embed_support, embed_together
from kshot.learners.rotation import require_rotation, rotated_loss
from kshot.losses import Loss, counted_rows, cross_entropy

__all__ = ["R2D2", "R2D2State"]


class R2D2State(NamedTuple):
    """What R2D2 learns from a support set.

    Attributes:
        weight: (tasks, dim, way), the solution of each task's ridge regression.
        support_inputs: (tasks, n, *shape), for BatchNorm policies that read them, else None.
        support_mask: (tasks, n), as `support_inputs`.
    """

    weight: Float[Tensor, "tasks dim way"]
    support_inputs: Inputs | None
    support_mask: Bool[Tensor, "tasks n"] | None


class R2D2(MetaLearner[R2D2State]):
    """Ridge-regression differentiable discriminator: adaptation is solved, not stepped.

    With embeddings X = f(support) and target rows Y, a task's head is (equation 6 of the paper)

        W = X' (X X' + lambda I)^-1 Y,

    which takes an n x n system, or the dim x dim one where that is smaller. Logits are alpha f(x) W
    + beta (equation 7); f, lambda, alpha and beta are learned through the solution.

    State:
        `R2D2State`: the head of every task.

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim).
        strength: lambda at the start; it stays positive.
        scale: alpha at the start; in regression values are not scaled.
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn and the rest its queries; it needs batch_norm "running", and classification.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.

    Example:
        >>> learner = R2D2(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).argmax(-1)[0]
        tensor([0, 1, 2])

    Reference:
        Meta-learning with differentiable closed-form solvers. ICLR 2019.
        https://arxiv.org/abs/1805.08136
    """

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
        encoder = split_affine(encoder)
        super().__init__(loss=loss, batch_norm=policy_for(encoder, batch_norm))
        if rotate_support:
            require_rotation(loss, self.batch_norm)
        self.encoder = encoder
        self.rotate_support = rotate_support
        self.log_strength = nn.Parameter(torch.tensor(strength).log())
        if loss.kind == "classification":
            self.scale = nn.Parameter(torch.tensor(scale))
            self.shift = nn.Parameter(torch.zeros(()))

    def adapt(self, support: Examples) -> R2D2State:
        """Solve each task's ridge regression from embeddings to target rows."""
        embeddings = embed_support(self.encoder, self.batch_norm, support.inputs, support.mask)
        weight = self._solve(embeddings, support.targets, support.mask)
        kept = reads_support(self.batch_norm)
        return R2D2State(weight, support.inputs if kept else None, support.mask if kept else None)

    def predict(
        self, state: R2D2State, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Logits, or values, of each task's head."""
        embeddings = embed_query(
            self.encoder, self.batch_norm, inputs, mask, state.support_inputs, state.support_mask
        )
        return self._outputs(embeddings, state.weight)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The query loss; under "running", a meta-batch is embedded in one call."""
        if not reads_stored(self.batch_norm):
            return super().meta_loss(episodes)
        support, query = embed_together(self.encoder, episodes)
        if self.rotate_support and self.training:
            both = torch.cat([support, query], 1)
            return rotated_loss(
                self.loss,
                episodes,
                lambda targets, chosen: self._outputs(both, self._solve(both, targets, chosen)),
            )
        weight = self._solve(support, episodes.support.targets, episodes.support.mask)
        return self.query_loss(self._outputs(query, weight), episodes)

    def _solve(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks dim way"]:
        # Rows of zeros, in both, leave the solution as it is.
        counted = counted_rows(targets, mask, self.loss.kind).unsqueeze(-1)
        with torch.autocast(embeddings.device.type, enabled=False):  # a solution needs its digits
            inputs = embeddings.to(targets.dtype) * counted
            return _ridge(inputs, targets * counted, self.log_strength.exp())

    def _outputs(
        self, embeddings: Float[Tensor, "tasks m dim"], weight: Float[Tensor, "tasks dim way"]
    ) -> Float[Tensor, "tasks m way"]:
        with torch.autocast(embeddings.device.type, enabled=False):
            outputs = embeddings.to(weight.dtype) @ weight
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

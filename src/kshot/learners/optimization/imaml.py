"""iMAML: the meta-gradient of where inner steps end, whatever way they took."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples
from kshot.learners.optimization.fast_weights import (
    FastWeightLearner,
    FastWeights,
    parameters_exchanged,
)
from kshot.learners.optimization.update_rules import SGD, Params
from kshot.learners.papers import RAJESWARAN_2019
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy, mask_absent
from kshot.options import checks_options

__all__ = ["IMAML"]


class IMAML(FastWeightLearner):
    """Implicit MAML: the initialization is what adaptation may not stray far from.

    Each task minimizes its support loss near the shared initialization theta,

        phi* = argmin over phi of L_support(phi) + strength / 2 * |phi - theta|^2,

    and the derivative of phi* follows from its being a minimum, with no step kept in memory
    (lemma 1): the meta-gradient is

        (I + H / strength)^-1 grad L_query(phi*),  H the Hessian of L_support at phi*,

    solved by conjugate gradient. It is as exact as the inner minimum and the solution are.

    State:
        `FastWeights`: the adapted parameters of every task.

    Args:
        net: network from inputs (n, *shape) to outputs (n, max_way).
        inner_lr: inner learning rate. Steps arrive at a minimum only where it is below
            2 / (`strength` + the largest curvature of the support loss); beyond, the meta-gradient
            is that of no minimum, and training diverges.
        strength: of the pull toward the initialization, lambda in the paper.
        num_inner_steps: inner steps in meta-training.
        num_test_steps: inner steps in evaluation mode; None takes `num_inner_steps`.
        num_solver_steps: steps of conjugate gradient.
        damping: added to `strength` where the system is solved, against directions in which the
            support loss curves down. The paper has none; the authors' code solves
            2 I + H / (strength + 10), which at a strength of 2 is 22 here, but for the length of
            the meta-gradient.
        batch_norm: where BatchNorm statistics come from.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        loss: loss of a task, inner and outer.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = IMAML(nn.Linear(2, 5))
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        Meta-Learning with Implicit Gradients. NeurIPS 2019. https://arxiv.org/abs/1909.04630
    """

    paper = RAJESWARAN_2019

    @checks_options
    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 0.05,
        strength: float = 2.0,
        num_inner_steps: int = 16,
        num_test_steps: int | None = None,
        num_solver_steps: int = 5,
        damping: float = 0.0,
        batch_norm: BatchNormPolicy = "batch",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        loss: Loss = cross_entropy,
    ) -> None:
        if strength <= 0:
            raise ValueError(f"The strength of the pull must be above 0, not {strength}.")
        if num_solver_steps < 1:
            raise ValueError(
                f"iMAML needs at least 1 step of its solver, not {num_solver_steps}: without any "
                "the meta-gradient is zero."
            )
        if damping < 0:
            raise ValueError(f"damping must be at least 0, not {damping}.")
        super().__init__(
            net,
            SGD(inner_lr),
            num_inner_steps=num_inner_steps,
            num_test_steps=num_test_steps,
            first_order=False,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            loss=loss,
        )
        self.strength = strength
        self.num_solver_steps = num_solver_steps
        self.damping = damping

    def regularization(self, params: Params, start: Params) -> Float[Tensor, ""]:
        """The pull toward the initialization."""
        distances = [(params[name] - start[name]).square().sum() for name in params]
        return self.strength / 2 * torch.stack(distances).sum()

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The query loss after adaptation, with its implicit gradient."""
        with torch.no_grad():
            state = self.adapt(episodes.support)
            with parameters_exchanged():
                losses, slopes = self.map_tasks(
                    self._loss_and_slope,
                    episodes.support.inputs,
                    *(state, episodes.support, episodes.query, episodes.present),
                )
        # Linear in the initialization, with the slope that was computed.
        start = self.initialization(episodes.support.targets.shape[-1])
        terms = [
            ((value - value.detach()) * slopes[name].mean(0)).sum() for name, value in start.items()
        ]
        return losses.mean() + torch.stack(terms).sum()

    def _loss_and_slope(
        self,
        state: FastWeights,
        support: Examples,
        query: Examples,
        present: Bool[Tensor, " way"] | None,
    ) -> tuple[Float[Tensor, ""], Params]:
        """Query loss of one task, and its slope in the initialization."""

        def query_loss(params: Params) -> Tensor:
            outputs = self.predict_one_task(state._replace(params=params), query.inputs, query.mask)
            return self.loss(mask_absent(outputs, present), query.targets, query.mask)

        def support_slope(params: Params) -> Params:
            return torch.func.grad(lambda p: self.support_loss(p, support, state.present))(params)

        slope, loss = torch.func.grad_and_value(query_loss)(state.params)
        hessian_product = torch.func.vjp(support_slope, state.params)[1]

        def product(vector: Params) -> Params:
            (curved,) = hessian_product(vector)
            pull = self.strength + self.damping
            return {name: value + curved[name] / pull for name, value in vector.items()}

        return loss, conjugate_gradient(product, slope, self.num_solver_steps)


def conjugate_gradient(
    product: Callable[[Params], Params], target: Params, num_steps: int
) -> Params:
    """An approximate solution x of `product(x) = target`, for a symmetric positive product."""
    x = {name: torch.zeros_like(value) for name, value in target.items()}
    residual = direction = target
    square = _dot(residual, residual)
    for _ in range(num_steps):
        image = product(direction)
        curvature = _dot(direction, image)
        # No step where the system is solved already, or where the minimum is none after all.
        length = torch.where(curvature > 0, square / curvature, torch.zeros_like(square))
        x = {name: x[name] + length * direction[name] for name in x}
        residual = {name: residual[name] - length * image[name] for name in x}
        previous, square = square, _dot(residual, residual)
        ratio = torch.where(previous > 0, square / previous, torch.zeros_like(square))
        direction = {name: residual[name] + ratio * direction[name] for name in x}
    return x


def _dot(a: Params, b: Params) -> Float[Tensor, ""]:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()

"""Adam as an update rule, differentiable also where a gradient is zero."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule

__all__ = ["Adam", "CarriedAdam"]


class Adam(UpdateRule):
    """Adam with bias correction, as `torch.optim.Adam` computes it.

    Reptile uses beta1 = 0, so that no momentum carries over from one step to the next.

    Args:
        lr: learning rate.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        eps: added to the root of the mean of squares.

    Note:
        The root has an infinite slope at zero, where dead units put it; its derivative is taken as
        zero there, so that meta-gradients stay finite.

    Reference:
        Adam: A Method for Stochastic Optimization. ICLR 2015. https://arxiv.org/abs/1412.6980
    """

    def __init__(
        self, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps

    def init(self, params: Params) -> RuleState:
        """No step taken, both means zero."""
        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        first = next(iter(params.values()))
        return {"count": first.new_zeros(()), "mean": zeros, "square": zeros}

    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Float[Tensor, ""]
    ) -> tuple[Params, RuleState]:
        """One step along the corrected mean, divided by the corrected root mean square."""
        count = state["count"] + 1
        first, second = 1 - self.beta1**count, (1 - self.beta2**count).sqrt()
        mean, square, moved = {}, {}, {}
        # Few passes over the numbers: they are those of every parameter of every task.
        for name, value in params.items():
            grad = grads[name]
            mean[name] = torch.lerp(grad, state["mean"][name], self.beta1)
            square[name] = torch.addcmul(
                self.beta2 * state["square"][name], grad, grad, value=1 - self.beta2
            )
            root = _root(square[name]) / second + self.eps
            moved[name] = torch.addcdiv(value, mean[name] * (-self.lr / first), root)
        return moved, {"count": count, "mean": mean, "square": square}


class CarriedAdam(Adam):
    """Adam that begins where earlier tasks left its averages, as the authors of Reptile train.

    Where gradients have become small, so are its first steps; those of fresh averages are of size
    `lr` whatever the gradient.

    Args:
        params: the parameters that it moves.
        lr: learning rate.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        eps: added to the root of the mean of squares.

    Reference:
        On First-Order Meta-Learning Algorithms. 2018. https://arxiv.org/abs/1803.02999
    """

    count: Tensor

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps)
        self.names = tuple(params)
        self.register_buffer("count", next(iter(params.values())).new_zeros(()))
        for place, value in enumerate(params.values()):
            self.register_buffer(f"mean_{place}", torch.zeros_like(value, requires_grad=False))
            self.register_buffer(f"square_{place}", torch.zeros_like(value, requires_grad=False))

    def init(self, params: Params) -> RuleState:
        """What was carried over last; at first no step taken and both means zero."""
        return {"count": self.count.clone(), **{kind: self._averages(kind) for kind in _KINDS}}

    def carry(self, state: RuleState) -> None:
        """Begin next time from the mean over tasks of a state whose tensors are (tasks, *shape)."""
        self.count.copy_(state["count"].mean(0))
        for kind in _KINDS:
            for name, value in self._averages(kind).items():
                value.copy_(state[kind][name].mean(0))

    def _averages(self, kind: str) -> Params:
        return {name: getattr(self, f"{kind}_{place}") for place, name in enumerate(self.names)}


_KINDS = ("mean", "square")


def _root(x: Tensor) -> Tensor:
    """The root, whose derivative is zero at zero."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()

"""The meta-gradient of a learner as one compiled graph."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from kshot.episodes import Episodes, map_tensors
from kshot.learner import MetaLearner

__all__ = ["CompiledMetaLoss"]

Gradient = Callable[[dict[str, Tensor], Episodes], tuple[dict[str, Tensor], Tensor]]


class CompiledMetaLoss(nn.Module):
    """A learner's meta-loss, whose gradient comes from a graph compiled for episodes of a shape.

    The graph has the steps of the inner loop and both derivatives in it, so that the compiler sees
    all there is to join: `torch.compile` of a learner alone sees neither. The first call on
    episodes of a new shape takes a minute or so. The loss can be differentiated once.

    Args:
        learner: a learner that leaves its buffers alone while it trains.
    """

    def __init__(self, learner: MetaLearner) -> None:
        super().__init__()
        self.learner = learner
        self._gradients: dict[str, Gradient] = {}

    def forward(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The meta-loss of some episodes.

        Raises:
            ValueError: when the learner moves its buffers while it trains, or decides by values.
        """
        params = self._params()
        gradient = self._gradient(episodes)
        return _Known.apply(gradient, episodes, tuple(params), *params.values())  # pyright: ignore[reportReturnType]

    def _params(self) -> dict[str, Tensor]:
        named = self.learner.named_parameters()
        return {name: value for name, value in named if value.requires_grad}

    def _gradient(self, episodes: Episodes) -> Gradient:
        kinds = map_tensors(lambda tensor: (tensor.shape, tensor.dtype, tensor.device), episodes)
        key = f"{self.learner.training} {kinds}"
        if key not in self._gradients:
            self._gradients[key] = self._compile(episodes)
        return self._gradients[key]

    def _compile(self, episodes: Episodes) -> Gradient:
        params = {name: value.detach() for name, value in self._params().items()}

        def loss(params: dict[str, Tensor], episodes: Episodes) -> Tensor:
            return functional_call(self.learner, params, (episodes,))

        self._require_fixed_buffers(episodes)
        with torch.random.fork_rng():
            try:
                graph = make_fx(torch.func.grad_and_value(loss))(params, episodes)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                raise ValueError(
                    f"{type(self.learner).__name__} cannot be traced to one graph. Train it "
                    "without compile. Usual reasons are that it decides by the values of tensors, "
                    f"or gradient checkpointing. PyTorch says: {reason}"
                ) from error
        # Tracing leaves what is computed for nothing, such as the counting of operations.
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return torch.compile(graph)

    def _require_fixed_buffers(self, episodes: Episodes) -> None:
        buffers = {name: value.clone() for name, value in self.learner.named_buffers()}
        with torch.no_grad(), torch.random.fork_rng():
            self.learner(episodes)
        moved = [name for name, v in self.learner.named_buffers() if not v.equal(buffers[name])]
        if moved:
            raise ValueError(
                f"{type(self.learner).__name__} moves {', '.join(moved)} while it trains, which a "
                "compiled meta-gradient would not. Train it without compile, or, where these are "
                "running averages, under another batch_norm policy."
            )


class _Known(torch.autograd.Function):
    """A loss whose gradient is computed together with it."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Gradient, episodes: Episodes, names: tuple[str, ...], *params: Tensor
    ) -> Tensor:
        grads, loss = gradient(dict(zip(names, params, strict=True)), episodes)
        ctx.save_for_backward(*(grads[name] for name in names))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError("A compiled meta-loss can be differentiated once.")
        return None, None, None, *(grad * grads[0] for grad in ctx.saved_tensors)

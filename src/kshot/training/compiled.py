"""The meta-gradient of a learner as one compiled graph, or of compiled steps."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from kshot.episodes import Episodes, map_tensors
from kshot.learner import MetaLearner

__all__ = ["CompiledMetaLoss", "CompiledSteps", "compiled"]


def compiled(learner: MetaLearner) -> "CompiledMetaLoss | CompiledSteps":
    """The meta-loss of a learner, compiled in the way that suits it."""
    return CompiledMetaLoss(learner) if learner.repeated is None else CompiledSteps(learner)


class CompiledSteps(nn.Module):
    """The meta-loss of a learner, in which what it does over and over is compiled by itself.

    A graph of all steps of a long sequence would keep the compiler busy for many minutes; one step
    takes it seconds, for each shape of episodes, and what is between steps is left as it is. The
    loss can be differentiated once.

    Args:
        learner: a learner with the name of that method as `repeated`.
    """

    def __init__(self, learner: MetaLearner) -> None:
        super().__init__()
        assert learner.repeated is not None
        self.learner, self.name = learner, learner.repeated
        self.step = torch.compile(getattr(learner, self.name), dynamic=False)

    def forward(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The meta-loss of some episodes."""
        setattr(self.learner, self.name, self.step)  # before the method of its class
        try:
            return self.learner(episodes)
        finally:
            delattr(self.learner, self.name)


class CompiledMetaLoss(nn.Module):
    """A learner's meta-loss, whose gradient comes from a graph compiled for episodes of a shape.

    The graph has the steps of the inner loop and both derivatives in it, so that the compiler sees
    all there is to join: `torch.compile` of a learner alone sees neither. The first call on
    episodes of a new shape takes a minute or so. The loss can be differentiated once.

    Buffers that the meta-loss moves, such as running averages, are moved as if nothing were
    compiled.

    Args:
        learner: a learner whose meta-loss is a function of its parameters and buffers, its `phase`
            and the episodes; what else it reads (rates, modes) stays as it is at the first call.
    """

    def __init__(self, learner: MetaLearner) -> None:
        super().__init__()
        self.learner = learner
        self._gradients: dict[str, _Gradient] = {}

    def forward(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The meta-loss of some episodes.

        Raises:
            ValueError: when the learner decides by values.
        """
        named = self.learner.named_parameters()
        params: dict[str, Tensor] = {name: value for name, value in named if value.requires_grad}
        device = episodes.support.targets.device.type
        autocast = _Autocast(
            device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        )
        kinds = map_tensors(lambda tensor: (tensor.shape, tensor.dtype, tensor.device), episodes)
        modes = f"{autocast} {self.learner.training} {self.learner.phase}"
        key = f"{kinds} {modes} {list(params)}"
        if key not in self._gradients:
            self._gradients[key] = self._compile(params, episodes, autocast)
            if len(self._gradients) == _MANY:
                warnings.warn(
                    f"{_MANY} graphs were compiled, one for each shape of episodes. Pad episodes "
                    "to a common shape, or train without compile.",
                    stacklevel=2,
                )
        gradient = self._gradients[key]
        read = [params[name] for name in gradient.names]
        buffers = self._buffers_of(gradient.buffers)
        return _Known.apply(gradient, buffers, episodes, *read)  # pyright: ignore

    def _compile(
        self, params: dict[str, Tensor], episodes: Episodes, autocast: "_Autocast"
    ) -> "_Gradient":
        def loss(
            params: dict[str, Tensor], buffers: dict[str, Tensor], episodes: Episodes
        ) -> tuple[Tensor, dict[str, Tensor]]:
            moved = {name: value.clone() for name, value in buffers.items()}
            with torch.autocast(*autocast):
                return functional_call(self.learner, params | moved, (episodes,)), moved

        # Only these have a gradient, or move: an optimizer leaves the other parameters alone.
        names, moved = self._read_and_moved(params, episodes)
        start = {name: _channels_last(params[name].detach()) for name in names}
        gradient = torch.func.grad_and_value(loss, has_aux=True)
        try:
            with _same_random_numbers(episodes), torch.autocast(autocast.device, enabled=False):
                graph = make_fx(gradient)(start, self._buffers_of(moved), episodes)
            _require_fixed_shapes(graph)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{type(self.learner).__name__} cannot be traced to one graph. Train it without "
                "compile. Usual reasons are that it decides by the values of tensors, or gradient "
                f"checkpointing. PyTorch says: {reason}"
            ) from error
        # Tracing leaves what is computed for nothing.
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return _Gradient(names, moved, torch.compile(graph), autocast.device)

    def _read_and_moved(
        self, params: dict[str, Tensor], episodes: Episodes
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the parameters that it has a gradient in, and of the buffers it moves."""
        before = {name: value.clone() for name, value in self.learner.named_buffers()}
        with _same_random_numbers(episodes):
            loss = self.learner(episodes)
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        moved = []
        for name, value in self.learner.named_buffers():
            if not value.equal(before[name]):
                moved.append(name)
                value.copy_(before[name])
        read = [name for name, grad in zip(params, grads, strict=True) if grad is not None]
        return tuple(read), tuple(moved)

    def _buffers_of(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        return {name: self.learner.get_buffer(name) for name in names}


class _Autocast(NamedTuple):
    """The autocast in force, as `torch.autocast` takes it."""

    device: str
    dtype: torch.dtype
    enabled: bool


class _Gradient(NamedTuple):
    """A compiled function of parameters and buffers by name and of episodes.

    It gives gradients, loss and moved buffers, and has its autocast within.
    """

    names: tuple[str, ...]
    buffers: tuple[str, ...]
    function: Callable[..., tuple[dict[str, Tensor], tuple[Tensor, dict[str, Tensor]]]]
    device: str


class _Known(torch.autograd.Function):
    """A loss whose gradient is computed together with it."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: _Gradient,
        buffers: dict[str, Tensor],
        episodes: Episodes,
        *params: Tensor,
    ) -> Tensor:
        named = dict(zip(gradient.names, map(_channels_last, params), strict=True))
        with torch.autocast(gradient.device, enabled=False):
            grads, (loss, moved) = gradient.function(named, buffers, episodes)
        for name, value in moved.items():
            buffers[name].copy_(value)
        ctx.save_for_backward(*(grads[name] for name in gradient.names))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError("A compiled meta-loss can be differentiated once.")
        return None, None, None, *(grad * grads[0] for grad in ctx.saved_tensors)


_MANY = 8


def _channels_last(value: Tensor) -> Tensor:
    """The kernels of convolutions as their products with patches read them."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _same_random_numbers(episodes: Episodes) -> Any:
    """Within: random numbers are drawn as usual; after it, they are those of before."""
    device = episodes.support.targets.device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _require_fixed_shapes(graph: GraphModule) -> None:
    """Refuse a graph in which the values of tensors decide the shapes of others."""
    for node in graph.graph.nodes:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        if node.target is torch.ops.aten.index.Tensor:
            indices = [index.meta["val"] for index in node.args[1] if index is not None]
            if not any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                continue
        raise RuntimeError(f"{node.target} gives tensors whose shape depends on values")

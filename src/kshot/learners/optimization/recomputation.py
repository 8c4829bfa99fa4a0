"""Memory for time: a differentiable function whose inner results are computed twice, not kept."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kshot.episodes import leaves, map_tensors, with_leaves

__all__ = ["recomputed"]


def recomputed(function: Callable[..., Any], parameters: Iterable[Tensor], *trees: Any) -> Any:
    """What a function returns, keeping its arguments alone for the backward pass.

    The backward pass calls the function again, with the random numbers and the autocast of the
    first time. Unlike `torch.utils.checkpoint`, it serves functions that use `torch.func`.

    Args:
        function: takes the trees and returns a nested tuple or dictionary of tensors.
        parameters: other tensors that the function reads and that gradients are taken of.
        trees: nested tuples and dictionaries of tensors; None stays None.

    Raises:
        RuntimeError: when it is differentiated twice, or within `torch.func` transformations.

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> recomputed(lambda x: x.sin().exp(), (), x).backward()
        >>> x.grad.item() == (x.sin().exp() * x.cos()).item()
        True
    """
    read = [each for each in parameters if each.requires_grad]
    call = _Call(function, trees)
    outputs = _Recomputed.apply(call, *leaves(trees), *read)
    result, call.result = call.result, None  # kept, it would keep itself alive by its graph
    return with_leaves(result, outputs)


class _Call:
    """A function call that can be made again, with other tensors in its trees."""

    def __init__(self, function: Callable[..., Any], trees: tuple[Any, ...]) -> None:
        self.function = function
        self.count = len(leaves(trees))
        self.shape = map_tensors(lambda _: _PLACE, trees)
        device = next((tensor.device for tensor in leaves(trees)), torch.device("cpu"))
        self.devices = [device] if device.type == "cuda" else []
        self.random = torch.get_rng_state()
        self.random_cuda = torch.cuda.get_rng_state(device) if self.devices else None
        self.autocast = (
            device.type,
            torch.get_autocast_dtype(device.type),
            torch.is_autocast_enabled(device.type),
        )
        self.result: Any = None

    def __call__(self, tensors: Iterable[Tensor]) -> Any:
        """What the function returns for some tensors."""
        return self.function(*with_leaves(self.shape, tensors))

    def again(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The tensors it returns, with the random numbers and the autocast of the first time."""
        with torch.random.fork_rng(self.devices), torch.autocast(*self.autocast):
            torch.set_rng_state(self.random)
            if self.random_cuda is not None:
                torch.cuda.set_rng_state(self.random_cuda, self.devices[0])
            return leaves(self(tensors))


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        call.result = call(tensors[: call.count])
        return tuple(leaves(call.result))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "What is recomputed can be differentiated once. Set gradient_checkpointing=False "
                "for higher derivatives of the meta-loss."
            )
        call, needed, saved = ctx.call, ctx.needs_input_grad[1:], ctx.saved_tensors
        given = [
            tensor.detach().requires_grad_(need)
            for tensor, need in zip(saved[: call.count], needed, strict=False)
        ]
        with torch.enable_grad():
            outputs = call.again(given)
        wanted = [x for x, need in zip((*given, *saved[call.count :]), needed, strict=True) if need]
        used = [(y, grad) for y, grad in zip(outputs, grads, strict=True) if y.requires_grad]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in used], wanted, [grad for _, grad in used], allow_unused=True
            )
            if used
            else [None] * len(wanted)
        )
        return None, *(next(found) if need else None for need in needed)


_PLACE = torch.empty(0)

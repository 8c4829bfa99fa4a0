"""A network that is used and never trained."""

import copy
import hashlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kshot.device import choose_device

__all__ = ["FrozenNetwork"]


class FrozenNetwork:
    """A network in evaluation mode, without gradients, that nobody else can change.

    A module is copied: its owner may go on to train it, and neither the embeddings nor the
    fingerprint may change then. Any other callable is used as it is.

    Args:
        net: a module, or another callable.
        device: where it computes; "auto" takes a GPU when there is one.
        fingerprint: what to call its weights and its computation, instead of looking at them.
    """

    def __init__(
        self, net: Callable[..., Any], device: str = "auto", fingerprint: str | None = None
    ) -> None:
        self.device = choose_device(device)
        self._name = fingerprint
        if isinstance(net, nn.Module):
            net = copy.deepcopy(net).eval().requires_grad_(False).to(self.device)
        self._net = net

    @property
    def module(self) -> nn.Module | None:
        """The network when it is a module, not to be changed; None for another callable."""
        return self._net if isinstance(self._net, nn.Module) else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output, without gradients."""
        with torch.inference_mode():
            return self._net(*args, **kwargs)

    def digest(self) -> str:
        """What tells this network from others: its class, its structure as printed, its weights.

        Raises:
            ValueError: when the network is no module and was given no fingerprint.
        """
        if self._name is not None:
            return self._name
        if not isinstance(self._net, nn.Module):
            raise ValueError(
                f"The weights of a {type(self._net).__name__} cannot be seen, so embeddings of an "
                "older version could be taken for its own. Give fingerprint='a name that you "
                "change with it', or a torch.nn.Module."
            )
        total = hashlib.sha256(f"{type(self._net).__qualname__}\n".encode())
        # Activations have no weights: only the printed structure tells ReLU from GELU. Addresses
        # of functions in it differ from run to run.
        total.update(re.sub(r" at 0x[0-9a-f]+", "", repr(self._net)).encode())
        # Buffers that are not saved count as well.
        weights = {**dict(self._net.named_buffers()), **self._net.state_dict()}
        for name in sorted(weights):
            value = weights[name]
            if isinstance(value, Tensor):
                total.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                total.update(flat.view(torch.uint8).numpy().data)
            else:
                total.update(f"\n{name} {value!r}\n".encode())
        return total.hexdigest()

"""Fully connected networks, for features and for regression on the line."""

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.options import checks_options

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear layers with an activation after each; the input is flattened.

    Args:
        input_shape: shape of one input.
        widths: width of each layer; the last is the embedding.
        activation: what follows each layer.
        initialization: "pytorch", or "truncated_normal" for weights of standard deviation 0.01 (cut
            at two of them) and zero biases, as MAML's sinusoid network has.

    Example:
        >>> MLP((1,), widths=(40, 40))(torch.zeros(10, 1)).shape
        torch.Size([10, 40])
    """

    @checks_options
    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        widths: tuple[int, ...] = (40, 40),
        activation: Literal["relu", "tanh", "softplus"] = "relu",
        initialization: Literal["pytorch", "truncated_normal"] = "pytorch",
    ) -> None:
        super().__init__()
        sizes = [math.prod(input_shape), *widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = {
            "relu": torch.relu,
            "tanh": torch.tanh,
            "softplus": nn.functional.softplus,
        }[activation]
        self.embedding_dim = sizes[-1]
        if initialization == "truncated_normal":
            for layer in self.layers:
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)  # pyright: ignore[reportArgumentType]
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, inputs: Float[Tensor, " n *shape"]) -> Float[Tensor, "n embedding"]:
        """Embeddings of inputs."""
        x = torch.flatten(inputs, 1)
        for layer in self.layers:
            x = self.activation(layer(x))
        return x

"""What stands before or after an encoder: nothing at all, or a linear head."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.episodes import Inputs

__all__ = ["Flatten", "WithHead", "embedding_dim"]


class Flatten(nn.Module):
    """The inputs themselves as vectors: the encoder of the pixel baselines.

    Args:
        input_shape: shape of one input.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding_dim = math.prod(input_shape)

    def forward(self, inputs: Float[Tensor, " n *shape"]) -> Float[Tensor, "n embedding"]:
        """Inputs with their dimensions after the first made one."""
        return torch.flatten(inputs, 1)


class WithHead(nn.Module):
    """An encoder followed by a linear head.

    Args:
        encoder: network with an `embedding_dim`.
        num_outputs: columns of the head.
    """

    def __init__(self, encoder: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(embedding_dim(encoder), num_outputs)

    def forward(self, inputs: Inputs) -> Float[Tensor, "n outputs"]:
        """The head's outputs for the inputs' embeddings."""
        return self.head(self.encoder(inputs))


def embedding_dim(encoder: nn.Module) -> int:
    """The number of outputs of an encoder, which it tells as `embedding_dim`."""
    dim = getattr(encoder, "embedding_dim", None)
    if not isinstance(dim, int):
        raise ValueError(
            f"{type(encoder).__name__} does not say how many numbers it gives for an input. Set "
            "its attribute embedding_dim to that number."
        )
    return dim

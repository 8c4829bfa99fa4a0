"""What stands before or after an encoder: nothing at all, a linear or a cosine head."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.episodes import Inputs

__all__ = ["CosineHead", "Flatten", "WithHead", "embedding_dim"]


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


class CosineHead(nn.Module):
    """Cosines of embeddings with the weights of each output, times a learned scale.

    Args:
        num_inputs: size of an embedding.
        num_outputs: columns of the head.
        scale: at the start.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_outputs, num_inputs) / num_inputs**0.5)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, embeddings: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n outputs"]:
        """Scaled cosines."""
        with torch.autocast(embeddings.device.type, enabled=False):  # cosines need their digits
            directions = F.normalize(embeddings.to(self.weight.dtype), dim=-1)
            return self.scale * (directions @ F.normalize(self.weight, dim=-1).T)


def embedding_dim(encoder: nn.Module) -> int:
    """The number of outputs of an encoder, which it tells as `embedding_dim`."""
    dim = getattr(encoder, "embedding_dim", None)
    if not isinstance(dim, int):
        raise ValueError(
            f"{type(encoder).__name__} does not say how many numbers it gives for an input. Set "
            "its attribute embedding_dim to that number."
        )
    return dim

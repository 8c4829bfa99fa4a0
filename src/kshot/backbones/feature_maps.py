"""The encoder of relation networks, whose embeddings are still maps of the picture."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.convolution import Conv2d, channels_innermost
from kshot.backbones.normalization import BatchNorm
from kshot.options import checks_options

__all__ = ["FeatureMaps"]


class FeatureMaps(nn.Module):
    """Four blocks of 3x3 convolution, BatchNorm and ReLU, of which only two are pooled.

    The first two have no padding and end in a 2x2 max pool, the last two keep the size: 28 px give
    maps of 5 x 5, 84 px of 19 x 19. They come out flattened; `map_shape` is their shape.

    Args:
        input_shape: (channels, height, width) of a picture.
        hidden: channels of every block.

    Example:
        >>> encoder = FeatureMaps((1, 28, 28))
        >>> encoder(torch.zeros(3, 1, 28, 28)).shape, encoder.map_shape
        (torch.Size([3, 1600]), (64, 5, 5))

    Reference:
        Learning to Compare: Relation Network for Few-Shot Learning. CVPR 2018.
        https://arxiv.org/abs/1711.06025
    """

    @checks_options
    def __init__(self, input_shape: tuple[int, ...], *, hidden: int = 64) -> None:
        super().__init__()
        channels, height, width = input_shape
        sizes = [channels] + [hidden] * 4
        self.convolutions = nn.ModuleList(
            Conv2d(a, b, 3, padding=0 if block < 2 else 1)
            for block, (a, b) in enumerate(pairwise(sizes))
        )
        self.norms = nn.ModuleList(BatchNorm(hidden) for _ in range(4))
        for _ in range(2):
            height, width = (height - 2) // 2, (width - 2) // 2
        if min(height, width) < 1:
            raise ValueError(
                f"Pictures of {input_shape[1:]} pixels are too small for two blocks that are not "
                "padded and halve them: use at least 10 px."
            )
        self.map_shape = (hidden, height, width)
        self.embedding_dim = hidden * height * width
        channels_innermost(self)

    def forward(
        self, pictures: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n embedding"]:
        """Feature maps of pictures, flattened."""
        x = pictures
        for block, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            x = norm(convolution(x))
            x = F.relu(F.max_pool2d(x, 2) if block < 2 else x)
        return torch.flatten(x, 1)

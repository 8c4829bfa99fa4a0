"""Conv-4: the four-block convolutional network that most few-shot papers share."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.convolution import Conv2d, channels_innermost
from kshot.backbones.normalization import BatchNorm
from kshot.options import checks_options

__all__ = ["Conv4"]


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, BatchNorm and ReLU, flattened to an embedding.

    Pooled (2x2 max after each block) as in Matching and Prototypical Networks: 28 px give 64
    numbers, 84 px 1,600. Strided (the convolution steps by 2, no pooling) as in MAML on Omniglot:
    28 px give 256 numbers.

    Args:
        input_shape: (channels, height, width) of a picture.
        hidden: channels of every block.
        strided: halve the size by strided convolutions instead of pooling.

    Example:
        >>> Conv4((1, 28, 28))(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 64])

    Reference:
        Matching Networks for One Shot Learning. NeurIPS 2016. https://arxiv.org/abs/1606.04080
    """

    @checks_options
    def __init__(
        self, input_shape: tuple[int, ...], *, hidden: int = 64, strided: bool = False
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.strided = strided
        sizes = [channels] + [hidden] * 4
        self.convolutions = nn.ModuleList(
            Conv2d(a, b, 3, stride=2 if strided else 1, padding=1) for a, b in pairwise(sizes)
        )
        self.norms = nn.ModuleList(BatchNorm(hidden) for _ in range(4))
        for _ in range(4):  # a convolution rounds a half up, pooling down
            height, width = (height + strided) // 2, (width + strided) // 2
        if height * width == 0:
            raise ValueError(
                f"Pictures of {input_shape[1:]} pixels are too small for Conv4, which halves them "
                "four times: use at least 16 px."
            )
        self.embedding_dim = hidden * height * width
        if not strided:
            channels_innermost(self)

    def forward(
        self, pictures: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n embedding"]:
        """Embeddings of pictures."""
        x = pictures
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))
            # Pooling first is the same function and leaves a quarter of the ReLU's work.
            x = F.relu(x if self.strided else F.max_pool2d(x, 2))
        return torch.flatten(x, 1)

"""ResNet-12: the residual network of the few-shot literature."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.convolution import channels_innermost
from kshot.backbones.normalization import BatchNorm
from kshot.options import checks_options

__all__ = ["ResNet12"]


class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, each halving the size; mean over space.

    Args:
        input_shape: (channels, height, width) of a picture.
        widths: channels of the four blocks.

    Example:
        >>> import torch
        >>> ResNet12((3, 84, 84), widths=(8, 8, 8, 16))(torch.zeros(2, 3, 84, 84)).shape
        torch.Size([2, 16])

    Note:
        LeakyReLU with slope 0.1 and the wide blocks (64, 160, 320, 640) as in the reference; its
        DropBlock regularization is left out.

    Reference:
        Meta-Learning with Differentiable Convex Optimization. CVPR 2019.
        https://arxiv.org/abs/1904.03758
    """

    @checks_options
    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
    ) -> None:
        super().__init__()
        sizes = [input_shape[0], *widths]
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in pairwise(sizes))
        if min(input_shape[1:]) < 16:
            raise ValueError(
                f"Pictures of {input_shape[1:]} pixels are too small for ResNet12, which halves "
                "them four times: use at least 16 px."
            )
        self.embedding_dim = widths[-1]
        channels_innermost(self)

    def forward(
        self, pictures: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n embedding"]:
        """Embeddings of pictures."""
        x = pictures
        for block in self.blocks:
            x = block(x)
        return x.mean((-2, -1))


class _Block(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = [channels, width, width, width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(sizes)
        )
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(3))
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)
        self.shortcut_norm = BatchNorm(width)
        for convolution in [*self.convolutions, self.shortcut]:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="leaky_relu")  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut_norm(self.shortcut(x))
        last = len(self.convolutions) - 1
        for depth, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            x = norm(convolution(x))
            if depth < last:
                x = F.leaky_relu(x, 0.1)
        # Pooling first is the same function and leaves a quarter of the ReLU's work.
        return F.leaky_relu(F.max_pool2d(x + shortcut, 2), 0.1)

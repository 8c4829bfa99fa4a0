"""Convolution that is one matrix product where a meta-gradient is compiled.

Under `torch.func.vmap` a convolution whose weights differ between tasks is a grouped one, and its
derivatives are grouped ones of odd shapes, for which CPUs have slow kernels. Written as a matrix
product of patches, it and all of its derivatives are batched matrix products, and a compiler joins
the rearranging of patches with the arithmetic around it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.transforms import being_traced

__all__ = ["Conv2d", "fold_patches", "unfold_patches"]


class Conv2d(nn.Conv2d):
    """A convolution, as a product of patches and weights while being traced.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        size: height and width of the kernel.
        stride: pixels from one patch to the next, in both directions.
        padding: zeros around the picture.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, size, stride=stride, padding=padding)
        self.geometry = (size, stride, padding)

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n out h w"]:
        """The convolved pictures."""
        if not being_traced():
            return super().forward(x)
        assert self.bias is not None
        patches = unfold_patches(x.movedim(-3, -1), *self.geometry)
        y = patches @ self.weight.movedim(1, -1).flatten(1).t() + self.bias
        return y.movedim(-1, -3)


def unfold_patches(
    x: Float[Tensor, "*batch height width channels"], size: int, stride: int, padding: int
) -> Float[Tensor, "*batch h w numbers"]:
    """The patches that a convolution looks at, each `size * size * channels` numbers.

    Differentiable to any order and under vmap: it is linear, and `fold_patches` is its transpose.

    Args:
        x: pictures, channels innermost.
        size: height and width of a patch.
        stride: pixels from one patch to the next.
        padding: zeros around the picture.
    """
    return _Unfold.apply(x, size, stride, padding)  # pyright: ignore[reportReturnType]


def fold_patches(
    patches: Float[Tensor, "*batch h w numbers"],
    size: int,
    stride: int,
    padding: int,
    shape: tuple[int, int],
) -> Float[Tensor, "*batch height width channels"]:
    """Pictures of some height and width in which each pixel is the sum over its patches."""
    return _Fold.apply(patches, size, stride, padding, shape)  # pyright: ignore[reportReturnType]


class _Unfold(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
        height, width = x.shape[-3:-1]
        rows, columns = ((n + 2 * padding - size) // stride for n in (height, width))
        last = [stride * rows + 1, stride * columns + 1]
        below, right = last[0] + size - 1 - height - padding, last[1] + size - 1 - width - padding
        padded = F.pad(x, (0, 0, padding, right, padding, below))
        taps = [
            padded[..., i : i + last[0] : stride, j : j + last[1] : stride, :]
            for i in range(size)
            for j in range(size)
        ]
        return torch.cat(taps, dim=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.options = inputs
        ctx.shape = tuple(x.shape[-3:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        size, stride, padding = ctx.options
        return fold_patches(grads[0], size, stride, padding, ctx.shape), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, *options: int) -> Any:
        assert in_dims[0] is not None
        return _Unfold.apply(x.movedim(in_dims[0], 0), *options), 0


class _Fold(torch.autograd.Function):
    @staticmethod
    def forward(
        patches: Tensor, size: int, stride: int, padding: int, shape: tuple[int, int]
    ) -> Tensor:
        taps = patches.unflatten(-1, (size, size, -1))
        # Taps that are a multiple of the stride apart meet on the same grid of pixels: sum each
        # grid first, then interleave the stride x stride grids.
        reach = -(-size // stride)
        grids = []
        for first_row in range(stride):
            for first_column in range(stride):
                shifted = [
                    F.pad(
                        taps[..., row, column, :],
                        (
                            *(0, 0),
                            *(column // stride, reach - 1 - column // stride),
                            *(row // stride, reach - 1 - row // stride),
                        ),
                    )
                    for row in range(first_row, size, stride)
                    for column in range(first_column, size, stride)
                ]
                grids.append(sum(shifted[1:], shifted[0]) if shifted else None)
        zero = torch.zeros_like(next(grid for grid in grids if grid is not None))
        stacked = torch.stack([zero if grid is None else grid for grid in grids], dim=-2)
        rows, columns = stacked.shape[-4:-2]
        pixels = stacked.unflatten(-2, (stride, stride)).movedim(-3, -4)
        pixels = pixels.flatten(-5, -4).flatten(-3, -2)
        below, right = (
            n + padding - stride * m for n, m in zip(shape, (rows, columns), strict=True)
        )
        return F.pad(pixels, (0, 0, -padding, right, -padding, below))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, *ctx.options, _ = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return unfold_patches(grads[0], *ctx.options), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], patches: Tensor, *options: Any) -> Any:
        assert in_dims[0] is not None
        return _Fold.apply(patches.movedim(in_dims[0], 0), *options), 0

"""Convolution that is one matrix product where the meta-gradient of many tasks is compiled.

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

from kshot.transforms import being_traced, being_vectorized

__all__ = [
    "Conv2d",
    "channels_innermost",
    "fold_patches",
    "multiply_patches",
    "unfold_patches",
]


def channels_innermost(net: nn.Module) -> None:
    """Lay out kernels, and so the maps that come of them, with channels innermost, in place.

    CPUs pool and normalize such maps faster; the results are the same but for rounding.
    """
    net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Conv2d(nn.Conv2d):
    """A convolution, as a product of patches and weights where many tasks are traced.

    Patches of large maps would not fit the caches: there it stays a convolution.

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
        if not (being_traced() and being_vectorized()):
            return super().forward(x)
        rows, columns = (patches_along(n, *self.geometry) for n in x.shape[-2:])
        if rows * columns * self.weight[0].numel() > _LARGEST_PATCHES:
            return super().forward(x)
        assert self.bias is not None
        patches = unfold_patches(x.movedim(-3, -1), *self.geometry)
        kernels = self.weight.movedim(1, -1).flatten(1)
        y = multiply_patches(patches.flatten(0, -2), kernels) + self.bias
        return y.unflatten(0, patches.shape[:-1]).movedim(-1, -3)


def multiply_patches(
    patches: Float[Tensor, "n numbers"], kernels: Float[Tensor, "out numbers"]
) -> Float[Tensor, "n out"]:
    """The product `patches @ kernels.t()`, whose derivatives are stored as it is.

    PyTorch's derivatives of a matrix product may come transposed, so that all that follows reads
    memory in strides. Here every derivative in patches, kernels and outputs, of any order, has the
    last dimension innermost.
    """
    return _Product.apply("outputs", patches, kernels)  # pyright: ignore[reportReturnType]


def patches_along(length: int, size: int, stride: int, padding: int) -> int:
    """How many patches there are along a side of a picture."""
    return (length + 2 * padding - size) // stride + 1


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


class _Product(torch.autograd.Function):
    """The derivative of <outputs, patches @ kernels.t()> in one of the three, given the others.

    A derivative of any of these is another of them. Under vmap, tasks that share their kernels are
    more patches of one product.
    """

    @staticmethod
    def forward(of: str, a: Tensor, b: Tensor) -> Tensor:
        if of == "outputs":
            return a @ b.mT
        return a @ b if of == "patches" else a.mT @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.of, *others = inputs
        ctx.save_for_backward(*others)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (a, b), (given,), product = ctx.saved_tensors, grads, _Product.apply
        if ctx.of == "outputs":
            return None, product("patches", given, b), product("kernels", given, a)
        if ctx.of == "patches":
            return None, product("outputs", given, b), product("kernels", a, given)
        return None, product("outputs", b, given), product("patches", a, given)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], of: str, a: Tensor, b: Tensor
    ) -> tuple[Any, int]:
        _, a_dim, b_dim = in_dims
        if of != "kernels" and a_dim is not None and b_dim is None:
            rows = a.movedim(a_dim, -3)
            product: Any = _Product.apply(of, rows.flatten(-3, -2), b)
            return product.unflatten(-2, rows.shape[-3:-1]), rows.dim() - 3
        size = info.batch_size
        a = a.expand(size, *a.shape) if a_dim is None else a.movedim(a_dim, 0)
        b = b.expand(size, *b.shape) if b_dim is None else b.movedim(b_dim, 0)
        return _Product.apply(of, a, b), 0


class _Unfold(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
        *batch, height, width, channels = x.shape
        rows, columns = (patches_along(n, size, stride, padding) for n in (height, width))
        padded = F.pad(x, (0, 0, padding, padding, padding, padding)).contiguous()
        # A view of what is stored: the padded pictures are computed once, not once for each tap.
        *steps, row, column, _ = padded.stride()
        patches = padded.as_strided(
            (*batch, rows, columns, size, size * channels),
            (*steps, stride * row, stride * column, row, 1),
        )
        return patches.reshape(*batch, rows, columns, size * size * channels)

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

        def grid(first_row: int, first_column: int) -> Tensor | None:
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
            return sum(shifted[1:], shifted[0]) if shifted else None

        grids = [[grid(row, column) for column in range(stride)] for row in range(stride)]
        assert grids[0][0] is not None
        zero = torch.zeros_like(grids[0][0])
        lines = [
            torch.stack([zero if each is None else each for each in line], dim=-2).flatten(-3, -2)
            for line in grids
        ]
        pixels = torch.stack(lines, dim=-3).flatten(-4, -3)
        height, width = shape
        pixels = pixels[..., padding : padding + height, padding : padding + width, :]
        below, right = (n - m for n, m in zip(shape, pixels.shape[-3:-1], strict=True))
        return F.pad(pixels, (0, 0, 0, right, 0, below)) if below or right else pixels

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


_LARGEST_PATCHES = 2**17
"""Numbers in the patches of one picture: half a megabyte."""

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kshot.backbones.convolution import Conv2d, fold_patches, unfold_patches

GEOMETRIES = [(3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 2, 2), (1, 2, 0), (2, 3, 1)]


@pytest.mark.parametrize(("size", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("shape", [(7, 8), (10, 9)])
def test_patches_times_weights_are_a_convolution(
    size: int, stride: int, padding: int, shape: tuple[int, int]
) -> None:
    layer = Conv2d(3, 4, size, stride=stride, padding=padding).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    traced = make_fx(layer)(x)
    assert not any("convolution" in str(node.target) for node in traced.graph.nodes)
    torch.testing.assert_close(traced(x), layer(x))
    torch.testing.assert_close(layer(x), nn.Conv2d.forward(layer, x))


@pytest.mark.parametrize(("size", "stride", "padding"), GEOMETRIES)
def test_folding_is_the_transpose_of_unfolding(size: int, stride: int, padding: int) -> None:
    x = torch.randn(2, 7, 10, 3, dtype=torch.float64)
    patches = unfold_patches(x, size, stride, padding)
    other = torch.randn_like(patches)
    folded = fold_patches(other, size, stride, padding, (7, 10))
    assert folded.shape == x.shape
    torch.testing.assert_close((patches * other).sum(), (x * folded).sum())


def test_both_can_be_differentiated_twice_and_vectorized() -> None:
    x = torch.randn(2, 5, 4, 1, dtype=torch.float64, requires_grad=True)

    def unfold(x: Tensor) -> Tensor:
        return unfold_patches(x, 3, 2, 1)

    assert torch.autograd.gradcheck(unfold, x)
    assert torch.autograd.gradgradcheck(unfold, x)
    torch.testing.assert_close(torch.func.vmap(unfold)(x), unfold(x))
    torch.testing.assert_close(torch.func.vmap(unfold, in_dims=-1)(x[..., None])[0], unfold(x))

    def energy(x: Tensor) -> Tensor:
        return unfold(x).pow(3).sum()

    gradient = torch.func.grad(lambda x: torch.func.grad(energy)(x).square().sum())
    torch.testing.assert_close(
        torch.func.vmap(gradient)(x), torch.stack([gradient(each) for each in x])
    )

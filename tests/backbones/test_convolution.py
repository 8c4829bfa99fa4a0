from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from kshot.backbones.convolution import Conv2d, fold_patches, multiply_patches, unfold_patches

GEOMETRIES = [(3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 2, 2), (1, 2, 0), (2, 3, 1)]


@pytest.mark.parametrize(("size", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("shape", [(7, 8), (10, 9)])
def test_patches_times_weights_are_a_convolution(
    size: int, stride: int, padding: int, shape: tuple[int, int]
) -> None:
    layer = Conv2d(3, 4, size, stride=stride, padding=padding).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    traced = make_fx(torch.func.vmap(layer))(x[None])
    assert not has_convolution(traced)
    torch.testing.assert_close(traced(x[None])[0], layer(x))
    torch.testing.assert_close(layer(x), nn.Conv2d.forward(layer, x))


def has_convolution(graph: GraphModule) -> bool:
    return any("convolution" in str(node.target) for node in graph.graph.nodes)


def test_one_task_and_large_maps_stay_convolutions() -> None:
    layer = Conv2d(16, 4, 3, padding=1)
    small, large = torch.randn(1, 2, 16, 28, 28), torch.randn(1, 2, 16, 56, 56)
    assert has_convolution(make_fx(layer)(small[0]))
    assert not has_convolution(make_fx(torch.func.vmap(layer))(small))
    assert has_convolution(make_fx(torch.func.vmap(layer))(large))


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


def test_derivatives_of_the_product_are_exact_to_the_second() -> None:
    patches = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(multiply_patches, (patches, kernels))
    assert torch.autograd.gradgradcheck(multiply_patches, (patches, kernels))


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 2)])
@pytest.mark.parametrize("twice", [False, True])
def test_the_product_of_tasks_is_that_of_each(in_dims: tuple[int | None, ...], twice: bool) -> None:
    """Also where tasks share their kernels or patches, and within another vmap."""
    tensors = [torch.randn(3, 3, 3, dtype=torch.float64) for _ in in_dims]
    single = [
        tensor[0] if dim is None else tensor for tensor, dim in zip(tensors, in_dims, strict=True)
    ]

    def energy(patches: Tensor, kernels: Tensor) -> Tensor:
        return multiply_patches(patches, kernels).pow(3).sum()

    def inner_step(patches: Tensor, kernels: Tensor) -> Tensor:
        return energy(patches, kernels - torch.func.grad(energy, 1)(patches, kernels))

    def by_matrix_product(patches: Tensor, kernels: Tensor) -> Tensor:
        gradient = 3 * (patches @ kernels.mT).square().mT @ patches
        return (patches @ (kernels - gradient).mT).pow(3).sum()

    def meta_gradient(loss: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        def tasks(*tensors: Tensor) -> Tensor:
            return torch.func.vmap(loss, in_dims=in_dims)(*tensors).sum()

        return torch.func.grad(tasks, (0, 1))(*tensors)

    found, expected = (partial(meta_gradient, loss) for loss in (inner_step, by_matrix_product))
    if twice:
        single = [torch.stack([tensor, 2 * tensor]) for tensor in single]
        found, expected = torch.func.vmap(found), torch.func.vmap(expected)
    torch.testing.assert_close(found(*single), expected(*single))


def test_every_derivative_of_a_compiled_gradient_has_its_channels_innermost() -> None:
    """Transposed results would be read in strides by all that follows."""
    layer = Conv2d(2, 8, 3, stride=2, padding=1)

    def loss(weight: Tensor, pictures: Tensor) -> Tensor:
        def one_task(pictures: Tensor) -> Tensor:
            def support_loss(weight: Tensor) -> Tensor:
                return torch.func.functional_call(layer, {"weight": weight}, pictures).pow(3).sum()

            moved = weight - torch.func.grad(support_loss)(weight)
            return torch.func.functional_call(layer, {"weight": moved}, pictures).pow(3).sum()

        return torch.func.vmap(one_task)(pictures).sum()

    graph = make_fx(torch.func.grad(loss))(layer.weight.detach(), torch.randn(3, 2, 2, 9, 9))
    products = [node.meta["val"].shape for node in graph.graph.nodes if "mm" in str(node.target)]
    assert len(products) > 4
    assert all(shape[-1] in (8, 18) for shape in products)  # outputs, or numbers of a patch

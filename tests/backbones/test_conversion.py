"""A user's layers, made exact: with the same outputs, and nothing lost."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from kshot.backbones.conversion import SplitAffine, exact_network, split_affine
from kshot.backbones.normalization import BatchNorm, has_batch_norm, rows_statistics


def conv_layers() -> dict[str, Callable[[], nn.Module]]:
    return {
        "BatchNorm1d": lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3)),
        "BatchNorm2d": lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3, momentum=0.2)),
        "BatchNorm3d": lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, eps=1e-2)),
        "LayerNorm": lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.LayerNorm([3, 3])),
        "LayerNorm without bias": lambda: nn.Sequential(
            nn.Conv1d(2, 3, 2), nn.LayerNorm(3, bias=False)
        ),
        "InstanceNorm1d": lambda: nn.Sequential(
            nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, affine=True)
        ),
        "InstanceNorm2d": lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.InstanceNorm2d(3, affine=True)
        ),
        "InstanceNorm3d": lambda: nn.Sequential(
            nn.Conv3d(2, 3, 2), nn.InstanceNorm3d(3, affine=True)
        ),
        "GroupNorm": lambda: nn.Sequential(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4)),
        "InstanceNorm2d without affine": lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.InstanceNorm2d(3)
        ),
    }


def for_layer(name: str, tasks: int = 6) -> Tensor:
    space = 3 if "3d" in name else 2 if ("2d" in name or "Group" in name) else 1
    return torch.randn(tasks, 2, *(4,) * space, dtype=torch.float64)


@pytest.mark.parametrize("name", conv_layers())
@pytest.mark.parametrize("training", [True, False])
def test_split_affine_keeps_outputs_and_parameters(trained, name: str, training: bool):
    fused = trained(conv_layers()[name]()).train(training)
    parameters = dict(fused.named_parameters())
    x = for_layer(name)
    expected = copy.deepcopy(fused)(x)
    split = split_affine(fused)
    assert split is fused, "the network is changed in place"
    torch.testing.assert_close(split(x), expected, rtol=1e-12, atol=1e-12)
    assert all(value is parameters[key] for key, value in split.named_parameters())
    assert len(list(split.parameters())) == len(parameters)
    assert all(module.training == training for module in split.modules())
    assert split_affine(split) is split
    pickle.loads(pickle.dumps(split))


def test_a_bare_layer_is_replaced():
    assert isinstance(split_affine(nn.BatchNorm2d(3)), BatchNorm)
    assert isinstance(split_affine(nn.LayerNorm(3)), SplitAffine)
    assert isinstance(split_affine(nn.GroupNorm(1, 3)), nn.GroupNorm)
    assert not has_batch_norm(split_affine(nn.LayerNorm(3)))


def test_a_layer_used_in_two_places_is_replaced_in_both():
    norm = nn.BatchNorm2d(3)
    inner = nn.Sequential(norm, nn.ReLU())
    net = split_affine(nn.Sequential(norm, nn.Conv2d(3, 3, 1), norm, inner, inner))
    assert isinstance(net, nn.Sequential)
    assert isinstance(net[0], BatchNorm) and net[0] is net[2] is inner[0]
    assert net[3] is net[4] is inner


def test_what_cannot_be_converted_says_so():
    for layer in (
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
    ):
        with pytest.raises(ValueError, match="running averages"):
            split_affine(nn.Sequential(layer))


class BatchNormAndReLU(nn.BatchNorm2d):
    """As timm has it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class ChannelsLastLayerNorm(nn.LayerNorm):
    """As torchvision has it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class RenamedBatchNorm(nn.BatchNorm2d):
    pass


def test_what_a_layer_computes_besides_is_not_lost(trained):
    for layer in (BatchNormAndReLU(3), nn.SyncBatchNorm(3)):
        with pytest.raises(ValueError, match="computes more or otherwise"):
            split_affine(nn.Sequential(layer))
    net = trained(nn.Sequential(ChannelsLastLayerNorm(3)))
    x = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    expected = net(x)
    assert torch.equal(split_affine(net)(x), expected)
    with pytest.raises(ValueError, match="computes its own way"):
        exact_network(net)
    assert isinstance(split_affine(RenamedBatchNorm(3)), BatchNorm)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_normalization_is_made_exact(dim: int | None):
    net = weight_norm(nn.Linear(3, 2).double(), dim=dim)
    x = torch.randn(4, 3, dtype=torch.float64)
    expected, weight = net(x), net.weight.detach().clone()
    with pytest.warns(UserWarning, match="WeightNorm"):
        exact_network(net)
    torch.testing.assert_close(net(x), expected)
    norms, direction = (net.parametrizations.weight[0], 1.5 * weight)  # pyright: ignore
    g, v = norms.right_inverse(direction)
    torch.testing.assert_close(norms(g, v), direction)
    g = g.detach().requires_grad_()
    v = v.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(norms, (g, v))


def test_weight_normalization_of_old_is_refused():
    with pytest.warns(FutureWarning):
        net = nn.Sequential(old_weight_norm(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"parametrizations\.weight_norm"):
        exact_network(net)


def test_torchs_own_weight_normalization_is_wrong():
    """When this fails, PyTorch has mended it, and `ExactWeightNorm` can go."""
    g, v = torch.ones(2, 1).double().requires_grad_(), torch.randn(2, 3).double().requires_grad_()
    with pytest.raises(RuntimeError, match="mismatch"):
        torch.autograd.gradgradcheck(lambda g, v: torch._weight_norm(v, g, 0), (g, v))


def test_a_fused_network_is_converted_with_a_warning_that_says_why():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.LayerNorm([3, 2, 2]))
    with pytest.warns(UserWarning, match="BatchNorm2d, LayerNorm.*second-order.*docs/vmap.md"):
        exact_network(net)
    exact_network(net)  # nothing is left to warn of


def meta_gradient_error(net: nn.Module, x: Tensor) -> float:
    """How far vmap is from a loop over tasks, through two inner steps."""
    params = dict(net.named_parameters())
    direction = torch.randn_like(net(x[0]))

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return (functional_call(net, params, (x,)) * direction).tanh().square().sum()

    def adapted_loss(x: Tensor) -> Tensor:
        fast = params
        for _ in range(2):
            grads = grad(loss)(fast, x)
            fast = {key: value - 0.1 * grads[key] for key, value in fast.items()}
        return loss(fast, x.flip(0))

    looped, mapped = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(params.values()))])
        for loss in (
            torch.stack([adapted_loss(task) for task in x]).sum(),
            vmap(adapted_loss)(x).sum(),
        )
    )
    return ((looped - mapped).norm() / looped.norm()).item()


@pytest.mark.parametrize("rows", [None, torch.tensor([True] * 4 + [False] * 2)])
@pytest.mark.parametrize("name", conv_layers())
def test_second_derivatives_are_exact_under_vmap(trained, name: str, rows: Tensor | None):
    net = split_affine(trained(conv_layers()[name]()))
    with rows_statistics(rows):
        assert meta_gradient_error(net, torch.stack([for_layer(name) for _ in range(3)])) < 1e-10


@pytest.mark.parametrize("name", ["LayerNorm", "InstanceNorm2d"])
def test_fused_layers_are_wrong_under_vmap(trained, name: str):
    """When this fails, PyTorch has mended the trap, and docs/vmap.md can say so."""
    net = trained(conv_layers()[name]())
    assert meta_gradient_error(net, torch.stack([for_layer(name) for _ in range(3)])) > 1e-5


def test_a_transformer_layer_keeps_its_outputs():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(split_affine(layer)(x), expected)

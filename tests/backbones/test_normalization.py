"""Normalization: exact under vmap, with statistics from where a policy says."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from kshot.backbones.normalization import (
    BatchNorm,
    SplitAffine,
    apply_to_query,
    apply_to_support,
    exact_network,
    has_batch_norm,
    has_running_averages,
    policy_for,
    rows_statistics,
    split_affine,
    stored_statistics,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def trained(norm: nn.Module) -> nn.Module:
    """A layer with weights and running averages unlike those it starts with."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    return norm.double()


def inputs(*space: int, n: int = 6, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, *space, dtype=torch.float64) * 2 + 1


FUSED = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@pytest.mark.parametrize("dimensions", [0, 1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_pytorchs(dimensions: int, training: bool):
    theirs = trained(FUSED[dimensions](3, momentum=0.3, eps=1e-3))
    ours = BatchNorm(3, momentum=0.3, eps=1e-3).double()
    state = {k: v for k, v in theirs.state_dict().items() if k != "num_batches_tracked"}
    ours.load_state_dict(state)
    theirs.train(training)
    ours.train(training)
    for _ in range(2):
        x = inputs(*[4, 5, 2][:dimensions])
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-12, atol=1e-12)


def standardized(x: Tensor, rows: Tensor, norm: BatchNorm) -> Tensor:
    """Normalization by the statistics of some rows, channel by channel."""
    columns = []
    for channel in range(x.shape[1]):
        values = x[rows][:, channel]
        mean, variance = values.mean(), values.var(unbiased=False)
        columns.append((x[:, channel] - mean) / (variance + norm.eps) ** 0.5)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return torch.stack(columns, 1) * norm.weight.view(shape) + norm.bias.view(shape)


@pytest.mark.parametrize("space", [(), (4,), (3, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_statistics_come_from_where_the_code_says(space: tuple[int, ...], training: bool):
    norm = trained(BatchNorm(3)).train(training)
    assert isinstance(norm, BatchNorm)
    before = copy.deepcopy(norm.state_dict())
    x = inputs(*space)
    rows = torch.tensor([True, True, False, True, False, True])
    all_rows = torch.ones(6, dtype=torch.bool)
    with rows_statistics(rows):
        torch.testing.assert_close(norm(x), standardized(x, rows, norm))
    with rows_statistics():
        torch.testing.assert_close(norm(x), standardized(x, all_rows, norm))
    with rows_statistics(all_rows):
        torch.testing.assert_close(norm(x), standardized(x, all_rows, norm))
    with stored_statistics():
        stored = norm(x)
    assert norm.state_dict().keys() == before.keys()
    assert all(torch.equal(norm.state_dict()[name], before[name]) for name in before)
    torch.testing.assert_close(stored, norm.eval()(x))


def test_contexts_nest_and_end():
    norm = trained(BatchNorm(3)).eval()
    x = inputs()
    expected = norm(x)
    with rows_statistics():
        inner = norm(x)
        with stored_statistics():
            assert torch.equal(norm(x), expected)
        assert torch.equal(norm(x), inner)
    assert torch.equal(norm(x), expected)
    with pytest.raises(KeyError), rows_statistics():
        raise KeyError
    assert torch.equal(norm(x), expected)


def test_what_masked_rows_hold_does_not_matter():
    norm = trained(BatchNorm(3))
    x, mask = inputs(4), torch.tensor([True, True, True, False, False, True])
    garbage = x.clone()
    garbage[~mask] = 1e6
    with rows_statistics(mask):
        torch.testing.assert_close(norm(garbage)[mask], norm(x)[mask])
    with rows_statistics():
        torch.testing.assert_close(norm(x[mask]), standardized(x, mask, norm)[mask])


def test_no_row_at_all_is_finite():
    norm = trained(BatchNorm(3))
    x = inputs(4).requires_grad_()
    with rows_statistics(torch.zeros(6, dtype=torch.bool)):
        y = norm(x)
    y.sum().backward()
    assert x.grad is not None and y.isfinite().all() and x.grad.isfinite().all()


def linear_net() -> tuple[nn.Module, Tensor, Tensor]:
    net = nn.Sequential(nn.Linear(4, 3), trained(BatchNorm(3)), nn.Tanh(), nn.Linear(3, 2)).double()
    return net, torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)


def test_policies_of_the_support_set():
    net, support, _ = linear_net()
    mask = torch.tensor([True, True, True, False, True])
    running = apply_to_support(net, "running", support, None)
    torch.testing.assert_close(running, copy.deepcopy(net).eval()(support))
    for policy in ("batch", "support", "support_and_query"):
        with rows_statistics():
            alone = net(support[mask])
        torch.testing.assert_close(apply_to_support(net, policy, support, mask)[mask], alone)


def test_policies_of_the_query():
    """Each policy against the definition in docs/glossary.md, spelled out."""
    net, support, query = linear_net()
    mask = torch.tensor([True, True, True, False, True])

    def under(policy: str, x: Tensor = query) -> Tensor:
        return apply_to_query(net, policy, x, None, support, mask)  # pyright: ignore

    with rows_statistics():
        torch.testing.assert_close(under("batch"), net(query))
        for one, x in enumerate(query):
            both = net(torch.cat([support[mask], x[None]]))[-1]
            torch.testing.assert_close(under("support_and_query")[one], both)
    real = torch.cat([torch.ones(4), torch.zeros(3)]).bool()
    with rows_statistics(real):
        torch.testing.assert_close(under("support"), net(torch.cat([support[mask], query]))[4:])
    torch.testing.assert_close(under("running"), copy.deepcopy(net).eval()(query))


@pytest.mark.parametrize("policy", ["running", "batch", "support", "support_and_query"])
def test_only_batch_is_transductive(policy: str):
    net, support, query = linear_net()

    def first(x: Tensor) -> Tensor:
        return apply_to_query(net, policy, x, None, support, None)[0]  # pyright: ignore

    other = torch.cat([query[:1], query[1:] * 3 + 1])
    same = torch.allclose(first(query), first(other), rtol=1e-10)
    assert same == (policy != "batch")


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
def test_split_affine_keeps_outputs_and_parameters(name: str, training: bool):
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
def test_second_derivatives_are_exact_under_vmap(name: str, rows: Tensor | None):
    net = split_affine(trained(conv_layers()[name]()))
    with rows_statistics(rows):
        assert meta_gradient_error(net, torch.stack([for_layer(name) for _ in range(3)])) < 1e-10


@pytest.mark.parametrize("name", ["LayerNorm", "InstanceNorm2d"])
def test_fused_layers_are_wrong_under_vmap(name: str):
    """When this fails, PyTorch has mended the trap, and docs/vmap.md can say so."""
    net = trained(conv_layers()[name]())
    assert meta_gradient_error(net, torch.stack([for_layer(name) for _ in range(3)])) > 1e-5


def test_the_weights_of_torchs_own_layer_load():
    theirs = trained(nn.BatchNorm1d(3))
    ours = nn.Sequential(BatchNorm(3)).double()
    ours.load_state_dict(nn.Sequential(theirs).state_dict())
    x = inputs()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_none_is_no_policy_for_a_network_with_batch_norm():
    assert policy_for(nn.Linear(2, 2), "batch") == "none"
    assert policy_for(BatchNorm(2), "support") == "support"
    with pytest.raises(ValueError, match="for networks without BatchNorm"):
        policy_for(BatchNorm(2), "none")


def test_running_averages_are_there_once_data_were_seen():
    net = nn.Sequential(BatchNorm(3), nn.ReLU(), BatchNorm(3)).double()
    assert not has_running_averages(net)
    net(inputs())
    assert has_running_averages(net)
    assert has_running_averages(nn.Linear(2, 2)), "nothing asks for any"


def test_a_transformer_layer_keeps_its_outputs():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(split_affine(layer)(x), expected)

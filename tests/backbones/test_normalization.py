"""Normalization: exact under vmap, with statistics from where a policy says."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.normalization import (
    BatchNorm,
    apply_to_query,
    apply_to_support,
    has_running_averages,
    policy_for,
    rows_statistics,
    stored_statistics,
)


def inputs(*space: int, n: int = 6, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, *space, dtype=torch.float64) * 2 + 1


FUSED = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@pytest.mark.parametrize("dimensions", [0, 1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_pytorchs(trained, dimensions: int, training: bool):
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
def test_statistics_come_from_where_the_code_says(trained, space: tuple[int, ...], training: bool):
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


def test_contexts_nest_and_end(trained):
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


def test_what_masked_rows_hold_does_not_matter(trained):
    norm = trained(BatchNorm(3))
    x, mask = inputs(4), torch.tensor([True, True, True, False, False, True])
    garbage = x.clone()
    garbage[~mask] = 1e6
    with rows_statistics(mask):
        torch.testing.assert_close(norm(garbage)[mask], norm(x)[mask])
    with rows_statistics():
        torch.testing.assert_close(norm(x[mask]), standardized(x, mask, norm)[mask])


def test_no_row_at_all_is_finite(trained):
    norm = trained(BatchNorm(3))
    x = inputs(4).requires_grad_()
    with rows_statistics(torch.zeros(6, dtype=torch.bool)):
        y = norm(x)
    y.sum().backward()
    assert x.grad is not None and y.isfinite().all() and x.grad.isfinite().all()


@pytest.fixture
def linear_net(trained) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, support inputs and query inputs."""
    net = nn.Sequential(nn.Linear(4, 3), trained(BatchNorm(3)), nn.Tanh(), nn.Linear(3, 2)).double()
    return net, torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)


def test_policies_of_the_support_set(linear_net):
    net, support, _ = linear_net
    mask = torch.tensor([True, True, True, False, True])
    running = apply_to_support(net, "running", support, None)
    torch.testing.assert_close(running, copy.deepcopy(net).eval()(support))
    for policy in ("batch", "support", "support_and_query"):
        with rows_statistics():
            alone = net(support[mask])
        torch.testing.assert_close(apply_to_support(net, policy, support, mask)[mask], alone)


def test_policies_of_the_query(linear_net):
    """Each policy against the definition in docs/glossary.md, spelled out."""
    net, support, query = linear_net
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
def test_only_batch_is_transductive(linear_net, policy: str):
    net, support, query = linear_net

    def first(x: Tensor) -> Tensor:
        return apply_to_query(net, policy, x, None, support, None)[0]  # pyright: ignore

    other = torch.cat([query[:1], query[1:] * 3 + 1])
    same = torch.allclose(first(query), first(other), rtol=1e-10)
    assert same == (policy != "batch")


def test_the_weights_of_torchs_own_layer_load(trained):
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

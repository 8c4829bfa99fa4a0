"""MAML against a slow loop on PyTorch's own layers, and what must not go wrong in it."""

import copy
import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.backbones.mlp import MLP
from kshot.backbones.normalization import BatchNorm
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.optimization.fast_weights import adapted_params
from kshot.learners.optimization.maml import MAML
from kshot.losses import mean_squared_error
from kshot.testing import meta_gradient_error

LABELS = torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2], [2, 1, 0, 0, 1, 2]])


def draw(shape: tuple[int, ...], seed: int, way: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(3, 6, *shape, generator=generator, dtype=torch.float64)
    return Examples(inputs, one_hot(LABELS, way, torch.float64))


@pytest.fixture
def vectors() -> Episodes:
    return Episodes(draw((4,), 0), draw((4,), 1))


@pytest.fixture
def pictures() -> Episodes:
    return Episodes(draw((1, 6, 6), 0), draw((1, 6, 6), 1))


def curved(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs)).double()


def slow_maml(
    net: nn.Module, episodes: Episodes, lr: float, steps: int, first_order: bool
) -> tuple[Tensor, list[Tensor]]:
    """Query loss and meta-gradient by the loop of the paper, one task after the other."""
    support, query, _ = episodes
    assert isinstance(support.inputs, Tensor) and isinstance(query.inputs, Tensor)
    start = dict(net.named_parameters())
    losses = []
    for task in range(len(support.targets)):
        params = start
        for _ in range(steps):
            outputs = torch.func.functional_call(net, params, (support.inputs[task],))
            loss = F.cross_entropy(outputs, support.targets[task])
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            grads = [gradient.detach() if first_order else gradient for gradient in grads]
            params = {
                name: value - lr * gradient
                for (name, value), gradient in zip(params.items(), grads, strict=True)
            }
        outputs = torch.func.functional_call(net, params, (query.inputs[task],))
        losses.append(F.cross_entropy(outputs, query.targets[task]))
    loss = torch.stack(losses).mean()
    return loss, list(torch.autograd.grad(loss, list(start.values())))


def gradient(learner: MAML, episodes: Episodes) -> tuple[Tensor, list[Tensor]]:
    loss = learner(episodes)
    return loss, list(torch.autograd.grad(loss, list(learner.net.parameters())))


def assert_same_gradient(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]):
    torch.testing.assert_close(ours[0], theirs[0])
    scale = max(g.abs().max().item() for g in theirs[1])
    for one, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_it_equals_the_slow_loop(vectors: Episodes, strategy, first_order: bool, steps: int):
    net = curved()
    learner = MAML(
        net, inner_lr=0.5, num_inner_steps=steps, first_order=first_order, strategy=strategy
    )
    expected = slow_maml(net, vectors, 0.5, steps, first_order)
    assert_same_gradient(gradient(learner, vectors), expected)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_on_batch_norm_it_equals_the_slow_loop_on_pytorchs_layer(pictures: Episodes, strategy):
    """The paper's network: statistics of each set, in a loop where the fused layer is exact."""
    torch.manual_seed(0)
    fused = nn.BatchNorm2d(3, track_running_stats=False)
    theirs = nn.Sequential(
        nn.Conv2d(1, 3, 3), fused, nn.Softplus(), nn.Flatten(), nn.Linear(48, 3)
    ).double()
    nn.init.uniform_(fused.weight, 0.5, 1.5)
    ours = copy.deepcopy(theirs)
    ours[1] = BatchNorm(3).double()
    ours[1].load_state_dict({**BatchNorm(3).state_dict(), **theirs[1].state_dict()})
    learner = MAML(ours, inner_lr=0.4, num_inner_steps=2, batch_norm="batch", strategy=strategy)
    assert_same_gradient(gradient(learner, pictures), slow_maml(theirs, pictures, 0.4, 2, False))


def test_chunks_of_tasks_change_nothing(vectors: Episodes):
    expected = gradient(MAML(curved()), vectors)
    assert_same_gradient(gradient(MAML(curved(), chunk_size=2), vectors), expected)


def test_torch_func_may_take_the_outer_gradient(vectors: Episodes):
    learner = MAML(curved(), strategy="auto")
    params = {name: value.detach() for name, value in learner.named_parameters()}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(learner, params, (vectors,))

    grads, value = torch.func.grad_and_value(loss)(params)
    expected = gradient(MAML(curved()), vectors)
    assert_same_gradient((value, list(grads.values())), expected)


@pytest.mark.parametrize("first_order", [False, True])
def test_with_no_inner_steps_it_is_joint_training(vectors: Episodes, first_order: bool):
    net = curved()
    learner = MAML(net, num_inner_steps=0, first_order=first_order)
    assert isinstance(vectors.query.inputs, Tensor)
    loss = F.cross_entropy(net(vectors.query.inputs).flatten(0, 1), LABELS.flatten())
    expected = loss, list(torch.autograd.grad(loss, list(net.parameters())))
    assert_same_gradient(gradient(learner, vectors), expected)


def test_as_the_rate_falls_maml_becomes_fomaml_becomes_joint_training(vectors: Episodes):
    def distance(**options) -> float:
        exact = gradient(MAML(curved(), **options), vectors)[1]
        other = gradient(MAML(curved(), first_order=True, **options), vectors)[1]
        return sum((a - b).norm().item() for a, b in zip(exact, other, strict=True))

    large, small = distance(inner_lr=1e-1), distance(inner_lr=1e-3)
    assert large > 1e-3, "on a curved network second order must matter"
    assert small == pytest.approx(large / 100, rel=0.1)
    assert distance(inner_lr=0.0) == 0


def test_second_order_is_second_order_and_first_order_is_not(vectors: Episodes):
    assert meta_gradient_error(MAML(curved()), vectors) < 1e-7
    assert meta_gradient_error(MAML(curved(), first_order=True), vectors) > 1e-2


def test_evaluation_may_take_other_steps(vectors: Episodes):
    learner = MAML(curved(), num_inner_steps=1, num_test_steps=3)
    expected = MAML(curved(), num_inner_steps=3)
    state, other = (each.eval().adapt(vectors.support) for each in (learner, expected))
    for name, value in state.params.items():
        torch.testing.assert_close(value, other.params[name])
    learner.train()
    assert not torch.allclose(
        learner.adapt(vectors.support).params["0.weight"], state.params["0.weight"]
    )
    assert MAML(curved(), num_inner_steps=2).num_test_steps == 2


def test_a_smaller_way_uses_the_first_columns_of_the_head(vectors: Episodes):
    learner, narrow = MAML(curved(7)), MAML(curved(3))
    wide = learner.net.state_dict()
    narrow.net.load_state_dict({n: v[:3] if n.startswith("2.") else v for n, v in wide.items()})
    loss, gradients = gradient(learner, vectors)
    expected_loss, expected = gradient(narrow, vectors)
    torch.testing.assert_close(loss, expected_loss)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours[: len(theirs)], theirs)
        assert not ours[len(theirs) :].any()


def test_a_larger_way_says_what_to_do():
    learner = MAML(curved(2))
    for episodes in (Episodes(draw((4,), 0), draw((4,), 1)),):
        with pytest.raises(ValueError, match=r"\(6, 2\).*at least 3.*3 classes.*more outputs"):
            learner(episodes)
    with pytest.raises(ValueError, match=r"expected \(examples, at least 3\)"):
        MAML(nn.Unflatten(1, (2, 2)), num_inner_steps=0)(Episodes(draw((4,), 0), draw((4,), 1)))


def test_a_subset_of_parameters_by_name_is_adapted(vectors: Episodes):
    net = curved()
    learner = MAML(net, num_inner_steps=2, adapted=("2.*",))
    state = learner.adapt(vectors.support)
    assert set(state.params) == {"2.weight", "2.bias"}
    # What does not move within a task is meta-learned all the same, and exactly.
    assert all(slope.any() for slope in gradient(learner, vectors)[1])
    assert meta_gradient_error(learner, vectors) < 1e-7
    with pytest.raises(ValueError, match=r"'3.*' names no parameter.*it has 0.weight, 0.bias"):
        MAML(net, adapted=("2.weight", "3.*"))
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to adapt"):
        MAML(net)


@pytest.mark.parametrize("batch_norm", ["batch", "running", "support"])
@pytest.mark.parametrize("first_order", [False, True])
def test_what_no_step_moves_is_computed_once(
    pictures: Episodes, batch_norm: BatchNormPolicy, first_order: bool
):
    torch.manual_seed(0)
    net = WithHead(Conv4((1, 8, 8), hidden=3, strided=True), 5).double()
    make = partial(MAML, net, adapted=("head.*",), num_inner_steps=3)
    make = partial(make, batch_norm=batch_norm, first_order=first_order)
    learner, each_step = make(strategy="loop"), make(gradient_checkpointing=True)
    calls: list[torch.Size] = []
    net.encoder.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape))
    loss = learner(pictures)
    assert len(calls) == 2 * len(pictures.support.targets)  # support and query of each task
    torch.testing.assert_close(loss, each_step(pictures))
    grads = [
        torch.autograd.grad(learner(pictures), list(learner.parameters()))
        for learner in (learner, each_step)
    ]
    torch.testing.assert_close(*grads)


def test_frozen_parameters_stay(vectors: Episodes):
    net = curved()
    assert isinstance(net, nn.Sequential)
    net[0].requires_grad_(False)
    learner = MAML(net, num_inner_steps=2)
    assert set(learner.adapt(vectors.support).params) == {"2.weight", "2.bias"}
    learner(vectors).backward()
    assert net[0].weight.grad is None and net[2].weight.grad is not None
    # The same as training the head on fixed features.
    features = nn.Sequential(net[0], net[1])
    assert isinstance(vectors.support.inputs, Tensor) and isinstance(vectors.query.inputs, Tensor)
    fixed = Episodes(
        vectors.support._replace(inputs=features(vectors.support.inputs).detach()),
        vectors.query._replace(inputs=features(vectors.query.inputs).detach()),
    )
    loss, gradients = gradient(MAML(nn.Sequential(net[2]), num_inner_steps=2), fixed)
    torch.testing.assert_close(learner(vectors), loss)
    torch.testing.assert_close(net[2].weight.grad, gradients[0])


class Attention(nn.Module):
    """One attention layer over the two halves of an input, then a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(2, 6), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.unflatten(-1, (2, 2))).unsqueeze(1).chunk(3, dim=-1)
        return self.head(F.scaled_dot_product_attention(q, k, v).flatten(1))


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("first_order", [False, True])
def test_attention_works_in_second_order(vectors: Episodes, strategy, first_order: bool):
    torch.manual_seed(0)
    net = Attention().double()
    learner = MAML(net, num_inner_steps=2, first_order=first_order, strategy=strategy)
    with sdpa_kernel(SDPBackend.MATH):
        expected = slow_maml(net, vectors, 0.4, 2, first_order)
    assert_same_gradient(gradient(learner, vectors), expected)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("policy", ["batch", "support", "support_and_query", "running"])
def test_a_fused_network_is_converted_with_a_warning_and_then_exact(
    pictures: Episodes, strategy, policy
):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Softplus(),
        nn.LayerNorm([3, 4, 4]),
        nn.Flatten(),
        nn.Linear(48, 3),
    )
    with pytest.warns(UserWarning, match="BatchNorm2d, LayerNorm.*vmap"):
        learner = MAML(net, num_inner_steps=2, strategy=strategy, batch_norm=policy)
    assert learner.net is net and learner.batch_norm == policy
    assert meta_gradient_error(learner, pictures) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MAML(net)


def test_without_conversion_the_meta_gradient_is_wrong(pictures: Episodes):
    """The trap that conversion keeps users out of; the loss itself is right."""
    torch.manual_seed(0)
    fused = nn.BatchNorm2d(3, track_running_stats=False)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), fused, nn.Softplus(), nn.Flatten(), nn.Linear(48, 3))
    learner = MAML(nn.Identity(), inner_lr=0.4, num_inner_steps=2, strategy="vmap").double()
    learner.net = net.double()
    learner.adapted = tuple(adapted_params(net))
    loss, _ = slow_maml(net, pictures, 0.4, 2, False)
    torch.testing.assert_close(learner(pictures), loss)
    assert meta_gradient_error(learner, pictures) > 1e-3
    learner.strategy = "loop"
    assert meta_gradient_error(learner, pictures) < 1e-7


def test_policies_are_of_networks_with_batch_norm():
    assert MAML(curved()).batch_norm == "none" and not MAML(curved()).transductive
    net = nn.Sequential(nn.Linear(4, 3), BatchNorm(3))
    assert MAML(net).transductive and not MAML(net, batch_norm="support").transductive


def test_the_support_set_is_kept_only_for_policies_that_read_it(vectors: Episodes):
    for policy in ("running", "batch", "support", "support_and_query"):
        net = nn.Sequential(nn.Linear(4, 3), BatchNorm(3)).double()
        state = MAML(net, batch_norm=policy).adapt(vectors.support)
        assert (state.support_inputs is not None) == policy.startswith("support")
    assert MAML(curved(), batch_norm="support").adapt(vectors.support).support_inputs is None


def test_inputs_may_be_a_dictionary(vectors: Episodes):
    class Sum(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return self.net(inputs["x"] + inputs["shift"])

    def split(examples: Examples) -> Examples:
        x = examples.inputs
        assert isinstance(x, Tensor)
        return examples._replace(inputs={"x": x - 1, "shift": torch.ones_like(x)})

    episodes = Episodes(split(vectors.support), split(vectors.query))
    for strategy in ("vmap", "loop"):
        learner = MAML(Sum(curved()), strategy=strategy)
        assert_same_gradient(gradient(learner, episodes), gradient(MAML(curved()), vectors))


def test_regression_learns_sines_it_has_not_seen():
    """Not the published experiment, but learning to learn all the same: adaptation helps."""
    torch.manual_seed(0)
    learner = MAML(
        WithHead(MLP((1,), widths=(20, 20), activation="tanh"), 1),
        inner_lr=0.05,
        loss=mean_squared_error,
    )
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)

    def waves(tasks: int) -> Episodes:
        x = torch.rand(tasks, 20, 1) * 6 - 3
        y = (torch.rand(tasks, 1, 1) * 3 + 1) * torch.sin(x)
        return Episodes(Examples(x[:, :10], y[:, :10]), Examples(x[:, 10:], y[:, 10:]))

    for _ in range(150):
        optimizer.zero_grad()
        learner(waves(8)).backward()
        optimizer.step()
    unseen = waves(100)
    with torch.no_grad():
        adapted = learner(unseen)
        learner.num_inner_steps = 0
        unadapted = learner(unseen)
    assert adapted < 0.5 * unadapted


def test_no_support_at_all_leaves_the_initialization(vectors: Episodes):
    net = curved()
    learner = MAML(net)
    assert isinstance(vectors.support.inputs, Tensor) and isinstance(vectors.query.inputs, Tensor)
    empty = Examples(vectors.support.inputs[:, :0], vectors.support.targets[:, :0])
    predictions = learner.predict(learner.adapt(empty), vectors.query.inputs)
    torch.testing.assert_close(predictions, net(vectors.query.inputs))


def test_unlabelled_and_masked_rows_are_not_learned_from(vectors: Episodes):
    learner = MAML(curved(), num_inner_steps=3)
    inputs, targets, _ = vectors.support
    assert isinstance(inputs, Tensor)
    few = learner.adapt(Examples(inputs[:, :2], targets[:, :2]))
    zero = targets.clone()
    zero[:, 2:] = 0
    mask = torch.arange(6).expand(3, 6) < 2
    for other in (Examples(inputs, zero), Examples(inputs, targets, mask)):
        state = learner.adapt(other)
        for name, value in state.params.items():
            torch.testing.assert_close(value, few.params[name])
        assert torch.equal(state.present, few.present)
    assert not few.present.all(), "in some task a class has no example"


def test_options_multiply_without_surprise(vectors: Episodes):
    """Whatever the strategy, chunks and steps: one loss."""
    losses = [
        MAML(curved(), strategy=strategy, chunk_size=chunk, first_order=first)(vectors)
        for strategy, chunk, first in itertools.product(
            ("auto", "vmap", "loop"), (0, 1), (False, True)
        )
    ]
    for loss in losses:
        torch.testing.assert_close(loss, losses[0])


def test_threads_may_share_a_learner(vectors: Episodes):
    learner = MAML(curved(), inner_lr=0.5, num_inner_steps=3, strategy="loop").double()
    supports = [vectors.support, vectors.query] * 20

    def adapt(support: Examples) -> Tensor:
        return torch.cat([value.flatten() for value in learner.adapt(support).params.values()])

    alone = [adapt(support) for support in supports]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(adapt, supports))
    assert all(map(torch.equal, alone, together))

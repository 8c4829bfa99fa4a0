"""The inner loop against slow loops, closed forms and the published identities."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot.learners.optimization.inner_loop import checked_steps, inner_loop
from kshot.learners.optimization.update_rules import SGD, Params, RuleState, UpdateRule


def unroll(*arguments: Any, **options: Any) -> list[Params]:
    """The whole trajectory."""
    return list(inner_loop(*arguments, **options))


class Quadratics:
    """Losses L_j(x) = (x - c_j)' H_j (x - c_j) / 2, with gradients by hand."""

    def __init__(self, count: int = 3, dim: int = 4, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(count, dim, dim, generator=generator, dtype=torch.float64)
        self.hessians = draw @ draw.mT / dim
        self.centers = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        self.start = torch.randn(dim, generator=generator, dtype=torch.float64).requires_grad_()

    def loss(self, x: Tensor, j: int) -> Tensor:
        away = x - self.centers[j]
        return away @ self.hessians[j] @ away / 2

    def slope(self, x: Tensor, j: int) -> Tensor:
        return self.hessians[j] @ (x.detach() - self.centers[j])

    def meta_gradient(self, lr: float, first_order: bool = False) -> Tensor:
        """Of the last loss, after one step on each of those before it."""
        steps = len(self.centers) - 1
        trajectory = unroll(
            lambda params, step: self.loss(params["x"], step),
            {"x": self.start},
            SGD(lr),
            steps,
            first_order=first_order,
        )
        return torch.autograd.grad(self.loss(trajectory[-1]["x"], steps), self.start)[0]


def test_the_closed_form_of_one_step():
    """g_MAML = (I - a H1) H2 (x - a g1 - c2); FOMAML drops the first factor."""
    q, lr = Quadratics(count=2), 0.1
    adapted = q.start - lr * q.slope(q.start, 0)
    first_order = q.slope(adapted, 1)
    exact = (torch.eye(4, dtype=torch.float64) - lr * q.hessians[0]) @ first_order
    torch.testing.assert_close(q.meta_gradient(lr), exact)
    torch.testing.assert_close(q.meta_gradient(lr, first_order=True), first_order)


def test_the_exact_product_of_many_steps():
    """g_MAML = (I - a H_1) ... (I - a H_{k-1}) g_k."""
    q, lr = Quadratics(count=5), 0.05
    x = q.start.detach()
    for step in range(4):
        x = x - lr * q.slope(x, step)
    gradient = q.slope(x, 4)
    torch.testing.assert_close(q.meta_gradient(lr, first_order=True), gradient)
    for step in reversed(range(4)):
        gradient = gradient - lr * q.hessians[step] @ gradient
    torch.testing.assert_close(q.meta_gradient(lr), gradient)


def test_the_taylor_identities():
    """Section 5 of Reptile's paper: what is left out falls with the square of the rate."""
    q, k = Quadratics(count=3), 3
    at_start = [q.slope(q.start, j) for j in range(k)]
    before = sum(at_start[:-1])
    shared = q.hessians[k - 1] @ before
    own = sum(q.hessians[j] @ at_start[k - 1] for j in range(k - 1))
    residuals: dict[str, list[float]] = {"MAML": [], "FOMAML": []}
    for lr in (1e-1, 1e-2, 1e-3):
        maml = at_start[k - 1] - lr * own - lr * shared
        fomaml = at_start[k - 1] - lr * shared
        residuals["MAML"].append(((q.meta_gradient(lr) - maml).abs().max() / lr**2).item())
        first = q.meta_gradient(lr, first_order=True)
        residuals["FOMAML"].append(((first - fomaml).abs().max() / lr**2).item())
    for name, (large, middle, small) in residuals.items():
        assert small > 1e-3, f"{name} has a second-order term on these quadratics"
        assert middle == pytest.approx(small, rel=0.02) and large == pytest.approx(small, rel=0.3)


def test_reptile_moves_by_the_sum_of_the_gradients():
    """(x_1 - x_{k+1}) / a = sum of g_i, exactly."""
    q, lr = Quadratics(count=3), 0.1
    trajectory = unroll(lambda params, step: q.loss(params["x"], step), {"x": q.start}, SGD(lr), 3)
    points = [params["x"] for params in trajectory]
    total = sum(q.slope(x, j) for j, x in enumerate(points[:-1]))
    torch.testing.assert_close((points[0] - points[-1]) / lr, total, rtol=1e-10, atol=1e-10)


def network() -> tuple[nn.Module, Params, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = torch.randn(2, 6, 3, dtype=torch.float64), torch.randint(2, (2, 6))
    return net, dict(net.named_parameters()), x, y


def net_loss(net: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(torch.func.functional_call(net, params, (x,)), y)


def slow_trajectory(
    net: nn.Module, params: Params, x: Tensor, y: Tensor, lr: float, steps: int, first_order: bool
) -> list[Params]:
    """The loop that everyone writes by hand."""
    trajectory = [params]
    for _ in range(steps):
        loss = net_loss(net, params, x, y)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=not first_order)
        params = {
            name: value - lr * (gradient.detach() if first_order else gradient)
            for (name, value), gradient in zip(params.items(), grads, strict=True)
        }
        trajectory.append(params)
    return trajectory


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_it_equals_the_slow_loop(first_order: bool, steps: int):
    net, params, x, y = network()
    ours = unroll(
        lambda params, step: net_loss(net, params, x[0], y[0]),
        params,
        SGD(0.5),
        steps,
        first_order=first_order,
    )
    theirs = slow_trajectory(net, params, x[0], y[0], 0.5, steps, first_order)
    assert len(ours) == len(theirs) == steps + 1 and ours[0] is params
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert all(
            torch.equal(one[name], other[name]) or torch.allclose(one[name], other[name])
            for name in one
        )
    # A loss of the whole trajectory, as multi-step losses are.
    gradients = [
        torch.autograd.grad(
            sum(net_loss(net, point, x[1], y[1]) for point in trajectory), list(params.values())
        )
        for trajectory in (ours, theirs)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("transformed", [False, True])
def test_what_the_loss_reads_besides_its_parameters_is_constant(transformed: bool):
    start = torch.tensor([2.0], requires_grad=True)

    def adapted(start: Tensor) -> Tensor:
        trajectory = unroll(
            lambda params, step: (params["x"] * start).sum(), {"x": start}, SGD(3.0), 1
        )
        return trajectory[-1]["x"].sum()

    slope = (
        torch.func.grad(adapted)(start)
        if transformed
        else torch.autograd.grad(adapted(start), start)[0]
    )
    assert adapted(start) == 2 - 3 * 2 and slope == 1 - 3


def test_it_differentiates_more_than_twice():
    x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def adapted(x: Tensor) -> Tensor:
        return unroll(lambda p, step: p["x"].sin(), {"x": x}, SGD(0.5), 2)[-1]["x"]

    assert torch.autograd.gradgradcheck(adapted, (x,))


def test_steps_are_numbered():
    seen: list[int] = []

    def loss(params: Params, step: int) -> Tensor:
        seen.append(step)
        return params["x"].sum()

    trajectory = unroll(loss, {"x": torch.zeros(2)}, SGD(1.0), 3)
    assert seen == [0, 1, 2] and trajectory[-1]["x"].tolist() == [-3, -3]


def test_under_no_grad_it_adapts_and_keeps_no_graph():
    net, params, x, y = network()
    expected = slow_trajectory(net, params, x[0], y[0], 0.5, 3, True)[-1]
    for first_order in (True, False):
        with torch.no_grad():
            adapted = unroll(
                lambda params, step: net_loss(net, params, x[0], y[0]),
                params,
                SGD(0.5),
                3,
                first_order=first_order,
            )[-1]
        for name, value in adapted.items():
            assert not value.requires_grad
            torch.testing.assert_close(value, expected[name].detach())
    assert all(p.grad is None for p in net.parameters())


class LearnedRates(UpdateRule):
    """A rate for every element, learned: Meta-SGD's rule."""

    def __init__(self, start: Params, lr: float) -> None:
        super().__init__()
        self.names = list(start)
        self.rates = nn.ParameterList([torch.full_like(p, lr) for p in start.values()])

    def init(self, params: Params) -> RuleState:
        return ()

    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Tensor
    ) -> tuple[Params, RuleState]:
        rates = dict(zip(self.names, self.rates, strict=True))
        return {name: params[name] - rates[name] * grads[name] for name in params}, state


@pytest.mark.parametrize("first_order", [False, True])
def test_the_rules_own_parameters_are_learned(first_order: bool):
    """After one step, dL/d(rate) = -(inner gradient) * (outer gradient), element by element."""
    net, params, x, y = network()
    rule = LearnedRates(params, 0.3)
    adapted = unroll(
        lambda params, step: net_loss(net, params, x[0], y[0]),
        params,
        rule,
        1,
        first_order=first_order,
    )[-1]
    fixed = unroll(lambda params, step: net_loss(net, params, x[0], y[0]), params, SGD(0.3), 1)[-1]
    for name in params:
        torch.testing.assert_close(adapted[name], fixed[name])
    gradients = torch.autograd.grad(net_loss(net, adapted, x[1], y[1]), list(rule.parameters()))
    inner = torch.autograd.grad(net_loss(net, params, x[0], y[0]), list(params.values()))
    there = {name: value.detach().requires_grad_() for name, value in adapted.items()}
    outer = torch.autograd.grad(net_loss(net, there, x[1], y[1]), list(there.values()))
    for ours, g_inner, g_outer in zip(gradients, inner, outer, strict=True):
        torch.testing.assert_close(ours, -g_inner * g_outer)


class Momentum(UpdateRule):
    """Heavy-ball momentum, which also reads the loss: a rule with a state."""

    def init(self, params: Params) -> RuleState:
        return {name: torch.zeros_like(value) for name, value in params.items()}, torch.zeros(())

    def step(
        self, params: Params, grads: Params, state: Any, *, loss: Tensor
    ) -> tuple[Params, RuleState]:
        speed, total = state
        speed = {name: 0.9 * speed[name] + grads[name] for name in params}
        return {name: params[name] - 0.1 * speed[name] for name in params}, (speed, total + loss)


def test_a_rule_may_have_a_state():
    net, params, x, y = network()

    def loss(params: Params, step: int) -> Tensor:
        return net_loss(net, params, x[0], y[0])

    adapted = unroll(loss, params, Momentum(), 5)[-1]
    weights = [p.detach().clone().requires_grad_() for p in params.values()]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        loss(dict(zip(params, weights, strict=True)), 0).backward()
        optimizer.step()
    for ours, theirs in zip(adapted.values(), weights, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("first_order", [False, True])
def test_under_vmap_it_is_the_loop_over_tasks(first_order: bool):
    net, params, x, y = network()

    def adapted_loss(x: Tensor, y: Tensor) -> Tensor:
        adapted = unroll(
            lambda params, step: net_loss(net, params, x, y),
            params,
            SGD(0.5),
            3,
            first_order=first_order,
        )[-1]
        return net_loss(net, adapted, x.flip(0), y)

    losses = torch.func.vmap(adapted_loss)(x, y), torch.stack([*map(adapted_loss, x, y)])
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss.sum(), list(params.values())) for loss in losses]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_steps_without_a_gradient_keep_no_earlier_parameters():
    with torch.no_grad():
        steps = inner_loop(lambda p, step: (p["x"] ** 2).sum(), {"x": torch.ones(3)}, SGD(0.1), 3)
        next(steps)
        first = weakref.ref(next(steps)["x"])
        next(steps)
        assert first() is None


def test_fewer_steps_than_none_are_refused():
    assert checked_steps(0, None) == (0, 0)
    assert checked_steps(1, 3) == (1, 3)
    for steps in ((-3, None), (1, -1)):
        with pytest.raises(ValueError, match="0 or more inner steps, not -"):
            checked_steps(*steps)

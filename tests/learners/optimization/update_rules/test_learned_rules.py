"""Learned rules: identities with gradient descent, slow loops, every way of running them."""

import copy
import io
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.update_rules import (
    CoordinatewiseRule,
    GatedRule,
    LearnedOptimizer,
    Params,
    preprocess,
    torch_optimizer,
)

RULES: dict[str, tuple[type[CoordinatewiseRule], dict[str, Any]]] = {
    "gates": (GatedRule, {"num_layers": 0}),
    "gates as in the paper": (GatedRule, {"num_layers": 0, "feedback_pre_sigmoid": False}),
    "memory and gates": (GatedRule, {"hidden": 4}),
    "gates of momentum": (GatedRule, {"num_layers": 0, "keep": 0.9, "forget": None}),
    "gates of the memory alone": (GatedRule, {"hidden": 4, "keep": 0.9, "recurrent": False}),
    "memory and all gates": (GatedRule, {"hidden": 4, "keep": 0.9, "scale": 0.5}),
    "memory": (LearnedOptimizer, {"hidden": 4}),
    "memory of raw gradients": (LearnedOptimizer, {"hidden": 4, "preprocessed": False}),
}


def make(name: str, **options: Any) -> CoordinatewiseRule:
    """A rule in float64 whose weights all matter."""
    torch.manual_seed(0)
    kind, fixed = RULES[name]
    rule = kind(**fixed, **options).double()
    for parameter in rule.parameters():
        nn.init.normal_(parameter, std=0.5)
    return rule


def bowl(params: Params, step: int) -> Tensor:
    x, y = params["x"], params["y"]
    return (x**2 * (1 + step)).sum() + (y.sin() * x.sum()).sum()


def start() -> Params:
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(3, generator=generator, dtype=torch.float64),
        "y": torch.randn(2, 2, generator=generator, dtype=torch.float64),
    }


def last(rule: CoordinatewiseRule, params: Params, **options: Any) -> Params:
    *_, params = inner_loop(bowl, params, rule, 4, **options)
    return params


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, (0.0, 1.0)),
        (0.01, (-0.46052, 1.0)),
        (math.exp(-10), (-1.0, 1.0)),
        (1e-6, (-1.0, 0.022026)),
        (0.0, (-1.0, 0.0)),
        (-1e-3, (-0.69078, -1.0)),
        (-2e5, (1.22061, -1.0)),
    ],
)
def test_preprocessing(value: float, expected: tuple[float, float]):
    told = preprocess(torch.tensor([[value]], dtype=torch.float64))
    assert told.shape == (1, 1, 2)
    assert told.flatten().tolist() == pytest.approx(expected, abs=1e-5)


def by_hand(rule: GatedRule, *, forget: float, enter: float, keep: float = 0.0) -> GatedRule:
    """Gates that depend on nothing."""
    for parameter in rule.parameters():
        nn.init.zeros_(parameter)
    wanted = {"forget": forget, "enter": enter, "keep": keep}
    wanted["enter"] /= rule.scale
    shares = torch.tensor([wanted[name] for name in rule.gate_names], dtype=torch.float64)
    rule.from_features.bias.data.copy_(torch.logit(shares).clamp(-50, 50))
    return rule


GATES = [name for name, (kind, _) in RULES.items() if kind is GatedRule]


@pytest.mark.parametrize(
    ("name", "weight_decay", "momentum"),
    [(name, 0.0, 0.0) for name in GATES]
    + [(name, 0.3, 0.0) for name in GATES if RULES[name][1].get("forget", 1)]
    + [(name, 0.0, 0.8) for name in GATES if "keep" in RULES[name][1]],
)
def test_gradient_descent_is_gates_set_by_hand(name: str, weight_decay: float, momentum: float):
    """Forget gate 1 - lr * weight_decay, input gate lr, and what stays of the velocity."""
    rule = make(name)
    assert isinstance(rule, GatedRule)
    ours = last(by_hand(rule, forget=1 - 0.1 * weight_decay, enter=0.1, keep=momentum), start())
    theirs = {key: value.requires_grad_() for key, value in start().items()}
    descent = torch.optim.SGD(theirs.values(), 0.1, momentum=momentum, weight_decay=weight_decay)
    for step in range(4):
        descent.zero_grad()
        bowl(theirs, step).backward()
        descent.step()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["memory", "memory of raw gradients"])
def test_without_output_nothing_moves(name: str):
    rule = make(name)
    assert isinstance(rule, LearnedOptimizer)
    for parameter in rule.says.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(last(rule, start()), start(), rtol=0, atol=0)


def test_gates_start_close_to_gradient_descent():
    torch.manual_seed(0)
    rule = GatedRule(keep=0.9)
    params = {"x": torch.randn(50)}
    _, state = rule.step(params, params, rule.init(params), loss=torch.tensor(2.0))
    gates = rule.gates(state)
    assert gates["forget"].min() > 0.98 and gates["forget"].max() < 0.994
    assert gates["enter"].min() > 0.0065 and gates["enter"].max() < 0.0185
    assert gates["keep"].min() > 0.84 and gates["keep"].max() < 0.94
    assert max(p.abs().max() for n, p in rule.named_parameters() if "features.bias" not in n) < 0.01


@pytest.mark.parametrize("name", RULES)
def test_every_coordinate_moves_as_in_a_slow_loop(name: str):
    """One coordinate after the other, by PyTorch's cell and plain arithmetic."""
    rule = make(name)
    state, params, expected = rule.init(start()), start(), start()
    memories: dict[Any, Any] = {}
    for step in range(3):
        leaves = {key: value.clone().requires_grad_() for key, value in expected.items()}
        loss = bowl(leaves, step)
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        loss = loss.detach()
        params, state = rule.step(expected, grads, state, loss=loss)
        expected = {
            key: torch.stack(
                [
                    slowly(rule, x, g, loss, memories.setdefault((key, place), {}))
                    for place, (x, g) in enumerate(
                        zip(value.flatten(), grads[key].flatten(), strict=True)
                    )
                ]
            ).view_as(value)
            for key, value in expected.items()
        }
        torch.testing.assert_close(params, expected)


def slowly(rule: CoordinatewiseRule, x: Tensor, g: Tensor, loss: Tensor, memory: dict) -> Tensor:
    told = [g, loss] if isinstance(rule, GatedRule) else [g]
    features = torch.cat([preprocess(v) if rule.preprocessed else v.view(1) for v in told])
    if isinstance(rule, GatedRule) and "keep" in rule.gate_names:
        along = (g * memory.get("velocity", torch.zeros(()))).sign()
        features = torch.cat([features, along.view(1)])
    for number, cell in enumerate(rule.memory):
        h, c = memory.get(number, (torch.zeros(cell.hidden), torch.zeros(cell.hidden)))
        z = cell.weight @ torch.cat([features, h.double()]) + cell.bias
        i, f, o, u = z.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * (u / 2).tanh()
        features = o.sigmoid() * c.tanh()
        memory[number] = features, c
    if isinstance(rule, LearnedOptimizer):
        return x + 0.1 * (rule.says.weight[0] @ features + rule.says.bias[0])
    gates = {}
    for k, gate in enumerate(rule.gate_names):
        before = memory.get(("gate", k), torch.zeros(()))
        before = before if rule.feedback_pre_sigmoid else before.sigmoid()
        z = rule.from_features.weight[k] @ features + rule.from_features.bias[k]
        seen = rule.from_value[k] * x + rule.from_gate[k] * before if rule.recurrent else 0
        memory["gate", k] = z + seen
        gates[gate] = memory["gate", k].sigmoid()
    memory["velocity"] = gates.get("keep", 0) * memory.get("velocity", 0) + g
    return gates.get("forget", 1) * x - rule.scale * gates["enter"] * memory["velocity"]


@pytest.mark.parametrize("name", RULES)
def test_chunks_and_tasks_at_once_change_nothing(name: str):
    expected = last(make(name), start())
    torch.testing.assert_close(last(make(name, chunk_size=2), start()), expected)
    tasks = [start(), {key: 2 * value for key, value in start().items()}]
    stacked = {key: torch.stack([each[key] for each in tasks]) for key in expected}
    rule = make(name, chunk_size=3)
    together = torch.func.vmap(lambda params: last(rule, params))(stacked)
    for number, task in enumerate(tasks):
        torch.testing.assert_close(
            {key: value[number] for key, value in together.items()}, last(rule, task)
        )


@pytest.mark.parametrize("name", RULES)
def test_a_graph_has_no_chunks(name: str):
    rules = [make(name, chunk_size=size) for size in (2, 100)]
    graphs = [make_fx(partial(last, rule))(start()) for rule in rules]
    assert len({len(graph.graph.nodes) for graph in graphs}) == 1
    torch.testing.assert_close(graphs[0](start()), last(make(name), start()))


@pytest.mark.parametrize("name", RULES)
def test_the_exact_meta_gradient_agrees_with_central_differences(name: str):
    rule = make(name)
    parameters = list(rule.parameters())
    gradient = torch.autograd.grad(bowl(last(rule, start()), 0), parameters)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator).double() for p in parameters]
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(rule)
        with torch.no_grad():
            for parameter, part in zip(moved.parameters(), direction, strict=True):
                parameter.add_(sign * 1e-6 * part)
        ends.append(bowl(last(moved, start()), 0).item())
    slope = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)
    assert all(g.abs().max() > 0 for g in gradient), "every weight counts"


@pytest.mark.parametrize("name", RULES)
def test_as_a_pytorch_optimizer_it_steps_as_the_inner_loop_does(name: str):
    rule = make(name)
    network = nn.Linear(3, 2).double()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(params: Params, step: int) -> Tensor:
        return torch.func.functional_call(network, params, (x,)).square().mean()

    begin = {key: value.detach().clone() for key, value in network.named_parameters()}
    *_, expected = inner_loop(loss, begin, rule, 4)
    file = io.BytesIO()
    for _ in range(2):  # what the rule remembers is saved and loaded in between
        optimizer = torch_optimizer(rule, network.named_parameters())
        if file.tell():
            optimizer.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
        for _ in range(2):
            optimizer.zero_grad()
            value = loss(dict(network.named_parameters()), 0)
            value.backward()
            optimizer.step(lambda value=value: value)
        torch.save(optimizer.state_dict(), file)
    torch.testing.assert_close(dict(network.named_parameters()), expected)


def test_a_network_keeps_its_precision():
    """A rule in float32 moves parameters in float64 and half precision, rounding steps alone."""
    torch.manual_seed(0)
    rule = by_hand(GatedRule(), forget=1.0, enter=0.1)
    for dtype in (torch.float64, torch.bfloat16):
        params = {"x": torch.tensor([1 / 3, 2 / 3], dtype=dtype)}
        none = {"x": torch.zeros(2, dtype=dtype)}
        moved, _ = rule.step(params, none, rule.init(params), loss=torch.tensor(1.0))
        torch.testing.assert_close(moved, params, rtol=0, atol=0)


def test_what_a_rule_cannot_be_built_of():
    with pytest.raises(ValueError, match="num_layers must be at least 1"):
        LearnedOptimizer(num_layers=0)
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        GatedRule(chunk_size=0)
    with pytest.raises(ValueError, match=r"a share between 0 and 1, not .*'keep': 1\.0"):
        GatedRule(keep=1.0)

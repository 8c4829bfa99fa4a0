"""A step of learned rules on a network of a million parameters, beside their matrix products."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.alone import peak_memory, told_alone
from benchmarks.rows import alternate, benchmark_row, write_rows
from kshot import GatedRule, LearnedOptimizer
from kshot.backbones.recurrent import LSTMCell
from kshot.episodes import leaves
from kshot.learners.optimization.update_rules import CoordinatewiseRule

__all__ = ["added_memory", "main"]

SIZE = 1_000_000
RULES: dict[str, Callable[[int], CoordinatewiseRule]] = {
    "LearnedOptimizer, two layers": lambda chunk: LearnedOptimizer(chunk_size=chunk),
    "GatedRule, one layer and gates": lambda chunk: GatedRule(chunk_size=chunk),
}


def main() -> None:
    """Measure and write results/benchmarks/learned_optimizer.json."""
    torch.set_num_threads(1)
    write_rows(
        "learned_optimizer",
        [_row(name, chunk) for name in RULES for chunk in (2048, 8192, SIZE)],
    )


def _row(name: str, chunk: int) -> dict[str, Any]:
    torch.manual_seed(0)
    rule = RULES[name](chunk)
    params = {"weight": torch.randn(1000, 1000)}
    grads = {"weight": torch.randn(1000, 1000)}
    with torch.no_grad():
        state = rule.init(params)
        ours, peer, ratio = alternate(
            lambda: rule.step(params, grads, state, loss=torch.tensor(1.0)),
            _products(rule, chunk),
            repeats=5,
        )
    flops = 2 * SIZE * sum(rows * columns for rows, columns in _matrices(rule))
    return benchmark_row(
        f"{name}, a step, {chunk:,} coordinates at once",
        1e3 * ours,
        1e3 * peer,
        "its matrix products alone, one addmm each",
        "ms",
        pairwise_ratio=ratio,
        gflop=flops / 1e9,
        gflop_per_second=flops / ours / 1e9,
        products_gflop_per_second=flops / peer / 1e9,
        threads=1,
        **told_alone("benchmarks.learned_optimizer:added_memory", name, chunk),
    )


def _matrices(rule: CoordinatewiseRule) -> list[tuple[int, int]]:
    """Numbers that go in and come out of each product: of inputs, of states, of the last layer."""
    found = []
    for cell in rule.memory:
        assert isinstance(cell, LSTMCell)
        gates, both = cell.weight.shape
        found += [(both - cell.hidden, gates), (cell.hidden, gates)]
    gates = len(rule.gate_names) if isinstance(rule, GatedRule) else 1
    return [*found, (rule.num_features, gates)]


def _products(rule: CoordinatewiseRule, chunk: int) -> Callable[[], list[Tensor]]:
    """The same sizes, as many rows at once, nothing else."""
    cases = [(torch.randn(b), torch.randn(chunk, a), torch.randn(a, b)) for a, b in _matrices(rule)]
    return lambda: [torch.addmm(*case) for _ in range(-(-SIZE // chunk)) for case in cases]


def added_memory(name: str, chunk: int) -> dict[str, float]:
    """The memory of two steps at its peak, which holds two states, and that of a state."""
    torch.set_num_threads(1)
    rule, before = RULES[name](chunk), peak_memory()
    values = {"weight": torch.randn(1000, 1000)}
    with torch.no_grad():
        state = rule.init(values)
        for _ in range(2):
            _, state = rule.step(values, values, state, loss=torch.tensor(1.0))
    after = peak_memory()
    assert before is not None and after is not None, "memory is told on Linux only"
    size = sum(tensor.numel() for tensor in leaves(state)) * 4 / 2**20
    return {"added_megabytes": round(after - before, 1), "state_megabytes": size}

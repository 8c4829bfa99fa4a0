"""Least recently used access against the equations, one slot at a time."""

import math

import pytest
import torch
from torch import Tensor

from kshot.learners.memory.access import access

TASKS, SLOTS, WIDTH = 2, 6, 3


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def slow_access(
    memory: Tensor, weights: Tensor, usage: Tensor, keys: Tensor, gates: Tensor, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One task: (slots, width), (heads, slots), (slots), (heads, width), (heads)."""
    heads = len(keys)
    by_usage = sorted(range(SLOTS), key=lambda slot: float(usage[slot]))
    writing = torch.zeros(heads, SLOTS, dtype=torch.float64)
    for head in range(heads):
        for slot in range(SLOTS):
            free = 1.0 if slot == by_usage[head] else 0.0
            writing[head, slot] = gates[head] * weights[head, slot] + (1 - gates[head]) * free
    after = memory.clone()
    after[by_usage[0]] = 0
    for slot in range(SLOTS):
        for head in range(heads):
            after[slot] += writing[head, slot] * keys[head]
    reading = torch.zeros(heads, SLOTS, dtype=torch.float64)
    for head in range(heads):
        powers = []
        for slot in range(SLOTS):
            lengths = math.sqrt(keys[head] @ keys[head]) * math.sqrt(after[slot] @ after[slot])
            powers.append(math.exp(keys[head] @ after[slot] / lengths))
        reading[head] = torch.tensor(powers) / sum(powers)
    used = decay * usage + reading.sum(0) + writing.sum(0)
    return after, reading, used


@pytest.mark.parametrize("heads", [1, 4])
def test_access(heads: int):
    torch.manual_seed(0)
    memory, usage = normal(TASKS, SLOTS, WIDTH), normal(TASKS, SLOTS).exp()
    weights, keys = normal(TASKS, heads, SLOTS).softmax(-1), normal(TASKS, heads, WIDTH).tanh()
    gates = normal(TASKS, heads, 1).sigmoid()
    found = access(memory, weights, usage, keys, gates, 0.9)
    for task in range(TASKS):
        rows = (tensor[task] for tensor in (memory, weights, usage, keys, gates[..., 0]))
        after, reading, used = slow_access(*rows, 0.9)
        expected = after, reading, used, reading @ after
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[task], other, rtol=1e-6, atol=1e-7)


def at(slot: int) -> Tensor:
    return torch.eye(SLOTS, dtype=torch.float64)[slot].view(1, 1, SLOTS)


def test_what_is_new_goes_to_the_least_used_slot_which_is_cleared():
    memory, key = torch.full((1, SLOTS, WIDTH), 7.0).double(), torch.ones(1, 1, WIDTH).double()
    usage = torch.tensor([[3.0, 2, 5, 1, 4, 6]]).double()
    never = torch.zeros(1, 1, 1).double()
    after, reading, used, _ = access(memory, at(2), usage, key, never, 0.5)
    assert (after[0, 3] == 1).all(), "cleared, then written"
    assert (after[0, [0, 1, 2, 4, 5]] == 7).all()
    torch.testing.assert_close(used, usage / 2 + reading[:, 0] + at(3)[0])


def test_what_was_found_again_is_written_where_it_was_read():
    memory, key = torch.full((1, SLOTS, WIDTH), 7.0).double(), torch.ones(1, 1, WIDTH).double()
    usage = torch.tensor([[3.0, 2, 5, 1, 4, 6]]).double()
    after, _, used, _ = access(memory, at(2), usage, key, torch.ones(1, 1, 1).double(), 0.99)
    assert (after[0, 2] == 8).all() and (after[0, 3] == 0).all()
    assert used.argmin() == 3, "cleared, and still the least used"


def test_each_head_has_a_slot_of_its_own():
    memory, keys = torch.zeros(1, SLOTS, WIDTH).double(), torch.eye(WIDTH).double().unsqueeze(0)
    usage = torch.arange(SLOTS, dtype=torch.float64).flip(0).unsqueeze(0)
    weights = at(0).expand(1, 3, SLOTS)
    after, *_ = access(memory, weights, usage, keys, torch.zeros(1, 3, 1).double(), 0.99)
    torch.testing.assert_close(after[0, [5, 4, 3]], keys[0])
    assert (after[0, :3] == 0).all()


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Memory, weights, usage, keys and gates of two heads."""
    torch.manual_seed(0)
    memory = normal(TASKS, SLOTS, WIDTH).requires_grad_()
    weights = normal(TASKS, 2, SLOTS).softmax(-1).detach().requires_grad_()
    keys = normal(TASKS, 2, WIDTH).requires_grad_()
    gates = torch.rand(TASKS, 2, 1).double().requires_grad_()
    return memory, weights, torch.rand(TASKS, SLOTS).double(), keys, gates


def test_the_gradient_is_that_of_differences(given: tuple[Tensor, ...]):
    memory, weights, usage, keys, gates = given

    def differentiable(memory: Tensor, weights: Tensor, keys: Tensor, gates: Tensor):
        after, reading, used, reads = access(memory, weights, usage, keys, gates, 0.9)
        assert not used.requires_grad, "no gradient passes the choice of a slot"
        return after, reading, reads

    assert torch.autograd.gradcheck(differentiable, (memory, weights, keys, gates))


def test_empty_slots_have_a_gradient(given: tuple[Tensor, ...]):
    """A memory of nothing but zeros, and a head that says nothing."""
    _, weights, usage, keys, gates = given
    memory = torch.zeros(TASKS, SLOTS, WIDTH).double().requires_grad_()
    keys = keys.detach() * torch.tensor([[1.0], [0.0]])
    inputs = [memory, weights, keys.requires_grad_(), gates]
    found = access(memory, weights, usage, keys, gates, 0.9)
    total = found.memory.sum() + found.weights.square().sum() + found.reads.sum()
    assert all(bool(slope.isfinite().all()) for slope in torch.autograd.grad(total, inputs))


def test_tasks_may_be_vectorized(given: tuple[Tensor, ...]):
    memory, weights, usage, keys, gates = (tensor.detach() for tensor in given)

    def loss(keys: Tensor, memory: Tensor, weights: Tensor, usage: Tensor, gates: Tensor):
        rows = [tensor.unsqueeze(0) for tensor in (memory, weights, usage, keys, gates)]
        after = access(*rows, 0.9)  # pyright: ignore[reportArgumentType]
        return after.reads.square().sum() + after.memory.sum()

    found = torch.func.vmap(torch.func.grad(loss))(keys, memory, weights, usage, gates)
    keys = keys.requires_grad_()
    after = access(memory, weights, usage, keys, gates, 0.9)
    (expected,) = torch.autograd.grad(after.reads.square().sum() + after.memory.sum(), [keys])
    torch.testing.assert_close(found, expected)

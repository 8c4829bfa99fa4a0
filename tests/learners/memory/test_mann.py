"""Least recently used access against the equations, one slot at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.backbones.heads import Flatten
from kshot.learners.memory.mann import MANN, access

TASKS, SLOTS, WIDTH = 2, 6, 3


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def slow_access(
    memory: Tensor,
    weights: Tensor,
    usage: Tensor,
    keys: Tensor,
    gates: Tensor,
    sharpness: Tensor,
    decay: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One task: (slots, width), (heads, slots), (slots), (heads, width), (heads), (heads)."""
    heads = len(keys)
    reading = torch.zeros(heads, SLOTS, dtype=torch.float64)
    for head in range(heads):
        powers = []
        for slot in range(SLOTS):
            lengths = math.sqrt(keys[head] @ keys[head]) * math.sqrt(memory[slot] @ memory[slot])
            powers.append(math.exp(sharpness[head] * (keys[head] @ memory[slot]) / lengths))
        reading[head] = torch.tensor(powers) / sum(powers)
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
    used = decay * usage + reading.sum(0) + writing.sum(0)
    return reading @ memory, reading, after, used


@pytest.mark.parametrize("sharpen", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_access(heads: int, sharpen: bool):
    torch.manual_seed(0)
    memory, usage = normal(TASKS, SLOTS, WIDTH), normal(TASKS, SLOTS).exp()
    weights, keys = normal(TASKS, heads, SLOTS).softmax(-1), normal(TASKS, heads, WIDTH).tanh()
    gates = normal(TASKS, heads, 1).sigmoid()
    sharpness = 1 + 3 * normal(TASKS, heads, 1).sigmoid() if sharpen else torch.ones_like(gates)
    found = access(memory, weights, usage, keys, gates, 0.9, sharpness if sharpen else None)
    each = memory, weights, usage, keys, gates[..., 0], sharpness[..., 0]
    for task in range(TASKS):
        rows = (tensor[task] for tensor in each)
        for one, other in zip(found, slow_access(*rows, 0.9), strict=True):
            torch.testing.assert_close(one[task], other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sharpness", [1.01, 10.0, 1000.0])
def test_heads_begin_as_sharp_as_was_said(encoder: Flatten, sharpness: float):
    learner = MANN(encoder, 2, num_heads=3, sharpness=sharpness)
    said = learner.heads.bias.view(3, -1)[:, -1]
    torch.testing.assert_close(1 + F.softplus(said), torch.full((3,), sharpness))


def test_a_blunt_head_is_refused(encoder: Flatten):
    with pytest.raises(ValueError, match="sharpness must be above 1"):
        MANN(encoder, 2, sharpness=0.5)


def at(slot: int) -> Tensor:
    return torch.eye(SLOTS, dtype=torch.float64)[slot].view(1, 1, SLOTS)


def test_what_is_new_goes_to_the_least_used_slot_which_is_cleared():
    memory, key = torch.full((1, SLOTS, WIDTH), 7.0).double(), torch.ones(1, 1, WIDTH).double()
    usage = torch.tensor([[3.0, 2, 5, 1, 4, 6]]).double()
    never = torch.zeros(1, 1, 1).double()
    _, reading, after, used = access(memory, at(2), usage, key, never, 0.5)
    assert (after[0, 3] == 1).all(), "cleared, then written"
    assert (after[0, [0, 1, 2, 4, 5]] == 7).all()
    torch.testing.assert_close(used, usage / 2 + reading[:, 0] + at(3)[0])


def test_what_was_found_again_is_written_where_it_was_read():
    memory, key = torch.full((1, SLOTS, WIDTH), 7.0).double(), torch.ones(1, 1, WIDTH).double()
    usage = torch.tensor([[3.0, 2, 5, 1, 4, 6]]).double()
    *_, after, used = access(memory, at(2), usage, key, torch.ones(1, 1, 1).double(), 0.99)
    assert (after[0, 2] == 8).all() and (after[0, 3] == 0).all()
    assert used.argmin() == 3, "cleared, and still the least used"


def test_a_key_does_not_find_itself():
    memory, key = torch.zeros(1, SLOTS, WIDTH).double(), torch.eye(WIDTH).double()[:1].unsqueeze(0)
    memory[0, 4] = key[0, 0] + torch.eye(WIDTH)[1]
    usage = torch.arange(SLOTS, dtype=torch.float64).unsqueeze(0)
    sharp = torch.full((1, 1, 1), 100.0).double()
    read, *_ = access(memory, at(2), usage, key, torch.zeros(1, 1, 1).double(), 0.99, sharp)
    torch.testing.assert_close(read[0, 0], memory[0, 4])


def test_each_head_has_a_slot_of_its_own():
    memory, keys = torch.zeros(1, SLOTS, WIDTH).double(), torch.eye(WIDTH).double().unsqueeze(0)
    usage = torch.arange(SLOTS, dtype=torch.float64).flip(0).unsqueeze(0)
    weights = at(0).expand(1, 3, SLOTS)
    *_, after, _ = access(memory, weights, usage, keys, torch.zeros(1, 3, 1).double(), 0.99)
    torch.testing.assert_close(after[0, [5, 4, 3]], keys[0])
    assert (after[0, :3] == 0).all()


def test_slots_that_were_never_used_are_filled_one_after_the_other(encoder: Flatten):
    torch.manual_seed(0)
    learner = MANN(encoder, 2, slots=SLOTS, width=WIDTH, num_heads=1, hidden=5).double()
    with torch.no_grad():
        learner.heads.bias[WIDTH] = -30  # the gate: always write to a new slot
    memory = learner.initial_state(1)
    filled = []
    for _ in range(SLOTS):
        before = memory.memory
        _, memory = learner.step(memory, learner.project(normal(1, 4)), normal(1, 2))
        changed = (memory.memory - before).abs().amax(-1)[0] > 1e-6
        assert changed.sum() == 1
        filled.append(int(changed.nonzero()))
    assert sorted(filled) == list(range(SLOTS))


def test_no_gradient_passes_the_choice_of_a_slot(encoder: Flatten):
    torch.manual_seed(0)
    memory = normal(1, SLOTS, WIDTH).requires_grad_()
    weights = normal(1, 2, SLOTS).softmax(-1).requires_grad_()
    keys, gates = normal(1, 2, WIDTH).requires_grad_(), torch.rand(1, 2, 1).double()
    usage = torch.rand(1, SLOTS).double()
    *_, used = access(memory, weights, usage, keys, gates, 0.9)
    assert not used.requires_grad
    assert torch.autograd.gradcheck(
        lambda *given: access(given[0], given[1], usage, given[2], gates, 0.9)[:3],
        (memory, weights, keys),
    )


def test_more_heads_than_slots_are_refused(encoder: Flatten):
    with pytest.raises(ValueError, match="num_heads=9 must be from 1 to slots=8"):
        MANN(encoder, 3, slots=8, num_heads=9)

"""A memory-augmented network: which slots it fills, and what it refuses."""

import pytest
import torch

from kshot.backbones.heads import Flatten
from kshot.learners.memory.mann import MANN


def test_slots_that_were_never_used_are_filled_one_after_the_other(encoder: Flatten):
    torch.manual_seed(0)
    learner = MANN(encoder, 2, slots=6, width=3, num_heads=1, hidden=5).double()
    with torch.no_grad():
        learner.heads.bias[3] = -30  # the gate: always write to a new slot
    memory = learner.initial_state(1)
    filled = []
    for _ in range(6):
        before = memory.memory
        _, memory = learner.step(
            memory, learner.project(torch.randn(1, 4).double()), torch.randn(1, 2).double()
        )
        changed = (memory.memory - before).abs().amax(-1)[0] > 1e-6
        assert changed.sum() == 1
        filled.append(int(changed.nonzero()))
    assert sorted(filled) == list(range(6))


def test_more_heads_than_slots_are_refused(encoder: Flatten):
    with pytest.raises(ValueError, match="num_heads=9 must be from 1 to slots=8"):
        MANN(encoder, 3, slots=8, num_heads=9)

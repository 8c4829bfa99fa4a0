"""The Turing machine against the equations, one slot at a time; and it learns to copy."""

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.learners.memory.turing_machine import (
    TuringMachine,
    by_content,
    interpolated,
    sharpened,
    shifted,
)

SLOTS, WIDTH, HEADS = 5, 3, 2


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (
        math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    )


def test_by_content():
    memory, key, strength = (
        normal(2, SLOTS, WIDTH),
        normal(2, HEADS, WIDTH),
        normal(2, HEADS, 1).exp(),
    )
    weights = by_content(memory, key, strength)
    for task in range(2):
        for head in range(HEADS):
            powers = [
                math.exp(strength[task, head] * cosine(key[task, head], row))
                for row in memory[task]
            ]
            for slot in range(SLOTS):
                assert weights[task, head, slot] == pytest.approx(powers[slot] / sum(powers), 1e-6)


def test_an_empty_memory_is_everywhere_alike():
    weights = by_content(torch.zeros(1, SLOTS, WIDTH), torch.ones(1, 1, WIDTH), torch.ones(1, 1, 1))
    torch.testing.assert_close(weights, torch.full((1, 1, SLOTS), 1 / SLOTS))


def test_the_gate_chooses_between_content_and_the_place_before():
    found, before = torch.tensor([[[1.0, 0, 0]]]), torch.tensor([[[0.0, 0, 1]]])
    for gate in (0.0, 0.25, 1.0):
        weights = interpolated(found, before, torch.tensor([[[gate]]]))
        torch.testing.assert_close(weights, torch.tensor([[[gate, 0, 1 - gate]]]))


def test_shifts_go_around_the_end():
    at_three = F.one_hot(torch.tensor([[3]]), SLOTS).double()
    for shift, slot in ((0, 2), (1, 3), (2, 4)):
        moved = shifted(at_three, F.one_hot(torch.tensor([[shift]]), 3).double())
        assert moved.argmax() == slot and moved.sum() == 1
    at_end = F.one_hot(torch.tensor([[SLOTS - 1]]), SLOTS).double()
    assert shifted(at_end, torch.tensor([[[0.0, 0, 1]]]).double()).argmax() == 0
    weights, shifts = normal(2, HEADS, SLOTS).softmax(-1), normal(2, HEADS, 3).softmax(-1)
    moved = shifted(weights, shifts)
    for i in range(SLOTS):
        total = torch.zeros(2, HEADS, dtype=torch.float64)
        for j in range(SLOTS):
            for place, shift in enumerate((-1, 0, 1)):
                if (j + shift) % SLOTS == i:
                    total += weights[..., j] * shifts[..., place]
        torch.testing.assert_close(moved[..., i], total)


def test_sharpening_is_a_power_and_does_not_underflow():
    weights, sharpness = normal(2, HEADS, SLOTS).softmax(-1), 1 + normal(2, HEADS, 1).exp()
    powers = weights**sharpness
    torch.testing.assert_close(sharpened(weights, sharpness), powers / powers.sum(-1, keepdim=True))
    flat = torch.full((1, 1, 128), 1 / 128, requires_grad=True)
    sharp = sharpened(flat, torch.full((1, 1, 1), 60.0))  # (1 / 128)^60 is no float
    torch.testing.assert_close(sharp, torch.full((1, 1, 128), 1 / 128))
    sharp[0, 0, 0].backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("controller", ["lstm", "feed_forward"])
def test_a_step_reads_and_then_erases_and_adds(controller: str):
    machine = TuringMachine(
        4,
        2,
        num_feedback=1,
        controller=controller,  # pyright: ignore[reportArgumentType]
        hidden=6,
        slots=SLOTS,
        width=WIDTH,
        num_heads=HEADS,
    ).double()
    start = machine.initial_state(1)
    state = start._replace(memory=normal(1, SLOTS, WIDTH), reads=normal(1, HEADS * WIDTH))
    inputs, feedback = normal(1, 4), normal(1, 1)
    outputs, after = machine.step(state, machine.project(inputs), feedback)

    read = torch.cat([feedback, state.reads], -1)
    hidden, _ = machine.controller(machine.project(inputs), read, state.controller)
    said = machine.places(hidden).view(2 * HEADS, WIDTH + 6)
    places = []
    for head in range(2 * HEADS):
        key, (beta, gate, *shifts, gamma) = said[head, :WIDTH], said[head, WIDTH:]
        found = torch.stack([cosine(key, row) for row in state.memory[0]])
        weights = (F.softplus(beta) * found).softmax(0)
        weights = gate.sigmoid() * weights + (1 - gate.sigmoid()) * state.weights[0, head]
        back, stay, on = torch.stack(shifts).softmax(0)
        weights = torch.stack(
            [
                back * weights[(i + 1) % SLOTS] + stay * weights[i] + on * weights[i - 1]
                for i in range(SLOTS)
            ]
        )
        powers = weights ** (1 + F.softplus(gamma))
        places.append(powers / powers.sum())
    torch.testing.assert_close(after.weights[0], torch.stack(places), rtol=1e-6, atol=1e-6)
    memory = state.memory[0]
    reads = torch.cat([sum(w * row for w, row in zip(p, memory, strict=True)) for p in places[:2]])
    torch.testing.assert_close(after.reads[0], reads, rtol=1e-6, atol=1e-6)
    expected = machine.outputs(torch.cat([hidden[0], reads]))
    torch.testing.assert_close(outputs[0], expected, rtol=1e-6, atol=1e-6)
    written = machine.writes(hidden).view(2, HEADS, WIDTH)
    for slot in range(SLOTS):
        row = memory[slot]
        for head in range(HEADS):
            row = row * (1 - places[2 + head][slot] * written[0, head].sigmoid())
        for head in range(HEADS):
            row = row + places[2 + head][slot] * written[1, head]
        torch.testing.assert_close(after.memory[0, slot], row, rtol=1e-6, atol=1e-6)


def test_a_machine_without_room_is_refused():
    with pytest.raises(ValueError, match=r"at least one slot.*slots=0"):
        TuringMachine(3, 2, slots=0)


def test_it_learns_to_copy():
    """A controller that remembers nothing gives back what it has put into the memory."""
    torch.manual_seed(1)
    machine = TuringMachine(4, 3, controller="feed_forward", hidden=40, slots=8, width=8)
    optimizer = torch.optim.Adam(machine.parameters(), 5e-3)

    def answers(length: int, tasks: int) -> tuple[Tensor, Tensor]:
        bits = torch.randint(0, 2, (tasks, length, 3)).float()
        inputs = torch.zeros(tasks, 2 * length + 1, 4)
        inputs[:, :length, :3], inputs[:, length, 3] = bits, 1
        return machine(inputs)[:, length + 1 :], bits

    for _ in range(400):
        loss = F.binary_cross_entropy_with_logits(*answers(int(torch.randint(1, 5, ())), 32))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(machine.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        logits, bits = answers(4, 500)
    assert ((logits > 0) == (bits > 0)).float().mean() > 0.85


@pytest.mark.slow
def test_it_copies_twice_as_long_sequences_as_it_was_trained_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    study = importlib.import_module("studies.copy_task")
    monkeypatch.setattr(study, "merge_results", lambda path, rows: written.extend(rows))
    written: list[dict[str, Any]] = []
    study.main(["lstm", "20"])
    accuracy = {row["length"]: row["accuracy"] for row in written}
    assert accuracy[20] > 0.95 and accuracy[40] > 0.7


def test_gradients_are_exact():
    machine = TuringMachine(3, 2, hidden=4, slots=4, width=2).double()
    inputs = normal(1, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: machine(x).sum(1), inputs)

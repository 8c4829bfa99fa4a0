"""Cells whose inputs are projected beforehand are the cells of PyTorch."""

import pytest
import torch
from torch import nn

from kshot.learners.memory.controller import Controller, FeedForward, GRUCell, LSTMCell

INPUTS, FEEDBACK, HIDDEN = 3, 2, 4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and feedback of six steps of two tasks, always the same."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, 6, INPUTS + FEEDBACK, dtype=torch.float64, generator=generator)
    return draw[..., :INPUTS], draw[..., INPUTS:]


def outputs(cell: Controller) -> torch.Tensor:
    inputs, feedback = drawn()
    state, found = cell.initial_state(2), []
    for projected, fed in zip(cell.project(inputs).unbind(1), feedback.unbind(1), strict=True):
        output, state = cell(projected, fed, state)
        found.append(output)
    return torch.stack(found, 1)


def expected(cell: nn.LSTMCell | nn.GRUCell) -> torch.Tensor:
    state, found = None, []
    for row in torch.cat(drawn(), -1).unbind(1):
        state = cell(row, state)
        found.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(found, 1)


def test_the_lstm_is_that_of_pytorch():
    ours = LSTMCell(INPUTS, FEEDBACK, HIDDEN).double()
    theirs = nn.LSTMCell(INPUTS + FEEDBACK, HIDDEN).double()
    # PyTorch orders gates i, f, g, o; here g is last.
    order = torch.arange(4 * HIDDEN).view(4, HIDDEN)[[0, 1, 3, 2]].flatten()
    assert (ours.inputs.bias[HIDDEN : 2 * HIDDEN] == 1).all()
    with torch.no_grad():
        theirs.weight_ih.copy_(
            torch.cat([ours.inputs.weight, ours.feedback.weight[:, :2]], 1)[order]
        )
        theirs.weight_hh.copy_(ours.feedback.weight[:, 2:][order])
        theirs.bias_ih.copy_(ours.inputs.bias[order])
        theirs.bias_hh.zero_()
    torch.testing.assert_close(outputs(ours), expected(theirs))


def test_the_gru_is_that_of_pytorch():
    ours = GRUCell(INPUTS, FEEDBACK, HIDDEN).double()
    theirs = nn.GRUCell(INPUTS + FEEDBACK, HIDDEN).double()
    with torch.no_grad():
        theirs.weight_ih.copy_(torch.cat([ours.inputs.weight, ours.feedback.weight], 1))
        theirs.weight_hh.copy_(ours.recurrent.weight)
        theirs.bias_ih.copy_(ours.inputs.bias)
        theirs.bias_hh.copy_(ours.recurrent.bias)
    torch.testing.assert_close(outputs(ours), expected(theirs))


def test_the_feed_forward_controller_remembers_nothing():
    cell = FeedForward(INPUTS, FEEDBACK, HIDDEN).double()
    found = outputs(cell)
    inputs, feedback = drawn()
    for task in range(2):
        for step in range(6):
            x, y = inputs[task, step], feedback[task, step]
            said = cell.inputs.weight @ x + cell.inputs.bias + cell.feedback.weight @ y
            torch.testing.assert_close(found[task, step], said.tanh())

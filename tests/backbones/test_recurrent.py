"""Cells of plain operations compute what PyTorch's do, under vmap too."""

import torch
from torch import Tensor, nn

from kshot.backbones.recurrent import LSTMCell


def pair() -> tuple[LSTMCell, nn.LSTMCell]:
    torch.manual_seed(0)
    ours, theirs = LSTMCell(3, 5).double(), nn.LSTMCell(3, 5).double()
    # PyTorch's order of gates: input, forget, candidate, output.
    order = torch.cat([torch.arange(10), torch.arange(15, 20), torch.arange(10, 15)])
    double = torch.tensor([1.0] * 15 + [2.0] * 5).double()  # the candidate's rows
    with torch.no_grad():
        weight = torch.cat([theirs.weight_ih, theirs.weight_hh], 1)
        ours.weight.copy_(weight[order] * double.unsqueeze(1))
        ours.bias.copy_((theirs.bias_ih + theirs.bias_hh)[order] * double)
    return ours, theirs


def run(cell: nn.Module, inputs: Tensor) -> Tensor:
    state = torch.zeros(len(inputs[0]), 5).double(), torch.zeros(len(inputs[0]), 5).double()
    for each in inputs:
        state = cell(each, state)
    return torch.cat(state, -1)


def test_it_is_pytorchs_cell_and_so_is_its_gradient():
    ours, theirs = pair()
    inputs = torch.randn(4, 7, 3, dtype=torch.float64, requires_grad=True)
    results = [run(cell, inputs) for cell in (ours, theirs)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(x.sin().sum(), inputs) for x in results))


def test_vectorized_over_tasks_it_is_each_task_alone():
    ours, _ = pair()
    inputs = torch.randn(2, 4, 7, 3, dtype=torch.float64)
    together = torch.func.vmap(lambda x: run(ours, x))(inputs)
    torch.testing.assert_close(together, torch.stack([run(ours, x) for x in inputs]))

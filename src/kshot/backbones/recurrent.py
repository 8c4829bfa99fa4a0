"""Recurrent cells of plain operations, which `torch.func.vmap` can vectorize."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CellState", "LSTMCell"]

CellState = tuple[Tensor, Tensor]
"""Output and content of a cell, each (n, hidden)."""


class LSTMCell(nn.Module):
    """A long short-term memory: one step for n sequences.

    With input x, output h and content c, and sigma the logistic function,

        c <- sigma(f) c + sigma(i) tanh(u),   h <- sigma(o) tanh(c),

    where i, f, o, u are linear in (x, h). It computes what `torch.nn.LSTMCell` does, whose fused
    kernels have no batching rule. On a CPU a sigmoid is a fraction of the price of a tanh, which is
    2 sigma(2u) - 1: so weights and biases are those of i, f, o and 2u, and one sigmoid serves all.

    Args:
        num_inputs: numbers of an input.
        hidden: numbers of the output, and of the content.

    Example:
        >>> cell = LSTMCell(3, 20)
        >>> output, content = cell(torch.zeros(7, 3), cell.initial_state(7))
        >>> output.shape
        torch.Size([7, 20])

    Reference:
        Long Short-Term Memory. Neural Computation 1997. https://doi.org/10.1162/neco.1997.9.8.1735
    """

    def __init__(self, num_inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        limit = hidden**-0.5
        self.weight = nn.Parameter(
            torch.empty(4 * hidden, num_inputs + hidden).uniform_(-limit, limit)
        )
        self.bias = nn.Parameter(torch.empty(4 * hidden).uniform_(-limit, limit))
        with torch.no_grad():
            self.weight[3 * hidden :] *= 2
            self.bias[3 * hidden :] *= 2

    def initial_state(self, n: int) -> CellState:
        """Output and content before the first step: zeros."""
        zeros = self.weight.new_zeros(n, self.hidden)
        return zeros, zeros

    def forward(self, inputs: Float[Tensor, "n inputs"], state: CellState) -> CellState:
        """Output and content after an input."""
        output, content = state
        gates = torch.addmm(self.bias, torch.cat([inputs, output], -1), self.weight.mT).sigmoid()
        enter, forget, show, candidate = gates.chunk(4, -1)
        content = torch.addcmul(forget * content, enter, 2 * candidate - 1)
        return show * (2 * (2 * content).sigmoid() - 1), content

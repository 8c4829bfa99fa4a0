"""Full context embeddings: what a support set says of its examples, and of a query."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["QueryContext", "SupportContext"]


class SupportContext(nn.Module):
    """Embeddings of support examples in the context of the whole support set (appendix A.2).

    g(x_i, S) = g'(x_i) + forward_i + backward_i, where forward and backward are the outputs of two
    LSTMs that read the support set from its first and from its last example. So the order of the
    examples matters: episodes draw it anew.

    Args:
        dim: size of an embedding, and of the LSTMs' states.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.forwards = nn.LSTMCell(dim, dim)
        self.backwards = nn.LSTMCell(dim, dim)

    def forward(
        self, embeddings: Float[Tensor, "tasks n dim"], counted: Bool[Tensor, "tasks n"]
    ) -> Float[Tensor, "tasks n dim"]:
        """Embeddings in context; rows that are not counted are read past."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.to(self.forwards.weight_hh.dtype)
            read = _outputs(self.forwards, embeddings, counted)
            back = _outputs(self.backwards, embeddings.flip(1), counted.flip(1)).flip(1)
            return embeddings + read + back


class QueryContext(nn.Module):
    """Embeddings of queries after reading the support set by attention (appendix A.1).

    With f' the query's embedding, h_0 = f', c_0 = 0 and g_i the support's embeddings, each of
    `num_reads` steps is

        r = sum of a_i g_i,   a = softmax over i of h . g_i,
        h^, c = LSTM(f', [h, r], c),   h = h^ + f'.

    The paper's LSTM has the state [h, r], twice as wide as its output h^; here r enters beside f',
    by the same linear map from (f', h, r) to the gates.

    Args:
        dim: size of an embedding, and of the LSTM's state.
        num_reads: steps.
    """

    def __init__(self, dim: int, num_reads: int) -> None:
        super().__init__()
        if num_reads < 1:
            raise ValueError(f"num_reads must be at least 1, not {num_reads}.")
        self.cell = nn.LSTMCell(2 * dim, dim)
        self.num_reads = num_reads

    def forward(
        self,
        embeddings: Float[Tensor, "tasks m dim"],
        support: Float[Tensor, "tasks n dim"],
        counted: Bool[Tensor, "tasks n"],
    ) -> Float[Tensor, "tasks m dim"]:
        """Embeddings in context; support rows that are not counted get no attention."""
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = self.cell.weight_hh.dtype
            return self._read(embeddings.to(dtype), support.to(dtype), ~counted.unsqueeze(1))

    def _read(
        self,
        embeddings: Float[Tensor, "tasks m dim"],
        support: Float[Tensor, "tasks n dim"],
        absent: Bool[Tensor, "tasks 1 n"],
    ) -> Float[Tensor, "tasks m dim"]:
        tasks, m, dim = embeddings.shape
        lowest = torch.finfo(embeddings.dtype).min
        flat = embeddings.reshape(tasks * m, dim)
        hidden, cell = embeddings, torch.zeros_like(flat)
        for _ in range(self.num_reads):
            attention = (hidden @ support.mT).masked_fill(absent, lowest).softmax(-1)
            read = (attention @ support).reshape(tasks * m, dim)
            output, cell = self.cell(
                torch.cat([flat, read], -1), (hidden.reshape(tasks * m, dim), cell)
            )
            hidden = (output + flat).view(tasks, m, dim)
        return hidden


def _outputs(
    lstm: nn.LSTMCell, inputs: Float[Tensor, "tasks n dim"], counted: Bool[Tensor, "tasks n"]
) -> Float[Tensor, "tasks n dim"]:
    """An LSTM's output at every row; one that is not counted leaves the state as it is."""
    hidden = cell = torch.zeros_like(inputs[:, 0])
    outputs = []
    for row, real in zip(inputs.unbind(1), counted.unsqueeze(-1).unbind(1), strict=True):
        new_hidden, new_cell = lstm(row, (hidden, cell))
        hidden, cell = torch.where(real, new_hidden, hidden), torch.where(real, new_cell, cell)
        outputs.append(hidden)
    return torch.stack(outputs, 1)

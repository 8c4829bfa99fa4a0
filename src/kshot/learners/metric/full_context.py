"""Full context embeddings: what a support set says of its examples, and of a query."""

import torch
import torch.nn.functional as F
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
            # The second LSTM reads backwards; both take a step in one product.
            lstms, read = (self.forwards, self.backwards), (embeddings, embeddings.flip(1))
            rows = torch.stack([_projected(lstm, x) for lstm, x in zip(lstms, read, strict=True)])
            weight = torch.stack([lstm.weight_hh for lstm in lstms]).mT
            real = torch.stack([counted, counted.flip(1)]).unsqueeze(-1)
            hidden = cell = embeddings.new_zeros(2, len(embeddings), embeddings.shape[2])
            outputs = []
            for row, is_real in zip(rows.unbind(2), real.unbind(2), strict=True):
                new_hidden, new_cell = _stepped(torch.baddbmm(row, hidden, weight), cell)
                hidden = torch.where(is_real, new_hidden, hidden)
                cell = torch.where(is_real, new_cell, cell)
                outputs.append(hidden)
            forwards, backwards = torch.stack(outputs, 2)
            return embeddings + forwards + backwards.flip(1)


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
        # What each step's gates get from f' alone is the same in all.
        of_query = _projected(self.cell, flat)
        weight = torch.cat([self.cell.weight_ih[:, dim:], self.cell.weight_hh], 1)
        hidden, cell = embeddings, torch.zeros_like(flat)
        for _ in range(self.num_reads):
            attention = (hidden @ support.mT).masked_fill(absent, lowest).softmax(-1)
            both = torch.cat([attention @ support, hidden], -1).view(tasks * m, 2 * dim)
            output, cell = _stepped(torch.addmm(of_query, both, weight.mT), cell)
            hidden = (output + flat).view(tasks, m, dim)
        return hidden


def _projected(lstm: nn.LSTMCell, inputs: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n gates"]:
    """What an LSTM's gates get from the first part of its inputs, which is all or half of them."""
    weight = lstm.weight_ih[:, : inputs.shape[-1]]
    return F.linear(inputs, weight, lstm.bias_ih + lstm.bias_hh)


def _stepped(
    gates: Float[Tensor, "*n gates"], cell: Float[Tensor, "*n dim"]
) -> tuple[Float[Tensor, "*n dim"], Float[Tensor, "*n dim"]]:
    """The output and the cell of an LSTM whose gates are known before their nonlinearities."""
    enter, keep, new, leave = gates.chunk(4, -1)
    cell = torch.addcmul(keep.sigmoid() * cell, enter.sigmoid(), new.tanh())
    return leave.sigmoid() * cell.tanh(), cell

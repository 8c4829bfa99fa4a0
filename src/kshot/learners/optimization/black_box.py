"""A network that minimizes functions without gradients: it reads values and says where to look."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.recurrent import CellState, LSTMCell

__all__ = ["BlackBoxOptimizer", "Search"]


class Search(NamedTuple):
    """Where the searches of some functions stand.

    Attributes:
        x: (problems, dim) where to look next, in the unit cube.
        memory: what the network remembers of each.
        lowest: (problems,) the lowest value seen; infinite before the first.
    """

    x: Float[Tensor, "problems dim"]
    memory: CellState
    lowest: Float[Tensor, " problems"]


class BlackBoxOptimizer(nn.Module):
    """Learning to learn without gradient descent, by gradient descent.

    A recurrent network proposes where to evaluate a function, reads the value, and proposes again
    (section 2 of the paper):

        h_t, x_{t+1} = RNN(h_{t-1}, x_t, y_t),   y_t = f(x_t).

    In training, functions are differentiable, samples of a Gaussian process say, and gradients flow
    through y_t; at test a function is only evaluated. A proposal costs two small products of
    matrices, whatever the number of values so far.

    Args:
        dim: of the unit cube that functions are on.
        hidden: numbers of the state of the LSTM.

    Example:
        >>> optimizer = BlackBoxOptimizer(2)
        >>> x, y = optimizer.minimize(lambda x: (x - 0.3).square().sum(-1), 20)
        >>> x.shape, y.shape
        (torch.Size([20, 1, 2]), torch.Size([20, 1]))

    Note:
        The network is trained on functions of mean 0 and variance 1: shift and scale others so.

    Reference:
        Learning to Learn without Gradient Descent by Gradient Descent. ICML 2017.
        https://arxiv.org/abs/1611.03824
    """

    def __init__(self, dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.dim = dim
        self.cell = LSTMCell(dim + 1, hidden)
        self.proposes = nn.Linear(hidden, dim)
        self.first = nn.Parameter(torch.zeros(dim))

    def start(self, num: int) -> Search:
        """Searches of some functions before anything is seen: at a learned place."""
        x = self.first.sigmoid().expand(num, -1)
        infinite = x.new_full((num,), torch.inf)
        return Search(x, self.cell.initial_state(num), infinite)

    def observe(self, search: Search, values: Float[Tensor, " problems"]) -> Search:
        """Read the values where the searches wanted to look; they know where to look next."""
        read = torch.cat([2 * search.x - 1, values.unsqueeze(-1)], -1)
        memory = self.cell(read, search.memory)
        lowest = torch.minimum(search.lowest, values)
        return Search(self.proposes(memory[0]).sigmoid(), memory, lowest)

    @torch.no_grad()
    def minimize(
        self, function: Callable[[Tensor], Tensor], num_evaluations: int, num: int = 1
    ) -> tuple[Float[Tensor, "evaluations problems dim"], Float[Tensor, "evaluations problems"]]:
        """Evaluate functions where the network says.

        Args:
            function: from points (problems, dim) of the unit cube to values (problems,).
            num_evaluations: how often.
            num: functions at once.

        Returns:
            Every point and its value.
        """
        search, points, values = self.start(num), [], []
        for _ in range(num_evaluations):
            points.append(search.x)
            values.append(function(search.x))
            search = self.observe(search, values[-1])
        return torch.stack(points), torch.stack(values)

"""A learned optimizer: a small LSTM that reads a coordinate's gradients and says its steps."""

from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.optimization.update_rules.coordinatewise import CoordinatewiseRule

__all__ = ["LearnedOptimizer"]


class LearnedOptimizer(CoordinatewiseRule):
    """Learning to learn by gradient descent: the step itself is what a memory says.

    With h the output of a memory that has read the gradients of a coordinate so far,

        theta <- theta + scale (w h + b),

    and weights learned so that losses along the way become small (equations 2 and 3 of the paper).
    The memory alone moves a coordinate: where a `GatedRule` moves along the gradient, this rule may
    move without one.

    Args:
        num_layers: layers of the memory, at least 1.
        hidden: numbers of a layer's state.
        scale: of the steps; small, so that learning begins near where nothing moves.
        preprocessed: whether the memory reads gradients as `preprocess` makes them. The paper does
            without for quadratics, whose gradients are of one size.
        chunk_size: coordinates (of each task) computed at once.

    Example:
        >>> import torch
        >>> rule = LearnedOptimizer()
        >>> params = {"x": torch.ones(3)}
        >>> moved, state = rule.step(params, params, rule.init(params), loss=torch.tensor(1.0))
        >>> moved["x"].shape
        torch.Size([3])

    Reference:
        Learning to learn by gradient descent by gradient descent. NeurIPS 2016.
        https://arxiv.org/abs/1606.04474
    """

    def __init__(
        self,
        *,
        num_layers: int = 2,
        hidden: int = 20,
        scale: float = 0.1,
        preprocessed: bool = True,
        chunk_size: int = 8192,
    ) -> None:
        if num_layers < 1:
            raise ValueError("A learned optimizer is its memory: num_layers must be at least 1.")
        super().__init__(
            num_layers=num_layers,
            hidden=hidden,
            reads_loss=False,
            preprocessed=preprocessed,
            chunk_size=chunk_size,
        )
        self.scale = scale
        self.says = nn.Linear(hidden, 1)

    def begin(self, values: Float[Tensor, " n"]) -> tuple[()]:
        """Nothing beside the memory."""
        return ()

    def move(
        self,
        values: Float[Tensor, " n"],
        grads: Float[Tensor, " n"],
        features: Float[Tensor, "n features"],
        own: tuple[()],
    ) -> tuple[Float[Tensor, " n"], tuple[()]]:
        """Each coordinate moves by what its memory says."""
        return values + (self.scale * self.says(features).squeeze(-1)).to(values.dtype), own

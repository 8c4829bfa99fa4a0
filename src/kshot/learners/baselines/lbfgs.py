"""L-BFGS for convex functions of one tensor."""

from collections import deque
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

__all__ = ["minimized"]


def minimized(
    function: Callable[[Tensor], tuple[Float[Tensor, ""], Float[Tensor, "*shape"]]],
    start: Float[Tensor, "*shape"],
    *,
    tolerance: float,
    max_steps: int = 300,
    memory: int = 10,
) -> Float[Tensor, "*shape"]:
    """Where a smooth convex function is least, by L-BFGS with halved steps.

    Neither scipy's nor PyTorch's: the one computes on threads of its own, which get in the way of
    PyTorch's, the other takes over a second to load before its first step.

    Args:
        function: from a point to the value and the slope there.
        start: where to begin.
        tolerance: largest element of the slope at the end.
        max_steps: steps after which the point is taken as it is.
        memory: steps that the curvature is told from.

    Example:
        >>> import torch
        >>> target = torch.tensor([1.0, -2.0])
        >>> minimized(lambda x: ((x - target).square().sum(), 2 * (x - target)), torch.zeros(2),
        ...           tolerance=1e-6)
        tensor([ 1., -2.])

    Reference:
        On the Limited Memory BFGS Method for Large Scale Optimization. Mathematical Programming
        1989. https://doi.org/10.1007/BF01589116
    """
    x, (value, slope) = start, function(start)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
    for _ in range(max_steps):
        if float(slope.abs().max()) <= tolerance:
            break
        direction = -_preconditioned(slope, pairs)
        step = 1.0 if pairs else 1 / float(slope.norm())
        enough = 1e-4 * (slope * direction).sum()
        while True:
            new = x + step * direction
            new_value, new_slope = function(new)
            if bool(new_value <= value + step * enough):
                break
            step /= 2
            if step < 1e-12:  # as low as rounding lets it
                return x
        moved, turned = new - x, new_slope - slope
        if bool((moved * turned).sum() > 0):
            pairs.append((moved, turned))
        x, value, slope = new, new_value, new_slope
    return x


def _preconditioned(slope: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The slope times the inverse curvature that moves and turns of the slope tell of."""
    shares = []
    for moved, turned in reversed(pairs):
        share = (moved * slope).sum() / (moved * turned).sum()
        slope = slope - share * turned
        shares.append(share)
    if pairs:
        moved, turned = pairs[-1]
        slope = slope * ((moved * turned).sum() / turned.square().sum())
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        slope = slope + moved * (share - (turned * slope).sum() / (moved * turned).sum())
    return slope

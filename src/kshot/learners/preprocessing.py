"""Gradients of every size as numbers that a network can read."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["preprocess"]


def preprocess(values: Float[Tensor, "*shape"], p: float = 10.0) -> Float[Tensor, "*shape 2"]:
    """Size and sign of each number, on scales that stay within reach of each other.

    A number v becomes (appendix A of the paper)

        (ln|v| / p, sign v) where |v| >= e^-p,   (-1, e^p v) elsewhere,

    which is continuous: the first is ln|v| / p held at -1, the second e^p v held within -1 and 1.

    Args:
        values: gradients or losses.
        p: below e^-p a number counts as small.

    Example:
        >>> preprocess(torch.tensor([1.0, -1e-3, 0.0]))
        tensor([[ 0.0000,  1.0000],
                [-0.6908, -1.0000],
                [-1.0000,  0.0000]])

    Note:
        The authors' code has p = 5, and the same two numbers otherwise.

    Reference:
        Learning to learn by gradient descent by gradient descent. NeurIPS 2016.
        https://arxiv.org/abs/1606.04474
    """
    small = math.exp(-p)
    return torch.stack(
        [values.abs().clamp_min(small).log() / p, (values / small).clamp(-1, 1)], dim=-1
    )

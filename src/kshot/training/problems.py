"""Functions to learn optimization on: quadratics, small networks, samples of Gaussian processes."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kshot.learners.optimization.update_rules import Params
from kshot.options import checks_options
from kshot.training.unroll import OptimizationProblem

__all__ = ["classifiers", "digits", "gaussian_processes", "quadratics"]


def quadratics(num: int, dim: int = 10, *, generator: torch.Generator) -> OptimizationProblem:
    """Random quadratics |W theta - y|^2, W (dim, dim) and y (dim) of normal numbers.

    Example:
        >>> problem = quadratics(4, generator=torch.Generator().manual_seed(0))
        >>> problem.loss(problem.init, 0).shape
        torch.Size([4])

    Reference:
        Learning to learn by gradient descent by gradient descent. NeurIPS 2016.
        https://arxiv.org/abs/1606.04474
    """
    matrix = torch.randn(num, dim, dim, generator=generator)
    target = torch.randn(num, dim, generator=generator)
    start = 0.01 * torch.randn(num, dim, generator=generator)

    def loss(params: Params, step: int) -> Float[Tensor, " problems"]:
        reached = (matrix @ params["theta"].unsqueeze(-1)).squeeze(-1)
        return (reached - target).square().sum(-1)

    return OptimizationProblem({"theta": start}, loss)


def digits() -> tuple[Float[Tensor, "n 64"], Int[Tensor, " n"]]:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    return torch.tensor(inputs / 16, dtype=torch.float32), torch.tensor(labels)


@checks_options
def classifiers(
    num: int,
    examples: tuple[Float[Tensor, "n inputs"], Int[Tensor, " n"]],
    *,
    widths: Sequence[int] = (20,),
    activation: Literal["sigmoid", "relu"] = "sigmoid",
    batch_size: int = 128,
    generator: torch.Generator,
) -> OptimizationProblem:
    """Networks that learn one classification from minibatches, each from a start of its own.

    Args:
        num: how many.
        examples: inputs, and labels 0, 1, ...
        widths: of the hidden layers.
        activation: after each of them.
        batch_size: examples of a step, drawn anew with replacement.
        generator: of the starts and of the minibatches.

    Note:
        Weights start within 1 / sqrt(inputs) of zero, so that deeper networks start alike; the
        paper's are normal with standard deviation .01.
    """
    inputs, labels = examples
    sizes = [inputs.shape[1], *widths, int(labels.max()) + 1]
    start: Params = {}
    for place, (before, after) in enumerate(itertools.pairwise(sizes)):
        uniform = torch.rand(num, before, after, generator=generator)
        start[f"weight_{place}"] = (2 * uniform - 1) * before**-0.5
        start[f"bias_{place}"] = torch.zeros(num, 1, after)
    seed = int(torch.randint(2**40, (), generator=generator))
    bend = getattr(torch, activation)

    def loss(params: Params, step: int) -> Float[Tensor, " problems"]:
        drawn = torch.Generator().manual_seed(seed + step)
        rows = torch.randint(len(inputs), (num, batch_size), generator=drawn)
        hidden = inputs[rows]
        for place in range(len(sizes) - 1):
            hidden = hidden if place == 0 else bend(hidden)
            bias, weight = params[f"bias_{place}"], params[f"weight_{place}"]
            hidden = torch.baddbmm(bias, hidden, weight)
        losses = F.cross_entropy(hidden.flatten(0, 1), labels[rows].flatten(), reduction="none")
        return losses.view(num, -1).mean(-1)

    return OptimizationProblem(start, loss)


def gaussian_processes(
    num: int,
    dim: int = 2,
    *,
    lengthscale: float = 0.3,
    num_features: int = 64,
    generator: torch.Generator,
) -> OptimizationProblem:
    """Smooth random functions on the cube [0, 1]^dim, of mean 0 and variance 1 at every point.

    A sample of a Gaussian process of squared-exponential kernel, by random Fourier features:

        f(x) = sqrt(2 / F) sum over k of a_k cos(w_k x + b_k),

    with a_k standard normal, w_k normal of deviation 1 / lengthscale, b_k uniform.

    Args:
        num: how many.
        dim: of the cube.
        lengthscale: distance over which a function changes.
        num_features: F; the process is exact in the limit.
        generator: of functions, and of where to start, uniform in the cube.

    Reference:
        Random Features for Large-Scale Kernel Machines. NeurIPS 2007.
    """
    frequencies = torch.randn(num, dim, num_features, generator=generator) / lengthscale
    phases = 2 * math.pi * torch.rand(num, num_features, generator=generator)
    amplitudes = torch.randn(num, num_features, generator=generator)
    start = torch.rand(num, dim, generator=generator)

    def loss(params: Params, step: int) -> Float[Tensor, " problems"]:
        angles = (params["x"].unsqueeze(1) @ frequencies).squeeze(1) + phases
        return math.sqrt(2 / num_features) * (amplitudes * angles.cos()).sum(-1)

    return OptimizationProblem({"x": start}, loss)

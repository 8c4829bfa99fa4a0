"""Linear heads on frozen embeddings: ridge regression and logistic regression."""

import math
from abc import ABC
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.episodes import one_hot
from kshot.learners.baselines.lbfgs import minimized
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.papers import GOLUB_1979
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options

__all__ = ["LinearHead", "LogisticHead", "RidgeHead", "spanning_basis"]


class LinearHead(NamedTuple):
    """The summary of a linear head: logits are embeddings @ weight + bias.

    Attributes:
        weight: (tasks, dim, way).
        bias: (tasks, way).
    """

    weight: Float[Tensor, "tasks dim way"]
    bias: Float[Tensor, "tasks way"]


class LinearHeadLearner(EmbeddingLearner[LinearHead], ABC):
    """A linear classifier of embeddings brought to length 1; subclasses say how it is found.

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` gives the pixel baseline.
        loss: loss reported for the query.
    """

    batch_norm_policies = ("running",)

    def __init__(self, encoder: nn.Module, *, loss: Loss = cross_entropy) -> None:
        super().__init__(encoder, frozen=True, loss=loss)

    def compare(
        self,
        summary: LinearHead,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of each task's head."""
        inputs = F.normalize(embeddings, dim=-1).to(summary.weight.dtype)
        return inputs @ summary.weight + summary.bias.unsqueeze(1)


class RidgeHead(LinearHeadLearner):
    """Ridge regression from embeddings to classes, in closed form; the data choose its strength.

    With the mean taken off embeddings X, of length 1, and off target rows Y, both of the n labelled
    examples, the head is

        W = (X'X + s I)^-1 X'Y,        s = strength * mean |x|^2.

    Of the given strengths each task takes the one with the least squared error when every example
    is predicted by the head of all others. With the hat matrix H = X (X'X + s I)^-1 X' + 1/n that
    error is (Y - HY)_i / (1 - H_ii), so that nothing is solved twice. The only example of a class
    tells nothing of the strength; where every class has but one, it is the given one nearest to 1.

    State:
        `EmbeddingState` of the `LinearHead` of every task.

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` gives the pixel baseline.
        strengths: to choose from, positive, as multiples of the mean squared length.
        loss: loss reported for the query.

    Raises:
        ValueError: without a strength, or for one that is not positive.

    Note:
        Differs from `R2D2`, which learns its strength across tasks and has no intercept.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = RidgeHead(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).argmax(-1)[0]
        tensor([0, 1, 2])

    Reference:
        Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter. Technometrics
        1979 (its leave-one-out form, PRESS).
    """

    paper = GOLUB_1979

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        strengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, loss=loss)
        if not strengths or min(strengths) <= 0:
            raise ValueError(f"Ridge regression needs positive strengths, not {strengths}.")
        self.strengths = tuple(map(float, strengths))

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> LinearHead:
        """Solve each task's ridge regression for every strength, and keep the best."""
        counted = counted_rows(targets, mask, self.loss.kind).unsqueeze(-1)
        with torch.autocast(embeddings.device.type, enabled=False):  # a solution needs its digits
            weights = counted.double()
            number = weights.sum(1, keepdim=True).clamp_min(1)
            inputs = F.normalize(embeddings.double(), dim=-1) * weights
            rows = targets.double().masked_fill(~counted, 0)
            input_mean = inputs.sum(1, keepdim=True) / number
            row_mean = rows.sum(1, keepdim=True) / number
            # Whether a row's class has another example.
            judged = weights * ((rows > 0) & (rows.sum(1, keepdim=True) > 1)).any(-1, keepdim=True)
            inputs, rows = (inputs - input_mean) * weights, (rows - row_mean) * weights
            weight = self._solve(inputs, rows, number, judged)
            bias = row_mean - input_mean @ weight
        dtype = torch.promote_types(embeddings.dtype, torch.float32)
        return LinearHead(weight.to(dtype), bias.squeeze(1).to(dtype))

    def _solve(
        self,
        inputs: Float[Tensor, "tasks n dim"],
        rows: Float[Tensor, "tasks n way"],
        number: Float[Tensor, "tasks 1 1"],
        judged: Float[Tensor, "tasks n 1"],
    ) -> Float[Tensor, "tasks dim way"]:
        """The best ridge solution, from one decomposition for all strengths."""
        axes, squares = _principal_axes(inputs)
        scale = (inputs.square().sum((1, 2)) / number.flatten()).clamp_min(1e-12).unsqueeze(1)
        turned = inputs @ axes
        products = turned.mT @ rows
        errors = []
        for strength in self.strengths:
            shrink = 1 / (squares + strength * scale).unsqueeze(-1)
            hat = turned.square() @ shrink + 1 / number
            left_out = (rows - turned @ (shrink * products)) / (1 - hat).clamp_min(1e-9)
            errors.append((judged * left_out.square()).sum((1, 2)))
        usual = min(range(len(errors)), key=lambda place: abs(math.log(self.strengths[place])))
        best = torch.where(judged.any(1).squeeze(1), torch.stack(errors).argmin(0), usual)
        strengths = torch.tensor(self.strengths, dtype=scale.dtype, device=scale.device)
        return axes @ (products / (squares + strengths[best, None] * scale).unsqueeze(-1))


class LogisticHead(LinearHeadLearner):
    """Multinomial logistic regression on embeddings x, of length 1.

    The head W, b with the least

        inverse_strength * sum_i cross_entropy(W'x_i + b, y_i) + |W|^2 / 2

    over the labelled examples, found by L-BFGS.

    State:
        `EmbeddingState` of the `LinearHead` of every task.

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` gives the pixel baseline.
        inverse_strength: how little weights are drawn to zero (C in scikit-learn's class, which
            gives the same head for three classes or more, and for two at twice this C).
        loss: loss reported for the query.

    Note:
        An example of several classes counts for the most probable one. No gradient passes through.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = LogisticHead(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).argmax(-1)[0]
        tensor([0, 1, 2])
    """

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        inverse_strength: float = 10.0,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, loss=loss)
        if inverse_strength <= 0:
            raise ValueError(f"inverse_strength must be positive, not {inverse_strength}.")
        self.inverse_strength = inverse_strength

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> LinearHead:
        """Fit each task's weights, one task after the other."""
        counted = counted_rows(targets, mask, self.loss.kind)
        inputs = F.normalize(embeddings.detach().double(), dim=-1).cpu()
        rows = one_hot(targets.argmax(-1), targets.shape[-1], torch.float64).cpu()
        heads = [
            self._fit(inputs[task][kept], rows[task][kept])
            for task, kept in enumerate(counted.cpu())
        ]
        dtype = torch.promote_types(embeddings.dtype, torch.float32)
        weight, bias = (
            torch.stack(part).to(embeddings.device, dtype) for part in zip(*heads, strict=True)
        )
        return LinearHead(weight, bias)

    def _fit(
        self, inputs: Float[Tensor, "n dim"], rows: Float[Tensor, "n way"]
    ) -> tuple[Float[Tensor, "dim way"], Float[Tensor, " way"]]:
        """Weights and intercepts of one task; nothing of classes that have no example."""
        present = rows.any(0)
        weight = inputs.new_zeros(inputs.shape[1], len(present))
        bias = inputs.new_zeros(len(present))
        if int(present.sum()) < 2:
            return weight, bias
        basis = spanning_basis(inputs)
        x = F.pad(inputs if basis is None else inputs @ basis, (0, 1), value=1.0)
        y = rows[:, present]

        def loss(solution: Tensor) -> tuple[Tensor, Tensor]:
            logs = (x @ solution).log_softmax(-1)
            penalized = solution.clone()
            penalized[-1] = 0  # intercepts are free
            slope = penalized + self.inverse_strength * (x.mT @ (logs.exp() - y))
            return penalized.square().sum() / 2 - self.inverse_strength * (y * logs).sum(), slope

        solution = minimized(
            loss,
            x.new_zeros(x.shape[1], y.shape[1]),
            tolerance=1e-5 * self.inverse_strength * len(x),
        )
        weight[:, present] = solution[:-1] if basis is None else basis @ solution[:-1]
        bias[present] = solution[-1]
        return weight, bias


def spanning_basis(inputs: Float[Tensor, "*tasks n dim"]) -> Float[Tensor, "*tasks dim n"] | None:
    """An orthonormal basis of the inputs' span where they are fewer than dimensions, else None.

    Weights drawn to zero stay within it: the problem is the same in its coordinates, and smaller.
    """
    n, dim = inputs.shape[-2:]
    return torch.linalg.qr(inputs.mT).Q if n < dim else None


def _principal_axes(
    inputs: Float[Tensor, "tasks n dim"],
) -> tuple[Float[Tensor, "tasks dim axes"], Float[Tensor, "tasks axes"]]:
    """Orthonormal axes of the inputs and the sum of squares along each; of fewer of n and dim.

    From the decomposition of X'X or of XX', whichever is smaller. Axes along which nothing lies
    have no direction, and are left zero.
    """
    n, dim = inputs.shape[-2:]
    if dim <= n:
        squares, axes = torch.linalg.eigh(inputs.mT @ inputs)
        return axes, squares.clamp_min(0)
    squares, rows = torch.linalg.eigh(inputs @ inputs.mT)
    tiny = squares[:, -1:] * n * torch.finfo(squares.dtype).eps
    inverse_lengths = torch.where(squares > tiny, squares.clamp_min(tiny).rsqrt(), 0)
    return (inputs.mT @ rows) * inverse_lengths.unsqueeze(1), squares.clamp_min(0)

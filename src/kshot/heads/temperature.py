"""Calibrated probabilities: one number that logits are divided by, and how well it fits."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

__all__ = ["calibration_error", "fit_temperature"]


def fit_temperature(logits: Float[Tensor, "n way"], columns: Int[Tensor, " n"]) -> float:
    """The temperature T > 0 whose probabilities softmax(logits / T) fit known classes best.

    By least cross-entropy against targets that leave 1 / (n + 2) to the other classes, as Platt
    proposed: n right predictions do not prove that none will be wrong.

    Args:
        logits: (n, way) of examples that the head did not see.
        columns: (n,) their classes.

    Reference:
        On Calibration of Modern Neural Networks. ICML 2017. https://arxiv.org/abs/1706.04599
    """
    n, way = logits.shape
    if not n:
        raise ValueError("A temperature needs at least one prediction to fit.")
    logits = logits.double()
    # In units of the logits' own spread, so that one range of temperatures serves every head.
    unit = float((logits - logits.mean(-1, keepdim=True)).square().mean().sqrt().clamp_min(1e-12))
    rest = 1 / (n + 2)
    targets = F.one_hot(columns, way).double() * (1 - rest * way / max(way - 1, 1))
    targets += rest / max(way - 1, 1)

    def loss(log_temperature: float) -> float:
        scaled = logits / (unit * np.exp(log_temperature))
        return float(F.cross_entropy(scaled, targets))

    found = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded")
    return unit * float(np.exp(found.x))


def calibration_error(
    probabilities: Float[Tensor, "n way"], columns: Int[Tensor, " n"], *, bins: int = 15
) -> float:
    """Expected calibration error: how far confidence is from accuracy, over bins of confidence.

    Example:
        >>> calibration_error(torch.tensor([[0.8, 0.2], [0.8, 0.2]]), torch.tensor([0, 1]))
        0.3...
    """
    confidence, predicted = probabilities.double().max(-1)
    correct = (predicted == columns).double()
    places = (confidence * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(
        0, places.cpu(), (confidence - correct).cpu()
    )
    return float(gaps.abs().sum() / len(columns))

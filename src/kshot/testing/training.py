"""Checks of the meta-loss and its gradient: what meta-training relies on."""

import copy

import torch
from torch import Tensor

from kshot.episodes import Episodes
from kshot.learner import MetaLearner
from kshot.testing.comparison import (
    double_copy,
    expect,
    expect_same,
    predict_query,
    predictions_of,
    seeded,
    trainable,
)
from kshot.testing.tasks import separable

__all__ = [
    "check_determinism",
    "check_forward",
    "check_learning",
    "check_meta_gradient",
    "check_parameters",
    "check_strategies",
    "meta_gradient_error",
]


def check_meta_gradient(
    learner: MetaLearner, episodes: Episodes, *, tolerance: float = 1e-6
) -> None:
    """The gradient of the meta-loss is exact: central differences agree along random directions.

    A wrong gradient is wrong for every step, so a shorter one is tried where a kink of ReLU or a
    strong curvature may have spoiled the difference.
    """
    error = float("inf")
    for step in (1e-5, 1e-6, 1e-7):
        error = min(error, meta_gradient_error(learner, episodes, step=step))
        if error < tolerance:
            return
    expect(
        False,
        f"the meta-gradient must be the gradient of meta_loss, but central differences in float64 "
        f"are {error:.1e} off (relative; at most {tolerance:.0e}). Usual reasons: inner gradients "
        "that leave no graph; fused affine normalization under vmap (docs/vmap.md); a network "
        "with kinks wherever one looks, where a smooth activation helps",
    )


def meta_gradient_error(
    learner: MetaLearner,
    episodes: Episodes,
    *,
    num_directions: int = 3,
    step: float = 1e-5,
    seed: int = 0,
) -> float:
    """Largest relative error of the meta-gradient against central differences, in float64.

    Along unit directions d of all trainable parameters theta, drawn at random, the slope g . d of
    the gradient g is compared with (L(theta + h d) - L(theta - h d)) / 2h. An exact gradient of a
    smooth loss is off by about 1e-9. What first-order methods give is not the gradient of L.

    Args:
        learner: computed in training mode, from the same seed each time.
        episodes: the tasks of the meta-loss L.
        num_directions: how many directions.
        step: h, the length of a step along a direction.
        seed: of the directions.

    Returns:
        The largest difference divided by the largest slope.
    """
    learner, episodes = double_copy(learner, episodes)
    parameters = trainable(learner.train())
    # In training mode the meta-loss may write buffers, so every value is that of a copy.
    _, gradient = seeded(seed, lambda: _loss_and_gradient(copy.deepcopy(learner), episodes))
    generator = torch.Generator().manual_seed(seed)

    def loss_at(distance: float, direction: list[Tensor]) -> float:
        moved = copy.deepcopy(learner)
        with torch.no_grad():
            for parameter, part in zip(trainable(moved), direction, strict=True):
                parameter.add_(distance * part)
            return seeded(seed, lambda: moved.meta_loss(episodes)).item()

    slopes, differences = [], []
    for _ in range(num_directions):
        drawn = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        length = torch.cat([part.flatten() for part in drawn]).norm()
        direction = [(d / length).to(p.device) for d, p in zip(drawn, parameters, strict=True)]
        slopes.append(sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True)))
        differences.append((loss_at(step, direction) - loss_at(-step, direction)) / (2 * step))
    largest = max(abs(slope) for slope in (*slopes, *differences))
    return max(abs(a - b) for a, b in zip(slopes, differences, strict=True)) / max(largest, 1e-30)


def check_parameters(learner: MetaLearner, episodes: Episodes) -> None:
    """Every parameter gets a finite gradient from the meta-loss, or is frozen."""
    learner, episodes = double_copy(learner, episodes)
    if not trainable(learner):
        return
    learner.train().meta_loss(episodes).backward()
    grads = {name: p.grad for name, p in learner.named_parameters() if p.requires_grad}
    missing = [name for name, grad in grads.items() if grad is None]
    expect(
        not missing,
        f"the meta-loss has no gradient in {', '.join(missing)}: use these parameters, or freeze "
        "them by requires_grad_(False)",
    )
    bad = [name for name, grad in grads.items() if grad is not None and not grad.isfinite().all()]
    expect(not bad, f"the meta-gradient must be finite, but is not in {', '.join(bad)}")


def check_strategies(learner: MetaLearner, episodes: Episodes) -> None:
    """Tasks computed by vmap or in a loop, where both can be, give the same, gradients included."""
    if not hasattr(learner, "strategy"):
        return
    learner, episodes = double_copy(learner, episodes)
    results = []
    for strategy in ("vmap", "loop"):
        copied = copy.deepcopy(learner)
        copied.strategy = strategy  # pyright: ignore[reportArgumentType]
        predictions = predictions_of(copied.eval(), episodes)
        trained = seeded(0, lambda copied=copied: _loss_and_gradient(copied.train(), episodes))
        results.append((predictions, *trained))
    for name, first, second in zip(("predictions", "loss", "gradient"), *results, strict=True):
        expect_same(first, second, f"the strategies vmap and loop must give the same {name}")


def check_determinism(learner: MetaLearner, episodes: Episodes) -> None:
    """The same seed gives the same meta-loss and meta-gradient."""
    learner, episodes = double_copy(learner, episodes)
    first, second = (
        seeded(0, lambda: _loss_and_gradient(copy.deepcopy(learner).train(), episodes))
        for _ in range(2)
    )
    expect_same(second, first, "the same seed must give the same meta-loss and meta-gradient")


def check_forward(learner: MetaLearner, episodes: Episodes) -> None:
    """Calling the learner calls `meta_loss`, an overriding one too."""
    learner, episodes = double_copy(learner, episodes)
    marker = torch.tensor(0.0)
    overriding = {"meta_loss": lambda self, episodes: marker}
    learner.__class__ = type("Overriding", (type(learner),), overriding)
    expect(
        learner(episodes) is marker,
        "forward must look up self.meta_loss at every call, so that DistributedDataParallel, "
        "torch.compile and subclasses compute the same loss",
    )


def check_learning(
    learner: MetaLearner,
    episodes: Episodes,
    *,
    surrogate: bool = False,
    num_steps: int = 30,
    outer_lr: float = 0.01,
) -> None:
    """The meta-loss falls on separable tasks of the same shape; a frozen learner passes.

    Where the meta-loss is a surrogate, it is enough that the query loss after adaptation falls.
    """
    learner, episodes = double_copy(learner, episodes)
    if not trainable(learner):
        return
    episodes = separable(episodes, learner.loss.kind)
    optimizer = torch.optim.Adam(trainable(learner.train()), lr=outer_lr)
    losses, adapted = [], [_adapted_loss(learner, episodes)]
    for step in range(num_steps):
        loss = seeded(step, lambda: learner(episodes))  # views and dropout, as in every run
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    adapted.append(_adapted_loss(learner, episodes))
    expect(
        losses[-1] < 0.9 * losses[0] or (surrogate and adapted[-1] < 0.9 * adapted[0]),
        f"{num_steps} steps of Adam must lower the loss of a separable problem, but it went from "
        f"{losses[0]:.3g} to {losses[-1]:.3g}, after adaptation from {adapted[0]:.3g} to "
        f"{adapted[-1]:.3g}",
    )


def _adapted_loss(learner: MetaLearner, episodes: Episodes) -> float:
    """The query loss after adaptation, in evaluation mode."""
    with torch.no_grad():
        learner.eval()
        predictions = predict_query(learner, learner.adapt(episodes.support), episodes.query)
        learner.train()
        return learner.query_loss(predictions, episodes).item()


def _loss_and_gradient(learner: MetaLearner, episodes: Episodes) -> tuple[Tensor, list[Tensor]]:
    """The meta-loss and its gradient in the trainable parameters, zero where it has none."""
    loss, parameters = learner.meta_loss(episodes), trainable(learner)
    if not parameters:
        return loss.detach(), []
    gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return loss.detach(), list(gradient)

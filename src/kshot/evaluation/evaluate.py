"""Evaluate a learner on seeded episodes: a score for each, a mean, an interval."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.backbones.normalization import has_running_averages
from kshot.config import BatchNormPolicy
from kshot.data.sampler import Sampler
from kshot.episodes import Episodes
from kshot.evaluation.embedded import embedded_once
from kshot.evaluation.intervals import MeanInterval, mean_interval
from kshot.learner import MetaLearner
from kshot.losses import Loss, check_examples, counted_rows, mask_absent

__all__ = [
    "Evaluation",
    "NoNumberError",
    "episode_scores",
    "evaluate",
    "evaluation_mode",
    "fitting_batch",
    "paired_difference",
    "predicted",
    "require_numbers",
]


class NoNumberError(ValueError):
    """A score that is no number, because a prediction is none or its error is infinite."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a learner on a sequence of episodes.

    Attributes:
        scores: one for each episode: accuracy of its queries (a fraction), or mean squared error.
        metric: which of the two.
        batch_norm: BatchNorm policy they were computed under.
        transductive: whether a prediction depended on the other queries.
        num_test_steps: inner steps that were taken; None for a learner that takes none.
    """

    scores: np.ndarray
    metric: Literal["accuracy", "mean_squared_error"]
    batch_norm: BatchNormPolicy
    transductive: bool
    num_test_steps: int | None = None

    @property
    def interval(self) -> MeanInterval:
        """The mean score and its 95 % interval over episodes."""
        return mean_interval(self.scores)


def evaluate(
    learner: MetaLearner,
    sampler: Sampler,
    num_episodes: int = 600,
    *,
    batch_episodes: int = 0,
    batch_norm: BatchNormPolicy | None = None,
    num_test_steps: int | None = None,
    device: torch.device | str | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a learner on the episodes 0 .. num_episodes - 1 of a sampler.

    The same sampler gives the same episodes to every learner, so that two evaluations can be
    compared by `paired_difference`.

    Args:
        learner: put in evaluation mode while it runs.
        sampler: where episodes come from.
        num_episodes: how many.
        batch_episodes: episodes computed at once, which the scores do not depend on; 0 takes as
            many as make about 400 examples, since larger batches leave a CPU's caches.
        batch_norm: policy to evaluate under; None keeps the learner's own.
        num_test_steps: inner steps to take, for learners that take gradient steps; None keeps the
            learner's own.
        device: where to compute, the learner moves there; None computes where it is.
        on_batch: called with the number of episodes done after each batch.

    Raises:
        NoNumberError: when a prediction is no number, or an error is infinite.
        ValueError: when the learner cannot work under the policy or takes no gradient steps.
    """
    if num_episodes < 2:
        raise ValueError(f"An evaluation needs at least 2 episodes, not {num_episodes}.")
    if device is not None:
        learner.to(device)
    if batch_norm is not None:
        _check_policy(learner, batch_norm)
    if num_test_steps is not None and learner.num_test_steps is None:
        raise ValueError(f"{type(learner).__name__} takes no inner steps: leave num_test_steps.")
    scores: list[np.ndarray] = []
    with torch.no_grad(), evaluation_mode(learner, batch_norm, num_test_steps):
        batches = predicted(learner, sampler, num_episodes, batch_episodes, device)
        for episodes, predictions in batches:
            scores.append(episode_scores(predictions, episodes, learner.loss).numpy())
            if on_batch:
                on_batch(sum(map(len, scores)))
        policy, transductive = learner.batch_norm, learner.transductive
        steps = learner.num_test_steps
    metric = "accuracy" if learner.loss.kind == "classification" else "mean_squared_error"
    values = np.concatenate(scores)
    if not np.isfinite(values).all():
        number = int(np.flatnonzero(~np.isfinite(values))[0])
        raise NoNumberError(
            f"The learner's error in episode {number} is infinite: its predictions grew beyond "
            "what numbers can hold. Is its inner_lr too large for so many steps?"
        )
    return Evaluation(values, metric, policy, transductive, steps)


def predicted(
    learner: MetaLearner,
    sampler: Sampler,
    num_episodes: int,
    batch_episodes: int = 0,
    device: torch.device | str | None = None,
) -> Iterator[tuple[Episodes, Float[Tensor, "tasks m way"]]]:
    """Episodes 0 .. num_episodes - 1 in batches, each with what a learner predicts of its queries.

    Args:
        learner: in evaluation mode; episodes move to where its parameters are.
        sampler: where episodes come from.
        num_episodes: how many.
        batch_episodes: episodes computed at once; 0 takes as many as fit.
        device: where episodes go for a learner without parameters.

    Raises:
        NoNumberError: for predictions that are NaN.
        ValueError: for episodes that no learner can learn from.
    """
    like = next(learner.parameters(), None)
    place, dtype = (device or "cpu", None) if like is None else (like.device, like.dtype)
    size = batch_episodes or fitting_batch(sampler.sample([0]), learner.batch_norm)
    scored, drawn = embedded_once(learner, sampler)
    for start in range(0, num_episodes, size):
        numbers = range(start, min(start + size, num_episodes))
        episodes = drawn.sample(numbers).to(place, dtype)
        check_examples(episodes.support, learner.loss.kind, "support")
        check_examples(episodes.query, learner.loss.kind, "query")
        state = scored.adapt(episodes.support)
        predictions = scored.predict(state, episodes.query.inputs, episodes.query.mask)
        require_numbers(predictions, numbers)
        yield episodes, predictions


def fitting_batch(episode: Episodes, policy: BatchNormPolicy, examples: int = 400) -> int:
    """How many episodes of this size make about so many examples."""
    support, query = episode.support.targets.shape[1], episode.query.targets.shape[1]
    # Under this policy every query passes through the network with the support set beside it.
    size = support + query * (1 + support if policy == "support_and_query" else 1)
    return max(1, examples // size)


def require_numbers(predictions: Float[Tensor, "tasks m way"], episodes: range) -> None:
    """Raise an error that names the episodes when some predictions are NaN."""
    if predictions.isnan().any():
        raise NoNumberError(
            f"The learner predicts NaN in episodes {episodes.start} to {episodes.stop - 1}. Was "
            "its training cut short by diverging, or is its inner_lr too large?"
        )


def _check_policy(learner: MetaLearner, policy: BatchNormPolicy) -> None:
    if learner.batch_norm in ("none", policy):
        return  # no layer asks, or it is as in training
    if policy not in learner.batch_norm_policies:
        raise ValueError(
            f"{type(learner).__name__} cannot be evaluated under the BatchNorm policy {policy!r}, "
            f"only under {', '.join(learner.batch_norm_policies)}."
        )
    if policy == "running" and not has_running_averages(learner):
        raise ValueError(
            "The BatchNorm policy 'running' reads running averages, and this learner, trained "
            f"under {learner.batch_norm!r}, has none. Evaluate it under 'support_and_query' for "
            "numbers that are not transductive."
        )


def episode_scores(
    predictions: Float[Tensor, "tasks m way"], episodes: Episodes, loss: Loss
) -> Float[Tensor, " tasks"]:
    """Accuracy of each episode's labelled queries (a fraction), or its loss in regression.

    On the CPU and in float64, so that equal counts are equal scores.
    """
    if loss.kind == "regression":
        return loss(predictions, episodes.query.targets, episodes.query.mask).cpu().double()
    predicted = mask_absent(predictions, episodes.present).argmax(-1)
    counted = counted_rows(episodes.query.targets, episodes.query.mask, loss.kind)
    correct = (predicted == episodes.query.targets.argmax(-1)) & counted
    return correct.sum(-1).cpu().double() / counted.sum(-1).cpu().clamp_min(1)


def paired_difference(first: Evaluation, second: Evaluation) -> MeanInterval:
    """The mean difference first - second on the same episodes, with its 95 % interval.

    Raises:
        ValueError: when the two were not scored on equally many episodes by the same metric.
    """
    if len(first.scores) != len(second.scores) or first.metric != second.metric:
        raise ValueError(
            "A paired comparison needs the same episodes and metric: "
            f"{len(first.scores)} episodes of {first.metric} against "
            f"{len(second.scores)} of {second.metric}."
        )
    return mean_interval(first.scores - second.scores)


@contextlib.contextmanager
def evaluation_mode(
    learner: MetaLearner,
    batch_norm: BatchNormPolicy | None = None,
    num_test_steps: int | None = None,
) -> Iterator[None]:
    """Within: the learner is in evaluation mode, under a policy and with a number of steps."""
    # Module by module: one that is kept in evaluation mode during training stays there.
    modes = [(module, module.training) for module in learner.modules()]
    # An ensemble has learners within.
    learners = [module for module in learner.modules() if isinstance(module, MetaLearner)]
    own: list[tuple[MetaLearner, BatchNormPolicy, int | None]] = [
        (each, each.batch_norm, each.num_test_steps) for each in learners
    ]
    learner.eval()
    for each, policy, steps in own:
        if batch_norm is not None and policy != "none":
            each.batch_norm = batch_norm
        if num_test_steps is not None and steps is not None:
            each.num_test_steps = num_test_steps
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for each, policy, steps in own:
            each.batch_norm = policy
            each.num_test_steps = steps

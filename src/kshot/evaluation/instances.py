"""Accuracy at the k-th example of a class, when examples come one by one and then are told."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kshot.data.sampler import Sampler
from kshot.episodes import Episodes, map_tensors
from kshot.evaluation.embedded import embedded_once
from kshot.evaluation.evaluate import Evaluation, evaluation_mode, fitting_batch, require_numbers
from kshot.evaluation.intervals import share_interval
from kshot.learner import MetaLearner
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.losses import check_examples, counted_rows, mask_absent

__all__ = ["evaluate_instances", "instance_numbers", "most_at_first"]

SURE = 0.9999
"""Confidence of the interval by which labels are said to be seen early."""


def evaluate_instances(
    learner: MetaLearner,
    sampler: Sampler,
    num_episodes: int = 600,
    *,
    instances: Sequence[int] = (1, 2, 3, 4, 5, 10),
    batch_episodes: int = 0,
    device: torch.device | str | None = None,
) -> dict[int, Evaluation]:
    """Score a learner on the support sets of episodes 0 .. num_episodes - 1, read in their order.

    Every example is predicted before its label is shown, from the labelled examples before it. A
    `SequenceLearner` reads on, and where it spells labels every letter must be right; any other
    learner adapts anew to all that came so far, and names one of the classes that came. The k-th
    instance is the k-th example of its class in the sequence: k - 1 examples of the class have been
    told by then, and a random number of each other class. That is not k - 1 shots.

    Args:
        learner: put in evaluation mode while it runs.
        sampler: where episodes come from, with as many support examples a class as the largest
            instance; their queries are left out.
        num_episodes: how many.
        instances: which k to score.
        batch_episodes: episodes computed at once; 0 takes as many as make about 400 examples.
        device: where to compute, the learner moves there; None computes where it is.

    Returns:
        For each k the accuracy in every episode, averaged over its classes.

    Raises:
        ValueError: when classes have fewer examples than the largest k, for a learner of
            regression, and when the first example of a class is named right more often than can be
            without its label: then labels are shown early, or are not drawn anew in each episode.

    Reference:
        Meta-Learning with Memory-Augmented Neural Networks. ICML 2016, section 3.
    """
    if learner.loss.kind != "classification":
        raise ValueError("Instances are of classes, and this learner's loss is one of regression.")
    if num_episodes < 2 or min(instances, default=0) < 1:
        raise ValueError(
            "At least 2 episodes and instances from 1 on are needed, not "
            f"{num_episodes} and {tuple(instances)}."
        )
    if device is not None:
        learner.to(device)
    place = next((p.device for p in learner.parameters()), torch.device(device or "cpu"))
    dtype = next((p.dtype for p in learner.parameters()), None)
    size = batch_episodes or fitting_batch(sampler.sample([0]), learner.batch_norm)
    wanted = sorted({1, *instances})
    scores: list[Tensor] = []
    limits: list[Tensor] = []
    with torch.no_grad(), evaluation_mode(learner):
        scored, drawn = embedded_once(learner, sampler)
        for start in range(0, num_episodes, size):
            batch = range(start, min(start + size, num_episodes))
            episodes = drawn.sample(batch).to(place, dtype)
            check_examples(episodes.support, learner.loss.kind, "support")
            right = _right_in_turn(scored, episodes, batch)
            scores.append(_accuracies(right, episodes, wanted))
            limits.append(most_at_first(_ways(episodes)))
    values = torch.cat(scores).double().cpu().numpy()
    _require_no_leak(values[:, 0], torch.cat(limits).double().cpu().numpy())
    policy, transductive = learner.batch_norm, learner.transductive
    return {
        k: Evaluation(values[:, wanted.index(k)], "accuracy", policy, transductive)
        for k in instances
    }


def instance_numbers(
    targets: Float[Tensor, "tasks n way"], counted: Bool[Tensor, "tasks n"]
) -> Int[Tensor, "tasks n"]:
    """Which example of its class each is, from 1 on in the order given; 0 where none counts.

    Example:
        >>> classes = torch.tensor([[0, 1, 0, 0, 1]])
        >>> instance_numbers(torch.eye(2)[classes], torch.ones(1, 5, dtype=torch.bool))
        tensor([[1, 1, 2, 3, 2]])
    """
    is_class = (targets > 0) & counted.unsqueeze(-1)
    return (is_class.cumsum(1) * is_class).sum(-1)


def most_at_first(way: Int[Tensor, " tasks"]) -> Float[Tensor, " tasks"]:
    """The accuracy at first instances of who has seen no label of the class, and excludes others.

    Whoever knows that an example is of a new class, and which classes came already, guesses among
    the rest: (1 / way) (1 / way + 1 / (way - 1) + ... + 1).

    Example:
        >>> most_at_first(torch.tensor([2, 5]))
        tensor([0.7500, 0.4567])
    """
    number = torch.arange(1, int(way.max()) + 1, device=way.device)
    return ((number <= way.unsqueeze(1)) / number).sum(1) / way


def _right_in_turn(
    learner: MetaLearner, episodes: Episodes, numbers: range
) -> Bool[Tensor, "tasks n"]:
    """Whether each example is named right after those before it; nothing is known of the first.

    A learner that adapts anew knows nothing of classes that did not come yet: it names the others.
    """
    examples, present = episodes.support, episodes.present
    if isinstance(learner, SequenceLearner):
        outputs, codes = learner.outputs_in_turn(examples)
        require_numbers(outputs, numbers)
        return learner.labels.right(outputs, examples.targets, codes, present)
    logits = [torch.zeros_like(examples.targets[:, :1])]
    for place in range(1, examples.targets.shape[1]):
        before, this = (
            map_tensors(lambda tensor, rows=rows: tensor[:, rows], examples)
            for rows in (slice(place), slice(place, place + 1))
        )
        counted = counted_rows(before.targets, before.mask, "classification")
        came = ((before.targets > 0) & counted.unsqueeze(-1)).any(1)
        predictions = learner.predict(learner.adapt(before), this.inputs, this.mask)
        require_numbers(predictions, numbers)
        logits.append(mask_absent(predictions, came))
    predicted = mask_absent(torch.cat(logits, 1), present).argmax(-1)
    return predicted == examples.targets.argmax(-1)


def _accuracies(
    right: Bool[Tensor, "tasks n"], episodes: Episodes, instances: Sequence[int]
) -> Float[Tensor, "tasks instances"]:
    _, targets, mask = episodes.support
    counted = counted_rows(targets, mask, "classification")
    numbers = instance_numbers(targets, counted)
    found = torch.stack([numbers == k for k in instances], -1)
    totals = found.sum(1)
    if bool((totals < _ways(episodes).unsqueeze(1)).any()):
        raise ValueError(
            f"Classes have {int(numbers.max())} examples at most, and instance {max(instances)} is "
            "asked for: draw episodes whose shot is as large, the same for all."
        )
    return (found & right.unsqueeze(-1)).sum(1) / totals


def _ways(episodes: Episodes) -> Int[Tensor, " tasks"]:
    """The number of classes of each episode."""
    targets = episodes.support.targets
    if episodes.present is None:
        return torch.full(targets.shape[:1], targets.shape[2], device=targets.device)
    return episodes.present.sum(1)


def _require_no_leak(accuracies: np.ndarray, limits: np.ndarray) -> None:
    accuracy, limit = float(accuracies.mean()), float(limits.mean())
    # As if an episode were one trial: too wide an interval, which gives no false alarm.
    if share_interval(accuracy, len(accuracies), SURE).low > limit:
        raise ValueError(
            f"The first example of a class is named right in {100 * accuracy:.1f} % of cases, and "
            f"without its label it can be in {100 * limit:.1f} % at most. Either the learner sees "
            "labels too early, or they are not drawn anew in each episode."
        )

"""Trials of a verification system: scores of true claims and of false ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kshot.data.sampler import Sampler
from kshot.episodes import Episodes
from kshot.evaluation.embedded import embedded_once
from kshot.learner import MetaLearner
from kshot.losses import counted_rows
from kshot.user_examples import place_of

__all__ = ["Trials", "collect_trials", "require_apart"]


@dataclass(frozen=True)
class Trials:
    """Claims to be of an enrolled class, and how well they scored.

    Attributes:
        scores: (n,), higher for what is more alike.
        claimed: (n,) the class that each was compared with.
        actual: (n,) the class that it is of.
    """

    scores: np.ndarray
    claimed: np.ndarray
    actual: np.ndarray

    @property
    def genuine(self) -> np.ndarray:
        """(n,), which claims are true."""
        return self.claimed == self.actual


def collect_trials(
    learner: MetaLearner,
    sampler: Sampler,
    num_episodes: int = 200,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Trials:
    """Compare every query of some episodes with every class that its episode enrolled.

    An episode of way classes, each enrolled by its support examples, makes way claims of every
    query: one is true.

    Args:
        learner: that scores classes apart; put in evaluation mode while it runs.
        sampler: where episodes come from, which tell their `classes`.
        num_episodes: how many.
        on_batch: called with the number of episodes done after each.

    Raises:
        ValueError: when the score of a class depends on the other classes, or episodes have no
            classes.
    """
    require_apart(learner)
    place, dtype = place_of(learner)
    # Module by module: one that is kept in evaluation mode during training stays there.
    modes = [(module, module.training) for module in learner.modules()]
    parts: list[tuple[np.ndarray, ...]] = []
    learner.eval()
    try:
        scored, drawn = embedded_once(learner, sampler)
        for index in range(num_episodes):
            parts.append(_claims(scored, drawn.sample([index]).to(place, dtype)))
            if on_batch:
                on_batch(index + 1)
    finally:
        for module, was_training in modes:
            module.training = was_training
    return Trials(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _claims(learner: MetaLearner, episode: Episodes) -> tuple[np.ndarray, ...]:
    """Scores, claimed and actual classes of all queries against all classes of one episode."""
    if episode.classes is None:
        raise ValueError("Verification needs episodes that tell their classes.")
    query, classes = episode.query, episode.classes[0]
    with torch.no_grad():
        state = learner.adapt(episode.support)
        scores = learner.predict(state, query.inputs, query.mask)[0].double()
    if scores.isnan().any():
        raise ValueError("The learner's scores are NaN: did its training diverge?")
    counted = counted_rows(query.targets, query.mask, "classification")[0]
    actual = classes[query.targets[0].argmax(-1)]
    chosen = counted.unsqueeze(1) & (classes >= 0)
    grid = (scores, classes.expand_as(scores), actual.unsqueeze(1).expand_as(scores))
    return tuple(each[chosen].cpu().numpy() for each in grid)


def require_apart(learner: MetaLearner) -> None:
    """Check that a learner can tell how alike a query and one class are.

    Raises:
        ValueError: when the score of a class depends on the other classes of the task.
    """
    if not learner.classes_apart:
        raise ValueError(
            f"{type(learner).__name__} scores a class by what sets it apart from the others of its "
            "task, so it cannot verify a claim to be of one. Take a learner that compares, such as "
            "protonet, siamese or matching."
        )
    if learner.batch_norm not in ("running", "none"):
        raise ValueError(
            f"Under the BatchNorm policy {learner.batch_norm!r} a score depends on what else is "
            "enrolled or asked; verification needs batch_norm='running'."
        )

"""What a learner mistakes for what, counted over episodes by the data set's own classes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from kshot.data.sampler import EpisodeSampler
from kshot.evaluation.evaluate import evaluation_mode, predicted
from kshot.learner import MetaLearner
from kshot.losses import counted_rows, mask_absent

__all__ = ["Confusions", "HardPair", "count_confusions"]


class HardPair(NamedTuple):
    """Two classes that are mistaken for each other.

    Attributes:
        first: a class.
        second: another.
        mistaken: queries of one that were taken for the other.
        queries: queries of both, in episodes that have both.
    """

    first: int
    second: int
    mistaken: int
    queries: int


@dataclass(frozen=True, eq=False)
class Confusions:
    """Counts of queries by their class.

    Attributes:
        taken: (classes, classes) queries of a row's class that were taken for the column's.
        met: (classes, classes) queries of a row's class in episodes that have the column's too.
    """

    taken: np.ndarray
    met: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """(classes, classes) shares taken / met; NaN where two classes never met."""
        with np.errstate(invalid="ignore"):
            return np.where(self.met > 0, self.taken / self.met, np.nan)

    def hardest(self, count: int) -> list[HardPair]:
        """The pairs with the most mistakes, by their number and then by their share."""
        mistaken = np.triu(self.taken + self.taken.T, 1)
        queries = self.met + self.met.T
        rows, columns = np.nonzero(mistaken)
        found = [
            HardPair(int(i), int(j), int(mistaken[i, j]), int(queries[i, j]))
            for i, j in zip(rows, columns, strict=True)
        ]
        found.sort(key=lambda pair: (-pair.mistaken, -pair.mistaken / pair.queries, pair))
        return found[:count]


def count_confusions(
    learner: MetaLearner, sampler: EpisodeSampler, num_episodes: int
) -> Confusions:
    """Count what the queries of episodes 0 .. num_episodes - 1 are taken for.

    Args:
        learner: a classifier, put in evaluation mode while it runs.
        sampler: where episodes come from.
        num_episodes: how many.
    """
    classes = sampler.dataset.num_classes
    taken, met = np.zeros((2, classes, classes), dtype=np.int64)
    with torch.no_grad(), evaluation_mode(learner):
        for episodes, logits in predicted(learner, sampler, num_episodes):
            _, query, own = episodes
            assert own is not None, "labelled data name the classes of an episode"
            named = mask_absent(logits, episodes.present).argmax(-1).cpu().numpy()
            true = query.targets.argmax(-1).cpu().numpy()
            counted = counted_rows(query.targets, query.mask, "classification").cpu().numpy()
            for task, names in enumerate(own.cpu().numpy()):
                rows, present = counted[task], names[names >= 0]
                of = names[true[task][rows]]
                np.add.at(taken, (of, names[named[task][rows]]), 1)
                np.add.at(met, (of[:, None], present[None]), 1)
    return Confusions(taken, met)

"""Episodes of classes of which few examples have labels: the rest may be seen, without one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from kshot.config import EpisodeConfig, bounds
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler, TaskStream, random_bits
from kshot.episodes import Episodes, Examples, concatenate, full_mask, map_tensors

__all__ = ["PartlyLabelledSampler", "split_labels"]


class PartlyLabelledSampler:
    """Draws episodes whose support set also holds unlabelled examples, some of other classes.

    A fixed share of each class's examples is labelled: support and query come from these alone, and
    unlabelled examples from the others, so that no query is ever among them. Their rows of targets
    are zero. Episodes go round `label_splits` random ways to say which examples are labelled.

    Args:
        dataset: the classes to draw from.
        episode: way, shot, query_shot, and what of `unlabelled`, `distractors`, `labelled_share`
            and `label_splits` is wanted.
        seed: with `split` and the index, all that an episode depends on.
        split: name of the split.

    Raises:
        ValueError: when a class has too few labelled examples, or there are too few classes.

    Reference:
        Meta-Learning for Semi-Supervised Few-Shot Classification. ICLR 2018, section 3.
        https://arxiv.org/abs/1803.00676
    """

    def __init__(
        self, dataset: LabelledDataset, episode: EpisodeConfig, *, seed: int = 0, split: str = ""
    ) -> None:
        self.dataset, self.episode, self.seed, self.split = dataset, episode, seed, split
        labelled_only = replace(
            episode, unlabelled=0, distractors=0, labelled_share=1.0, label_splits=1
        )
        splits = [
            split_labels(dataset, episode.labelled_share, number)
            for number in range(episode.label_splits)
        ]
        _check_counts(*splits[0], episode)
        self._labelled = [
            EpisodeSampler(labelled, labelled_only, seed=seed, split=split)
            for labelled, _ in splits
        ]
        self._others = [others for _, others in splits]

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some indices, as one batch of tasks."""
        episodes = np.asarray(episodes, dtype=np.int64)
        numbers = episodes % self.episode.label_splits
        parts, places = [], []
        for number in np.unique(numbers).tolist():
            place = np.flatnonzero(numbers == number)
            parts.append(self._sample(number, episodes[place]))
            places.append(place)
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        if any(examples.mask is not None for part in parts for examples in part[:2]):
            parts = [
                part._replace(
                    support=part.support._replace(mask=full_mask(part.support)),
                    query=part.query._replace(mask=full_mask(part.query)),
                )
                for part in parts
            ]
        return map_tensors(lambda *each: torch.cat(each)[back], *parts)

    def with_dataset(self, dataset: LabelledDataset) -> "PartlyLabelledSampler":
        """A sampler of the same episodes from other data about the same examples."""
        return PartlyLabelledSampler(dataset, self.episode, seed=self.seed, split=self.split)

    def _sample(self, number: int, episodes: np.ndarray) -> Episodes:
        """Episodes under one way to say which examples are labelled."""
        drawn = self._labelled[number].sample(episodes)
        if not self.episode.unlabelled:
            return drawn
        assert drawn.classes is not None
        stream = TaskStream(self.seed, self.split, episodes.astype(np.uint64))
        classes = self._classes(stream, drawn.classes.numpy())
        unlabelled = self._unlabelled(stream, self._others[number], classes)
        way = drawn.support.targets.shape[-1]
        targets = torch.zeros(*unlabelled[1].shape, way)
        extra = Examples(unlabelled[0], targets, unlabelled[1])
        support = concatenate(drawn.support, extra)
        if support.mask is not None and bool(support.mask.all()):
            support = support._replace(mask=None)
        return drawn._replace(support=support)

    def _classes(self, stream: TaskStream, own: np.ndarray) -> np.ndarray:
        """(tasks, way + distractors): the episode's own classes, then distinct other ones."""
        if not self.episode.distractors:
            return own
        num_classes = self.dataset.num_classes
        if own.shape[1] + self.episode.distractors > num_classes:
            raise ValueError(
                f"An episode needs {own.shape[1]} classes and {self.episode.distractors} others as "
                f"distractors, and this split has {num_classes}. Lower way or distractors."
            )
        keys = stream.bits("distractors", num_classes) >> np.uint64(1)
        taken = np.zeros(keys.shape, dtype=bool)
        tasks, columns = np.nonzero(own >= 0)
        taken[tasks, own[tasks, columns]] = True
        order = np.argsort(np.where(taken, np.iinfo(np.uint64).max, keys), axis=1)
        return np.concatenate([own, order[:, : self.episode.distractors]], axis=1)

    def _unlabelled(
        self, stream: TaskStream, others: LabelledDataset, classes: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unlabelled examples (tasks, n, *shape) of some classes, and which there are."""
        tasks, way = classes.shape
        count, largest = self.episode.unlabelled, max(len(rows) for rows in others.rows)
        keys = stream.bits("unlabelled", way, largest) >> np.uint64(1)
        rows = np.zeros((tasks, way, count), dtype=np.int64)
        real = np.broadcast_to((classes >= 0)[:, :, None], rows.shape)
        for task, column in zip(*np.nonzero(classes >= 0), strict=True):
            own = others.rows[classes[task, column]]
            rows[task, column] = own[np.argsort(keys[task, column, : len(own)])[:count]]
        of = np.broadcast_to(np.maximum(classes, 0)[:, :, None], rows.shape)
        # In an order that tells nothing.
        order = np.argsort(stream.bits("unlabelled order", way * count), axis=1)
        rows, real, of = (
            np.take_along_axis(each.reshape(tasks, -1), order, axis=1) for each in (rows, real, of)
        )
        inputs = others.read(rows.ravel(), of.ravel())
        return inputs.view(*rows.shape, *inputs.shape[1:]), torch.from_numpy(real)


def split_labels(
    dataset: LabelledDataset, share: float, number: int
) -> tuple[LabelledDataset, LabelledDataset]:
    """The labelled examples of every class, and the others.

    Args:
        dataset: the classes.
        share: of the examples of a class to label; at least one is.
        number: of the random way to choose them: the same number, the same examples.
    """
    labelled, others = [], []
    for place, rows in enumerate(dataset.rows):
        keys = random_bits(number, "labelled", np.array([place], dtype=np.uint64), len(rows))[0]
        chosen = np.zeros(len(rows), dtype=bool)
        chosen[np.argsort(keys)[: max(1, round(share * len(rows)))]] = True
        labelled.append(rows[chosen])
        others.append(rows[~chosen])
    return replace(dataset, rows=tuple(labelled)), replace(dataset, rows=tuple(others))


def _check_counts(
    labelled: LabelledDataset, others: LabelledDataset, episode: EpisodeConfig
) -> None:
    """Raise a ValueError where a class has too few examples with labels, or without."""
    needed = bounds(episode.shot)[1] + episode.query_shot
    for name, own, rest in zip(labelled.class_names, labelled.rows, others.rows, strict=True):
        if len(own) < needed or len(rest) < episode.unlabelled:
            raise ValueError(
                f"With labelled_share={episode.labelled_share}, class {name!r} has {len(own)} "
                f"examples with labels and {len(rest)} without; an episode needs {needed} (shot + "
                f"query_shot) and {episode.unlabelled}. Change the share, or ask for fewer."
            )
    if episode.within and episode.distractors:
        raise ValueError("Distractors come from all groups, so within=True cannot hold for them.")

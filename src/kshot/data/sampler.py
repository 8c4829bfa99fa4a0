"""Episode sampling: the only source of randomness in data.

An episode is a function of (seed, split, index) alone: random numbers come from a counter-based
generator, computed for a whole meta-batch at once, so that any number of workers or processes draws
the same episodes.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from kshot.config import EpisodeConfig, bounds
from kshot.data.dataset import LabelledDataset
from kshot.episodes import Episodes, Examples

__all__ = [
    "EpisodeIndices",
    "EpisodeSampler",
    "Sampler",
    "TaskStream",
    "random_bits",
    "read_episodes",
    "uniform",
]


@runtime_checkable
class Sampler(Protocol):
    """Anything that draws episodes by their index."""

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some indices, as one batch of tasks."""
        ...


class EpisodeIndices(NamedTuple):
    """Which examples an episode consists of, for a batch of episodes.

    Attributes:
        classes: (tasks, way) class of each column, -1 for a padded column.
        support_rows: (tasks, n) place of each support example, -1 for padding.
        support_columns: (tasks, n) column of each support example, -1 for padding.
        query_rows: (tasks, m), as `support_rows`.
        query_columns: (tasks, m), as `support_columns`.
    """

    classes: np.ndarray
    support_rows: np.ndarray
    support_columns: np.ndarray
    query_rows: np.ndarray
    query_columns: np.ndarray


class TaskStream(NamedTuple):
    """The random numbers of a batch of episodes: a function of (seed, split, index) alone."""

    seed: int
    split: str
    episodes: np.ndarray

    def bits(self, purpose: str, *shape: int) -> np.ndarray:
        """Random 64-bit numbers (tasks, *shape), other ones for every purpose."""
        return random_bits(self.seed, f"{self.split}/{purpose}", self.episodes, *shape)

    def uniform(self, purpose: str, *shape: int) -> np.ndarray:
        """Random numbers (tasks, *shape) in [0, 1)."""
        return uniform(self.bits(purpose, *shape))

    def integers(self, purpose: str, low: int, high: int) -> np.ndarray:
        """A random integer for each episode, low <= integer <= high."""
        return low + (self.uniform(purpose) * (high - low + 1)).astype(np.int64)


class EpisodeSampler:
    """Draws few-shot classification episodes from a labelled data set.

    Classes, their order (so the label of a class is drawn anew in every episode), examples and the
    order of support and query are random; support and query never share an example.

    Args:
        dataset: the classes to draw from.
        episode: way, shot and query_shot; with ranges, episodes are padded to the largest and
            masked.
        seed: with `split` and the index, all that an episode depends on.
        split: name of the split; the same seed gives other episodes for another split.

    Raises:
        ValueError: when there are fewer classes than `way`, or a class has too few examples.
    """

    def __init__(
        self, dataset: LabelledDataset, episode: EpisodeConfig, *, seed: int = 0, split: str = ""
    ) -> None:
        self.dataset = dataset
        self.episode = episode
        self.seed = seed
        self.split = split
        self._max_way, self._max_shot = bounds(episode.way)[1], bounds(episode.shot)[1]
        self._counts = np.array([len(rows) for rows in dataset.rows], dtype=np.int64)
        _check_counts(dataset, self._counts, self._max_way, self._max_shot + episode.query_shot)
        self._rows = np.full((dataset.num_classes, self._counts.max()), -1, dtype=np.int64)
        for table_row, rows in zip(self._rows, dataset.rows, strict=True):
            table_row[: len(rows)] = rows
        if episode.aligned and len(set(self._counts.tolist())) > 1:
            raise ValueError(
                "aligned=True needs classes whose examples are of the same drawers in the same "
                f"order; here classes have {self._counts.min()} to {self._counts.max()} examples."
            )
        self._group_members = self._eligible_groups() if episode.within else None

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some indices, as one batch of tasks."""
        return self.read(self.indices(episodes))

    def with_dataset(self, dataset: LabelledDataset) -> "EpisodeSampler":
        """A sampler of the same episodes from other data about the same examples."""
        return EpisodeSampler(dataset, self.episode, seed=self.seed, split=self.split)

    def indices(self, episodes: Sequence[int] | np.ndarray) -> EpisodeIndices:
        """Which examples the episodes of some indices consist of."""
        stream = TaskStream(self.seed, self.split, np.asarray(episodes, dtype=np.uint64))
        way = stream.integers("way", *bounds(self.episode.way))
        shot = stream.integers("shot", *bounds(self.episode.shot))
        classes = self._draw_classes(stream)
        rows = self._draw_rows(stream, classes)

        columns = np.arange(self._max_way)
        real_column = columns < way[:, None]
        real_support = real_column[:, :, None] & (np.arange(self._max_shot) < shot[:, None, None])
        real_query = np.repeat(real_column[:, :, None], self.episode.query_shot, axis=2)
        support = _shuffled(
            stream.bits("support order", real_support[0].size),
            rows[:, :, : self._max_shot],
            real_support,
        )
        query = _shuffled(
            stream.bits("query order", real_query[0].size), rows[:, :, self._max_shot :], real_query
        )
        return EpisodeIndices(np.where(real_column, classes, -1), *support, *query)

    def read(self, indices: EpisodeIndices) -> Episodes:
        """The episodes that consist of the given examples."""
        return read_episodes(self.dataset, indices)

    def _draw_classes(self, stream: TaskStream) -> np.ndarray:
        """(tasks, way) distinct classes in random order."""
        keys = stream.bits("classes", self.dataset.num_classes)
        if self._group_members is not None:
            group = stream.integers("group", 0, len(self._group_members) - 1)
            keys = np.where(self._group_members[group], keys, np.iinfo(np.uint64).max)
        return _smallest(keys, self._max_way)

    def _draw_rows(self, stream: TaskStream, classes: np.ndarray) -> np.ndarray:
        """(tasks, way, shot + query_shot) places of distinct examples in random order."""
        draws = 1 if self.episode.aligned else self._max_way  # aligned: the same in all classes
        keys = stream.bits("examples", draws, self._rows.shape[1])
        exists = np.arange(self._rows.shape[1]) < self._counts[classes][:, :, None]
        keys = np.where(exists, keys, np.iinfo(np.uint64).max)
        chosen = _smallest(keys, self._max_shot + self.episode.query_shot)
        return self._rows[classes[:, :, None], chosen]

    def _eligible_groups(self) -> np.ndarray:
        """(num_groups, num_classes) membership of the groups that have enough classes."""
        if self.dataset.groups is None:
            raise ValueError("within=True needs classes with groups, and this data set has none.")
        groups = np.array(self.dataset.groups)
        members = np.stack([groups == name for name in sorted(set(self.dataset.groups))])
        eligible = members[members.sum(1) >= self._max_way]
        if not len(eligible):
            raise ValueError(
                f"No group has the {self._max_way} classes that an episode needs; the largest has "
                f"{members.sum(1).max()}. Lower way, or use within=False."
            )
        return eligible


def read_episodes(dataset: LabelledDataset, indices: EpisodeIndices) -> Episodes:
    """The episodes that consist of the given examples of a data set."""
    classes = indices.classes
    ways = np.arange(classes.shape[1])

    def read(rows: np.ndarray, columns: np.ndarray) -> Examples:
        padding = columns < 0
        # Padding reads some example: masked out, it only has to be finite.
        chosen = np.take_along_axis(classes, np.where(padding, 0, columns), axis=1)
        inputs = dataset.read(np.where(padding, 0, rows).ravel(), chosen.ravel())
        return Examples(
            inputs.view(*rows.shape, *inputs.shape[1:]),
            # Not `kshot.one_hot`: torch would wake its threads for these few numbers.
            torch.from_numpy(np.equal(columns[:, :, None], ways).astype(np.float32)),
            torch.from_numpy(~padding) if padding.any() else None,
        )

    return Episodes(
        read(indices.support_rows, indices.support_columns),
        read(indices.query_rows, indices.query_columns),
        torch.from_numpy(classes),
    )


def random_bits(seed: int, purpose: str, episodes: np.ndarray, *shape: int) -> np.ndarray:
    """Counter-based random 64-bit numbers (len(episodes), *shape).

    SplitMix64 (Steele, Lea and Flood, 2014): the output function applied to counters, here one
    counter sequence for each (seed, purpose, episode).
    """
    with np.errstate(over="ignore"):
        name = np.array([zlib.crc32(purpose.encode())], dtype=np.uint64)
        key = _mix(_mix(np.array([seed], dtype=np.int64).astype(np.uint64)) ^ name)
        keys = _mix(key ^ _mix(episodes.astype(np.uint64) + _GAMMA))
        counters = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        return _mix(keys[:, None] + counters * _GAMMA).reshape(len(episodes), *shape)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Random 64-bit numbers as float64 in [0, 1)."""
    return (bits >> np.uint64(11)) * 2.0**-53


_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _smallest(keys: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` smallest keys along the last axis, in the order of the keys."""
    if count < keys.shape[-1]:
        chosen = np.argpartition(keys, count - 1, axis=-1)[..., :count]
    else:
        chosen = np.broadcast_to(np.arange(keys.shape[-1]), keys.shape)
    order = np.argsort(np.take_along_axis(keys, chosen, axis=-1), axis=-1)
    return np.take_along_axis(chosen, order, axis=-1)


def _shuffled(
    keys: np.ndarray, rows: np.ndarray, real: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (tasks, way, k) and their columns, flattened and shuffled, padding (-1) last."""
    tasks, way, count = rows.shape
    columns = np.broadcast_to(np.arange(way)[:, None], (way, count))
    real = real.reshape(tasks, -1)
    order = np.argsort(np.where(real, keys >> np.uint64(1), np.iinfo(np.uint64).max), axis=1)
    flat_rows = np.where(real, rows.reshape(tasks, -1), -1)
    flat_columns = np.where(real, columns.reshape(1, -1), -1)
    return (
        np.take_along_axis(flat_rows, order, axis=1),
        np.take_along_axis(flat_columns, order, axis=1),
    )


def _check_counts(dataset: LabelledDataset, counts: np.ndarray, way: int, needed: int) -> None:
    if dataset.num_classes < way:
        raise ValueError(
            f"An episode needs {way} classes and this split has {dataset.num_classes}. "
            "Lower way, or add classes."
        )
    if counts.min() < needed:
        poorest = int(counts.argmin())
        raise ValueError(
            f"Class {dataset.class_names[poorest]!r} has {counts[poorest]} examples and an episode "
            f"needs {needed} (shot + query_shot). Add examples, lower shot or query_shot, or leave "
            f"out the {int((counts < needed).sum())} classes that have too few."
        )

"""Frozen episodes: a file that says which examples each episode consists of."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kshot.data.atomic import write_atomically
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeIndices, read_episodes
from kshot.episodes import Episodes

__all__ = ["FrozenEpisodes", "fingerprint", "load_episodes", "save_episodes"]

_FORMAT = "kshot episodes 1"


class FrozenEpisodes:
    """A sampler that hands out stored episodes of a data set, whoever drew them.

    Args:
        dataset: the classes that the episodes are made of.
        indices: which examples each consists of.
    """

    def __init__(self, dataset: LabelledDataset, indices: EpisodeIndices) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.indices.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Way, shot and query_shot of the largest episode."""
        way = self.indices.classes.shape[1]
        support, query = self.indices.support_rows.shape[1], self.indices.query_rows.shape[1]
        return way, support // way, query // way

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some indices, as one batch of tasks.

        Raises:
            IndexError: when there are fewer episodes.
        """
        chosen = np.asarray(episodes, dtype=np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(
                f"There are {len(self)} frozen episodes, 0 to {len(self) - 1}; asked for "
                f"{chosen.min()} to {chosen.max()}."
            )
        return read_episodes(self.dataset, EpisodeIndices(*(part[chosen] for part in self.indices)))

    def with_dataset(self, dataset: LabelledDataset) -> "FrozenEpisodes":
        """A sampler of the same episodes from other data about the same examples."""
        return FrozenEpisodes(dataset, self.indices)


def save_episodes(path: Path | str, indices: EpisodeIndices, dataset: LabelledDataset) -> None:
    """Write episodes to a file (safetensors), with a fingerprint of the data they refer to.

    Example:
        >>> sampler = EpisodeSampler(dataset, EpisodeConfig(), split="test")  # doctest: +SKIP
        >>> save_episodes(path, sampler.indices(range(600)), dataset)  # doctest: +SKIP
    """
    metadata = {"format": _FORMAT, "fingerprint": fingerprint(dataset)}
    parts = {name: np.ascontiguousarray(part) for name, part in indices._asdict().items()}
    write_atomically(Path(path), save(parts, metadata))


def load_episodes(path: Path | str, dataset: LabelledDataset) -> FrozenEpisodes:
    """Read episodes from a file that `save_episodes` wrote.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged or of another kind, or made for other data.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file of episodes at {path}.")
    try:
        with safe_open(path, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            indices = EpisodeIndices(*(stored.get_tensor(name) for name in EpisodeIndices._fields))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a file of episodes, or a damaged one ({error}). Copy or save it again."
        ) from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has the format {metadata.get('format')!r}, expected {_FORMAT!r}. Save it "
            "again with save_episodes."
        )
    if metadata.get("fingerprint") != fingerprint(dataset):
        raise ValueError(
            f"The episodes in {path} were drawn from other data: another data set, split, protocol "
            "or picture size. Load the data they were drawn from, or draw new ones."
        )
    return FrozenEpisodes(dataset, indices)


def fingerprint(dataset: LabelledDataset) -> str:
    """The sha256 of a data set: its examples, and which of them belong to which class."""
    classes = [dataset.class_names, dataset.groups, dataset.quarter_turns.tolist()]
    layout = [dataset.examples.dtype.str, dataset.examples.shape, classes]
    total = hashlib.sha256(json.dumps(layout).encode())
    for rows in dataset.rows:
        total.update(rows.astype("<i8").tobytes() + b"|")
    total.update(np.ascontiguousarray(dataset.examples).data)
    return total.hexdigest()

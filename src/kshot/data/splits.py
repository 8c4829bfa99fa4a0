"""Task sources: classes split into meta-training, meta-validation and meta-test, under a name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.partly_labelled import PartlyLabelledSampler
from kshot.data.sampler import EpisodeSampler, Sampler, random_bits
from kshot.options import nearest

__all__ = ["LabelledSplits", "TaskSource", "split_classes", "split_shares"]


@runtime_checkable
class TaskSource(Protocol):
    """A distribution of tasks, split by name: what a run trains and is judged on."""

    @property
    def name(self) -> str:
        """The data set, as in the registry."""
        ...

    @property
    def protocol(self) -> str:
        """Name of the published or chosen way to prepare and split it, stored with every number."""
        ...

    @property
    def kind(self) -> Literal["classification", "regression"]:
        """What the targets are."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        ...

    @property
    def num_outputs(self) -> int | None:
        """Numbers to predict for an input in regression; None in classification."""
        ...

    @property
    def preparation(self) -> Mapping[str, Any]:
        """How a new picture becomes an input; empty when inputs are not pictures."""
        ...

    def has_split(self, split: str) -> bool:
        """Whether tasks of this split can be drawn."""
        ...

    def num_classes(self, split: str) -> int:
        """Number of classes of a split; 0 in regression."""
        ...

    def sampler(self, split: str, episode: EpisodeConfig, seed: int) -> Sampler:
        """A sampler of the split's episodes."""
        ...


@dataclass(frozen=True, eq=False)
class LabelledSplits:
    """Labelled data whose classes are split by name.

    Attributes:
        name: the data set.
        protocol: the name of its preparation and split.
        splits: the classes of each split ("train", "val", "test"); no class is in two of them. The
            split "trainval" is made of "train" and "val" when it is not given.
        preparation: how a new picture becomes an input (size, polarity, resize filter, ...), so
            that a user's own pictures are prepared in the same way.
    """

    name: str
    protocol: str
    splits: Mapping[str, LabelledDataset]
    preparation: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["classification", "regression"] = "classification"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return next(iter(self.splits.values())).input_shape

    @property
    def num_outputs(self) -> int | None:
        """None: the targets of classification are class probabilities."""
        return None

    def has_split(self, split: str) -> bool:
        """Whether the split exists."""
        return split in self.splits or (
            split == "trainval" and "train" in self.splits and "val" in self.splits
        )

    def dataset(self, split: str) -> LabelledDataset:
        """The classes of a split."""
        if not self.has_split(split):
            raise ValueError(
                f"{self.name} under protocol {self.protocol!r} has no split {split!r}."
                + nearest(split, self.splits)
            )
        if split in self.splits:
            return self.splits[split]
        return _joined(self.splits["train"], self.splits["val"])

    def num_classes(self, split: str) -> int:
        """Number of classes of a split."""
        return self.dataset(split).num_classes

    def sampler(
        self, split: str, episode: EpisodeConfig, seed: int
    ) -> EpisodeSampler | PartlyLabelledSampler:
        """A sampler of few-shot episodes from the split's classes."""
        kind = EpisodeSampler if episode.labelled_share == 1 else PartlyLabelledSampler
        return kind(self.dataset(split), episode, seed=seed, split=split)


def split_classes(
    dataset: LabelledDataset, lists: Mapping[str, Sequence[str]]
) -> dict[str, LabelledDataset]:
    """Split a data set by lists of class names."""
    place = {name: number for number, name in enumerate(dataset.class_names)}
    owner: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if name not in place:
                raise ValueError(
                    f"Class {name!r} of split {split!r} is not in the data."
                    + nearest(name, dataset.class_names)
                )
            if name in owner:
                raise ValueError(
                    f"Class {name!r} is in the splits {owner[name]!r} and {split!r}; splits must "
                    "not share classes."
                )
            owner[name] = split
    return {
        split: dataset.select([place[name] for name in names]) for split, names in lists.items()
    }


def split_shares(
    dataset: LabelledDataset, shares: Mapping[str, float], seed: int
) -> dict[str, LabelledDataset]:
    """Split a data set's classes at random into shares that sum to 1, the same for a seed."""
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
        raise ValueError(f"The shares of the splits must sum to 1, not {dict(shares)}.")
    # The sampler's own generator: NumPy's may draw other numbers in its next version.
    keys = random_bits(seed, "split", np.zeros(1, dtype=np.uint64), dataset.num_classes)
    order = np.argsort(keys[0])
    ends = np.rint(np.cumsum([0.0, *shares.values()]) * dataset.num_classes).astype(int)
    return {
        split: dataset.select(np.sort(order[a:b]))
        for split, a, b in zip(shares, ends[:-1], ends[1:], strict=True)
    }


def _joined(first: LabelledDataset, second: LabelledDataset) -> LabelledDataset:
    if first.examples is not second.examples:
        raise ValueError("Only splits of one data set can be joined.")
    return LabelledDataset(
        first.examples,
        first.rows + second.rows,
        first.class_names + second.class_names,
        None if first.groups is None or second.groups is None else first.groups + second.groups,
        np.concatenate([first.quarter_turns, second.quarter_turns]),
    )

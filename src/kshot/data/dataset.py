"""Labelled data: examples indexed by class, held as one compact array."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["LabelledDataset"]


@dataclass(frozen=True, eq=False)
class LabelledDataset:
    """Examples of labelled classes; subsets and rotated copies share the one array.

    Attributes:
        examples: (num_examples, *shape), uint8 for pictures (channels, height, width), where 255
            becomes 1.0, or floating for features. May be a memory map.
        rows: for each class, the places of its examples in `examples`.
        class_names: for each class, its name.
        groups: for each class, the name of its group (alphabet, script, person, domain), or None.
        quarter_turns: for each class, by how many quarter turns its pictures are rotated when read.

    Example:
        >>> pictures = np.zeros((4, 1, 28, 28), dtype=np.uint8)
        >>> data = LabelledDataset.from_labels(pictures, [0, 0, 1, 1], ["cat", "dog"])
        >>> data.num_classes, data.with_rotations().num_classes
        (2, 8)
    """

    examples: np.ndarray
    rows: tuple[np.ndarray, ...]
    class_names: tuple[str, ...]
    groups: tuple[str, ...] | None
    quarter_turns: np.ndarray

    @classmethod
    def from_labels(
        cls,
        examples: np.ndarray,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> "LabelledDataset":
        """Index examples by their integer labels 0 .. num_classes - 1."""
        labels = np.asarray(labels)
        if len(labels) != len(examples):
            raise ValueError(f"There are {len(examples)} examples but {len(labels)} labels.")
        num_classes = (
            len(class_names) if class_names is not None else int(labels.max(initial=-1)) + 1
        )
        if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
            raise ValueError(
                f"Labels must be 0 .. {num_classes - 1}, one for each class name; they are "
                f"{labels.min()} .. {labels.max()}."
            )
        if groups is not None and len(groups) != num_classes:
            raise ValueError(f"There are {num_classes} classes but {len(groups)} groups.")
        order = np.argsort(labels, kind="stable")
        ends = np.searchsorted(labels[order], np.arange(num_classes + 1))
        return cls(
            examples=examples,
            rows=tuple(
                order[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
            ),
            class_names=tuple(map(str, range(num_classes)) if class_names is None else class_names),
            groups=None if groups is None else tuple(groups),
            quarter_turns=np.zeros(num_classes, dtype=np.int64),
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, rotated copies counted."""
        return len(self.rows)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.examples.shape[1:])

    def select(self, classes: Sequence[int] | np.ndarray) -> "LabelledDataset":
        """The data set of some of the classes, in the order given; the array is shared."""
        chosen = [int(c) for c in classes]
        return replace(
            self,
            rows=tuple(self.rows[c] for c in chosen),
            class_names=tuple(self.class_names[c] for c in chosen),
            groups=None if self.groups is None else tuple(self.groups[c] for c in chosen),
            quarter_turns=self.quarter_turns[chosen],
        )

    def with_rotations(self, turns: Sequence[int] = (0, 1, 2, 3)) -> "LabelledDataset":
        """The data set in which every quarter turn of a class is a class of its own."""
        if len(self.input_shape) != 3 or self.input_shape[1] != self.input_shape[2]:
            raise ValueError(
                "Only square pictures (channels, size, size) can be turned, not "
                f"{self.input_shape}."
            )
        copies = self.select([c for _ in turns for c in range(self.num_classes)])
        turned = np.repeat(np.asarray(turns), self.num_classes)
        names = tuple(
            f"{name}@{90 * turn}" if turn else name
            for name, turn in zip(copies.class_names, turned.tolist(), strict=True)
        )
        return replace(copies, class_names=names, quarter_turns=copies.quarter_turns + turned)

    def read(self, rows: np.ndarray, classes: np.ndarray) -> Tensor:
        """The examples at some places, as members of some classes.

        Args:
            rows: (k,) places in `examples`.
            classes: (k,) the class each is read for, which says how it is turned.

        Returns:
            (k, *shape) floating tensor; pictures in [0, 1].
        """
        examples = np.take(self.examples, rows, axis=0)
        turns = self.quarter_turns[classes] % 4
        for turn in np.unique(turns[turns > 0]).tolist():
            chosen = np.flatnonzero(turns == turn)
            examples[chosen] = np.rot90(examples[chosen], turn, axes=(-2, -1))
        if examples.dtype == np.uint8:
            # Not in torch: so few numbers do not pay for waking its threads.
            examples = np.divide(examples, 255, dtype=np.float32)
        return torch.from_numpy(examples)

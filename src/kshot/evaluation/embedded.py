"""Embed each example of a data set once, however many episodes it appears in."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from kshot.backbones.normalization import reads_stored
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import DatasetSampler, Sampler
from kshot.learner import MetaLearner
from kshot.learners.embedding_learner import EmbeddingLearner

__all__ = ["EmbeddedDataset", "embedded_once"]

MOST_BYTES = 1 << 29
"""Once this much memory is taken, further examples are embedded whenever they are read."""


def embedded_once(learner: MetaLearner, sampler: Sampler) -> tuple[MetaLearner, Sampler]:
    """A learner and a sampler that score the same, up to rounding, with each example embedded once.

    They are those given wherever that cannot be: when the embedding of an example depends on
    others, when the learner needs more than embeddings, or when the sampler has no data set.

    Args:
        learner: in evaluation mode, under the policy it is to be evaluated by.
        sampler: where episodes come from.
    """
    if not (
        isinstance(learner, EmbeddingLearner)
        and reads_stored(learner.batch_norm)
        and isinstance(sampler, DatasetSampler)
    ):
        return learner, sampler
    embedded = EmbeddedDataset.of(sampler.dataset, learner.encoder)
    return learner.over_embeddings(), sampler.of(embedded)


@dataclass(frozen=True, eq=False)
class EmbeddedDataset(LabelledDataset):
    """A data set read as embeddings: each is computed when first asked for, and kept.

    Attributes:
        memory: the embeddings, shared by subsets and rotated copies.
    """

    memory: "_Memory"

    @classmethod
    def of(cls, dataset: LabelledDataset, encoder: nn.Module) -> "EmbeddedDataset":
        """The embeddings of a data set.

        Args:
            dataset: what to embed.
            encoder: network from (n, *shape) to (n, dim) that embeds each example by itself, as
                one in evaluation mode does.
        """
        values = {field.name: getattr(dataset, field.name) for field in fields(LabelledDataset)}
        return cls(**values, memory=_Memory(encoder, len(dataset.examples)))

    def read(self, rows: np.ndarray, classes: np.ndarray) -> Tensor:
        """The embeddings (k, dim) of the examples at some places, as members of some classes."""
        turns = self.quarter_turns[classes] % 4
        keys = turns * len(self.examples) + rows  # the same picture turned otherwise is another
        new = np.flatnonzero(self.memory.places[keys] < 0)
        if len(new) and self.memory.full:
            return self.memory.embed(super().read(rows, classes))
        if len(new):
            keys_of_new, first = np.unique(keys[new], return_index=True)
            chosen = new[first]
            self.memory.add(keys_of_new, super().read(rows[chosen], classes[chosen]))
        return self.memory.get(keys)


class _Memory:
    """Embeddings by key, in one tensor that grows."""

    def __init__(self, encoder: nn.Module, num_examples: int) -> None:
        self.encoder = encoder
        # Where the embedding of a key is, -1 for nowhere.
        self.places = np.full(4 * num_examples, -1, dtype=np.int64)
        self._kept = torch.empty(0)
        self._count = 0

    @property
    def full(self) -> bool:
        return self._kept.nbytes >= MOST_BYTES

    @torch.no_grad()
    def embed(self, inputs: Tensor) -> Tensor:
        parameter = next(self.encoder.parameters(), inputs)
        new = self.encoder(inputs.to(parameter.device, parameter.dtype))
        if not bool(new.isfinite().all()):
            raise ValueError(
                "The encoder gives NaN or infinite embeddings. Do the examples hold such values, "
                "or was the encoder's training cut short by diverging?"
            )
        return new

    def add(self, keys: np.ndarray, inputs: Tensor) -> None:
        new = self.embed(inputs)
        start, end = self._count, self._count + len(new)
        if not start:
            self._kept = new
        elif end > len(self._kept):
            room = new.new_empty(2 * end - start, *new.shape[1:])
            self._kept = torch.cat([self._kept[:start], room])
        self._kept[start:end] = new
        self.places[keys] = np.arange(start, end)
        self._count = end

    def get(self, keys: np.ndarray) -> Tensor:
        return self._kept[torch.from_numpy(self.places[keys]).to(self._kept.device)]

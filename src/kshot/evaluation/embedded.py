"""Embed each example of a data set once, however many episodes it appears in."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from kshot.backbones.heads import WithHead
from kshot.backbones.normalization import reads_stored
from kshot.data.dataset import LabelledDataset
from kshot.data.frozen import FrozenEpisodes
from kshot.data.partly_labelled import PartlyLabelledSampler
from kshot.data.sampler import EpisodeSampler, Sampler
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_examples
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.optimization.fast_weights import FastWeightLearner

__all__ = ["MOST_BYTES", "EmbeddedDataset", "embedded_once"]

MOST_BYTES = 1 << 29
"""Memory for embeddings; examples beyond it are embedded whenever they are read."""


def embedded_once(learner: MetaLearner, sampler: Sampler) -> tuple[MetaLearner, Sampler]:
    """A learner and a sampler that score the same, up to rounding, with each example embedded once.

    They are those given wherever that cannot be or gains nothing: when the embedding of an example
    depends on others or has no weights, when the learner needs more than embeddings, and when
    learner, sampler or data set are a user's own, which may read examples in ways of their own.

    Args:
        learner: in evaluation mode, under the policy it is to be evaluated by.
        sampler: where episodes come from.
    """
    found = _encoder_and_rest(learner)
    if found is None:
        return learner, sampler
    encoder, over_embeddings = found
    # Exactly these: a subclass may do anything to the examples it reads.
    if type(sampler) not in (EpisodeSampler, FrozenEpisodes, PartlyLabelledSampler):
        return learner, sampler
    assert isinstance(sampler, EpisodeSampler | FrozenEpisodes | PartlyLabelledSampler)
    if type(sampler.dataset) is not LabelledDataset:
        return learner, sampler
    embedded = EmbeddedDataset.of(sampler.dataset, encoder)
    return over_embeddings, sampler.with_dataset(embedded)


def _encoder_and_rest(learner: MetaLearner) -> tuple[nn.Module, MetaLearner] | None:
    """The encoder that embeds each example by itself, and the learner on what it gives."""
    if not reads_stored(learner.batch_norm):
        return None
    if isinstance(learner, EmbeddingLearner) and _works_as(EmbeddingLearner, learner):
        encoder = learner.encoder
    elif isinstance(learner, FastWeightLearner) and _works_as(FastWeightLearner, learner):
        if not learner.steps_move_the_head_alone:
            return None
        assert isinstance(learner.net, WithHead)
        encoder = learner.net.encoder
    else:
        return None
    has_weights = next(encoder.parameters(), None) is not None
    return (encoder, learner.over_embeddings()) if has_weights else None


def _works_as(base: type[MetaLearner], learner: MetaLearner) -> bool:
    """Whether a learner adapts and predicts as `base` does; a subclass may read inputs itself."""
    kind = type(learner)
    return (kind.adapt, kind.predict) == (base.adapt, base.predict)


@dataclass(frozen=True, eq=False)
class EmbeddedDataset(LabelledDataset):
    """A data set read as embeddings: each is computed when first asked for, and kept.

    Attributes:
        memory: the embeddings, shared by subsets.
    """

    memory: "_Memory"

    @classmethod
    def of(cls, dataset: LabelledDataset, encoder: nn.Module) -> "EmbeddedDataset":
        """The embeddings of a data set.

        Args:
            dataset: what to embed.
            encoder: network from (n, *shape) to (n, dim) that embeds each example by itself, as
                one in evaluation mode does; with parameters, whose device and precision it has.
        """
        values = {field.name: getattr(dataset, field.name) for field in fields(LabelledDataset)}
        turns = 1 + int((dataset.quarter_turns % 4).max(initial=0))
        return cls(**values, memory=_Memory(encoder, turns * len(dataset.examples)))

    def read(self, rows: np.ndarray, classes: np.ndarray) -> Tensor:
        """The embeddings (k, dim) of the examples at some places, as members of some classes."""
        turns = self.quarter_turns[classes] % 4
        keys = turns * len(self.examples) + rows  # the same picture turned otherwise is another
        keys, first, back = np.unique(keys, return_index=True, return_inverse=True)
        read = super().read
        embeddings = self.memory.get(keys, lambda new: read(rows[first[new]], classes[first[new]]))
        return embeddings[torch.from_numpy(back).to(embeddings.device)]


class _Memory:
    """Embeddings by key, in one tensor that grows up to a bound."""

    def __init__(self, encoder: nn.Module, num_keys: int) -> None:
        self.encoder = encoder
        self._places = np.full(num_keys, -1, dtype=np.int64)  # in `_kept`; -1: not there
        self._kept = torch.empty(0)
        self._count = 0

    def get(self, keys: np.ndarray, read: Callable[[np.ndarray], Tensor]) -> Tensor:
        """The embeddings (k, dim) of distinct keys; `read` reads the inputs of some of them."""
        places = self._places[keys]
        new = np.flatnonzero(places < 0)
        if not len(new):
            return self._kept[torch.from_numpy(places)]
        fresh = self._embed(read(new))
        if not self._count:
            self._kept = fresh[:0]
        found = fresh.new_empty(len(keys), *fresh.shape[1:])
        old = np.flatnonzero(places >= 0)
        found[torch.from_numpy(old)] = self._kept[torch.from_numpy(places[old])]
        found[torch.from_numpy(new)] = fresh
        self._keep(keys[new], fresh)
        return found

    @torch.no_grad()
    def _embed(self, inputs: Tensor) -> Tensor:
        parameter = next(self.encoder.parameters())
        if inputs.is_floating_point():
            inputs = inputs.to(parameter.dtype)
            if not bool(inputs.isfinite().all()):
                raise ValueError(
                    "The data set's examples hold NaN or infinite values. Every value must be a "
                    "finite number: drop or repair the examples that have missing values."
                )
        embeddings = embed_examples(self.encoder, inputs.to(parameter.device))
        if not bool(embeddings.isfinite().all()):
            raise ValueError(
                "The encoder gives NaN or infinite embeddings. Was its training cut short by "
                "diverging?"
            )
        return embeddings

    def _keep(self, keys: np.ndarray, embeddings: Tensor) -> None:
        most = MOST_BYTES // max(embeddings[0].nbytes, 1)
        end = min(self._count + len(keys), most)
        chosen = end - self._count
        if end > len(self._kept):
            room = embeddings.new_empty(min(2 * end, most) - self._count, *embeddings.shape[1:])
            self._kept = torch.cat([self._kept[: self._count], room])
        self._kept[self._count : end] = embeddings[:chosen]
        self._places[keys[:chosen]] = np.arange(self._count, end)
        self._count = end

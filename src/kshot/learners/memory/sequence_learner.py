"""Learners that read a task as a sequence: each label is shown one step after its example."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, concatenate, map_tensors
from kshot.learners.embedding import embed_support
from kshot.learners.embedding_learner import EmbeddingLearner, EmbeddingState
from kshot.losses import Loss, counted_rows, cross_entropy, mask_absent
from kshot.transforms import being_traced

__all__ = ["SequenceLearner", "SequenceState"]

Memory = TypeVar("Memory")
"""What a network keeps from step to step: a tree of tensors (tasks, ...)."""


class SequenceState(NamedTuple):
    """What is learned from the examples that were read.

    Attributes:
        memory: of the network: a tree of tensors (tasks, ...).
        last_targets: (tasks, way) target of the last example, which has not been shown yet.
    """

    memory: Any
    last_targets: Float[Tensor, "tasks way"]


class SequenceLearner(EmbeddingLearner[SequenceState], ABC, Generic[Memory]):
    """A network that reads examples one by one and learns by what it remembers.

    At step t it reads x_t together with y_(t-1), the label of the example before, and predicts y_t
    (Santoro et al., section 3):

        (x_1, 0), (x_2, y_1), ..., (x_n, y_(n-1)).

    So it cannot copy a label; it has to keep example and label together until the class comes
    again. A query is one more step (x, y_n) after the support set, and what that step would leave
    in the memory is dropped: queries do not know of each other.

    The meta-loss is that of all these predictions: of every support example before its label is
    shown, and of the queries. Episodes of shot 10 are the paper's sequences of 10 examples a class.

    Examples are read in the order given. Training draws it anew in every episode, so give them in
    an order that tells nothing.

    A subclass is a network, for the tasks of a batch at once: `initial_state`, `project`, `step`.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`;
            all examples go through it in one call, before the first is read.
        max_way: classes the network has outputs for, or numbers to predict; any fewer are served.
        batch_norm: where BatchNorm statistics come from; who reads one example at a time has only
            the running averages.
        loss: loss of every prediction.

    Raises:
        ValueError: when tasks have more than `max_way` classes.
    """

    batch_norm_policies = ("running",)
    online = True

    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        self.max_way = max_way
        self.embedding_dim = embedding_dim(encoder)

    @abstractmethod
    def initial_state(self, tasks: int) -> Memory:
        """The memory before anything is read."""

    @abstractmethod
    def project(self, embeddings: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n inputs"]:
        """What the steps need of embeddings, in one product for any number of steps."""

    @abstractmethod
    def step(
        self,
        memory: Memory,
        inputs: Float[Tensor, "tasks inputs"],
        last_targets: Float[Tensor, "tasks max_way"],
    ) -> tuple[Float[Tensor, "tasks max_way"], Memory]:
        """Logits of one projected example of every task, and the memory after it."""

    def observe(self, state: EmbeddingState, examples: Examples) -> EmbeddingState:
        """Read further examples, of classes seen before or new: as if adapted to all of them."""
        read = self._read(state.summary, self._embeddings(examples), *examples[1:])
        return state._replace(summary=read[1])

    def predict_in_turn(self, examples: Examples) -> Float[Tensor, "tasks n way"]:
        """Logits of each example after those before it, from a blank memory."""
        return self._read(self._blank(examples), self._embeddings(examples), *examples[1:])[0]

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The loss of all predictions: each support example before its label, then the queries."""
        support, query, _ = episodes
        embeddings, query_embeddings = self.embed(episodes)
        in_turn, state = self._read(self._blank(support), embeddings, *support[1:])
        after = self.compare(state, query_embeddings, query.mask)
        logits = mask_absent(torch.cat([in_turn, after], 1), episodes.present)
        _, targets, mask = concatenate(support._replace(inputs={}), query._replace(inputs={}))
        return self.loss(logits, targets, mask).mean()

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> SequenceState:
        """Read the support set."""
        blank = self._blank(Examples(embeddings, targets, mask))
        return self._read(blank, embeddings, targets, mask)[1]

    def compare(
        self,
        summary: SequenceState,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of queries, each the next step."""
        tasks, m = embeddings.shape[:2]
        memory, last = map_tensors(partial(torch.repeat_interleave, repeats=m, dim=0), summary)
        with self._full_precision():
            inputs = self.project(embeddings.to(last.dtype)).flatten(0, 1)
            logits, _ = self.step(memory, inputs, self._widened(last))
        return logits.view(tasks, m, -1)[..., : last.shape[1]]

    def _embeddings(self, examples: Examples) -> Float[Tensor, "tasks n dim"]:
        return embed_support(self.encoder, self.batch_norm, examples.inputs, examples.mask)

    def _blank(self, examples: Examples) -> SequenceState:
        """The state before the first of some examples."""
        tasks, _, way = examples.targets.shape
        no_target = next(self.parameters()).new_zeros(tasks, way)
        return SequenceState(self.initial_state(tasks), no_target)

    def _read(
        self,
        state: SequenceState,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> tuple[Float[Tensor, "tasks n way"], SequenceState]:
        """Logits of each example before its label is shown, and the state after the last.

        Rows that are no labelled examples leave the state as it is.
        """
        memory, last = state
        way = max(last.shape[1], targets.shape[2])  # a class may be new
        last, shown = self._widened(last), self._widened(targets.to(last.dtype))
        counted = counted_rows(targets, mask, self.loss.kind)
        all_count = not being_traced() and bool(counted.all())  # then no step has to be undone
        logits = []
        with self._full_precision():
            inputs = self.project(embeddings.to(last.dtype))
            for x, y, real in zip(
                inputs.unbind(1), shown.unbind(1), counted.unbind(1), strict=True
            ):
                predicted, after = self.step(memory, x, last)
                logits.append(predicted)
                if all_count:
                    memory, last = after, y
                else:
                    memory, last = map_tensors(partial(_where, real), (after, y), (memory, last))
        along = torch.stack(logits, 1) if logits else shown
        return along[..., : targets.shape[2]], SequenceState(memory, last[:, :way])

    def _widened(self, targets: Float[Tensor, "*n way"]) -> Float[Tensor, "*n max_way"]:
        """Targets with a column for every output of the network."""
        missing = self.max_way - targets.shape[-1]
        if missing < 0:
            raise ValueError(
                f"{type(self).__name__} was built for tasks of at most {self.max_way} classes, and "
                f"these have {targets.shape[-1]}: build it with a larger max_way."
            )
        return F.pad(targets, (0, missing)) if missing else targets

    def _full_precision(self) -> torch.autocast:
        """Errors of half precision would add up from step to step."""
        return torch.autocast(next(self.parameters()).device.type, enabled=False)


def _where(real: Bool[Tensor, " tasks"], after: Tensor, before: Tensor) -> Tensor:
    return torch.where(real.view(-1, *(1,) * (after.dim() - 1)), after, before)

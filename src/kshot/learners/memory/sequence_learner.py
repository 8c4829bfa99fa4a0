"""Learners that read a task as a sequence: each label is shown one step after its example."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, concatenate, map_tensors
from kshot.learners.embedding import embed_support
from kshot.learners.embedding_learner import EmbeddingLearner, EmbeddingState
from kshot.learners.memory.labels import LetterLabels, OneHotLabels
from kshot.losses import Loss, counted_rows, cross_entropy
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
    Labels, read and said, have `labels.size` numbers.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`;
            all examples go through it in one call, before the first is read.
        max_way: the most classes of a task, or numbers to predict; any fewer are served.
        labels: "one_hot", a number for each class, or "letters", strings of five letters
            (`LetterLabels`).
        batch_norm: where BatchNorm statistics come from; who reads one example at a time has only
            the running averages.
        loss: loss of every prediction.

    Raises:
        ValueError: when tasks have more than `max_way` classes, and for letters in regression.
    """

    batch_norm_policies = ("running",)
    online = True
    repeated = "step"

    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        labels: Literal["one_hot", "letters"] = "one_hot",
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        if labels == "letters" and loss.kind != "classification":
            raise ValueError("Letters name classes: in regression labels must be 'one_hot'.")
        self.max_way = max_way
        self.labels = {"one_hot": OneHotLabels, "letters": LetterLabels}[labels](max_way)
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
        last_label: Float[Tensor, "tasks size"],
    ) -> tuple[Float[Tensor, "tasks size"], Memory]:
        """What is said of one projected example of every task, and the memory after it."""

    def observe(self, state: EmbeddingState, examples: Examples) -> EmbeddingState:
        """Read further examples, of classes seen before or new: as if adapted to all of them."""
        rows = state.summary.last_targets.unsqueeze(1), examples.targets
        codes = self.labels.codes(max(rows, key=lambda each: each.shape[2]))  # a class may be new
        embeddings = self._embeddings(examples)
        read = self._read(state.summary, embeddings, *examples[1:], codes)
        return state._replace(summary=read[1])

    def predict_in_turn(self, examples: Examples) -> Float[Tensor, "tasks n way"]:
        """Logits of each example after those before it, from a blank memory."""
        outputs, codes = self.outputs_in_turn(examples)
        with self._full_precision():
            return self.labels.logits(outputs, codes)

    def outputs_in_turn(
        self, examples: Examples
    ) -> tuple[Float[Tensor, "tasks n size"], Float[Tensor, "tasks way size"]]:
        """What is said of each example after those before it, and the labels of the classes."""
        codes = self.labels.codes(examples.targets)
        blank, embeddings = self._blank(examples), self._embeddings(examples)
        return self._read(blank, embeddings, *examples[1:], codes)[0], codes

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The loss of all predictions: each support example before its label, then the queries."""
        support, query, _ = episodes
        embeddings, query_embeddings = self.embed(episodes)
        codes = self.labels.codes(support.targets, drawn=self.training)
        in_turn, state = self._read(self._blank(support), embeddings, *support[1:], codes)
        after = self._next(state, query_embeddings, codes)
        _, targets, mask = concatenate(support._replace(inputs={}), query._replace(inputs={}))
        outputs = torch.cat([in_turn, after], 1)
        with self._full_precision():
            loss = self.labels.loss(self.loss, outputs, targets, mask, codes, episodes.present)
        return loss.mean()

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> SequenceState:
        """Read the support set."""
        blank = self._blank(Examples(embeddings, targets, mask))
        return self._read(blank, embeddings, targets, mask, self.labels.codes(targets))[1]

    def compare(
        self,
        summary: SequenceState,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of queries, each the next step."""
        codes = self.labels.codes(summary.last_targets.unsqueeze(1))
        outputs = self._next(summary, embeddings, codes)
        with self._full_precision():
            return self.labels.logits(outputs, codes)

    def _next(
        self,
        state: SequenceState,
        embeddings: Float[Tensor, "tasks m dim"],
        codes: Float[Tensor, "tasks way size"],
    ) -> Float[Tensor, "tasks m size"]:
        """What is said of queries, each the next step."""
        tasks, m = embeddings.shape[:2]
        with self._full_precision():
            label = self.labels.shown(state.last_targets.unsqueeze(1), codes).squeeze(1)
            memory, label = map_tensors(
                partial(torch.repeat_interleave, repeats=m, dim=0), (state.memory, label)
            )
            inputs = self.project(embeddings.to(label.dtype)).flatten(0, 1)
            return self.step(memory, inputs, label)[0].view(tasks, m, -1)

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
        codes: Float[Tensor, "tasks way size"],
    ) -> tuple[Float[Tensor, "tasks n size"], SequenceState]:
        """What is said of each example before its label is shown, and the state after the last.

        Rows that are no labelled examples leave the state as it is.
        """
        memory, last = state
        targets = targets.to(last.dtype)
        way = codes.shape[1]
        last = F.pad(last, (0, way - last.shape[1]))
        rows = F.pad(targets, (0, way - targets.shape[2]))
        both = torch.cat([last.unsqueeze(1), rows], 1)
        counted = counted_rows(targets, mask, self.loss.kind)
        all_count = not being_traced() and bool(counted.all())  # then no step has to be undone
        said = []
        with self._full_precision():
            label, *shown = self.labels.shown(both, codes).unbind(1)
            inputs = self.project(embeddings.to(last.dtype))
            for x, y, row, real in zip(
                inputs.unbind(1), shown, rows.unbind(1), counted.unbind(1), strict=True
            ):
                outputs, after = self.step(memory, x, label)
                said.append(outputs)
                if all_count:
                    memory, label, last = after, y, row
                else:
                    memory, label, last = map_tensors(
                        partial(_where, real), (after, y, row), (memory, label, last)
                    )
        along = torch.stack(said, 1) if said else last.new_zeros(len(last), 0, self.labels.size)
        return along, SequenceState(memory, last)

    def _full_precision(self) -> torch.autocast:
        """Errors of half precision would add up from step to step."""
        return torch.autocast(next(self.parameters()).device.type, enabled=False)


def _where(real: Bool[Tensor, " tasks"], after: Tensor, before: Tensor) -> Tensor:
    return torch.where(real.view(-1, *(1,) * (after.dim() - 1)), after, before)

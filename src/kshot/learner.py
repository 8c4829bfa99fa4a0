"""The contract: a meta-learner is a map from support sets to predictors."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Generic, TypeVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, Inputs
from kshot.losses import Loss, cross_entropy, mask_absent
from kshot.paper import Paper

__all__ = ["MetaLearner", "State"]

State = TypeVar("State")
"""What a learner learns from a support set: a (named) tuple or dictionary of tensors."""


class MetaLearner(nn.Module, ABC, Generic[State]):
    """A map from support sets to predictors; its parameters are the meta-parameters.

    Every tensor has a leading `tasks` dimension: one task is a batch of one. `adapt` and `predict`
    are pure: what is learned from a support set is the state they pass on, a (named) tuple or
    dictionary of tensors with a leading `tasks` dimension; nothing is stored on the learner, and
    its buffers are only read. Subclasses are final.

    Args:
        loss: what a task's predictions are judged by, within the inner loop and outside.
        batch_norm: which examples give BatchNorm its statistics, stored with every result;
            "none" when the network has no such layer.
    """

    batch_norm_policies: tuple[BatchNormPolicy, ...] = (
        "running",
        "batch",
        "support",
        "support_and_query",
    )
    """The policies it can be evaluated under when its network has BatchNorm."""
    classes_apart: bool = False
    """Whether the logit of a class depends on that class's examples alone, apart from the others.

    Then it says how alike a query and the class are, and one class can be a task: verification.
    """
    online: bool = False
    """Whether what it learned can go on learning, by `observe(state, examples) -> state`."""
    repeated: str | None = None
    """The method that a meta-loss calls too often for one graph: it is compiled by itself."""
    num_test_steps: int | None = None
    """Inner steps in evaluation mode; None for a learner that takes none."""
    paper: Paper | None = None
    """The paper that the method comes from; None for what is in every textbook."""

    def __init__(self, *, loss: Loss = cross_entropy, batch_norm: BatchNormPolicy = "none") -> None:
        super().__init__()
        if batch_norm not in (*self.batch_norm_policies, "none"):
            raise ValueError(
                f"{type(self).__name__} has no BatchNorm policy {batch_norm!r}, only "
                f"{', '.join(self.batch_norm_policies)}."
            )
        self.loss = loss
        self.batch_norm: BatchNormPolicy = batch_norm

    @abstractmethod
    def adapt(self, support: Examples) -> State:
        """Learn each task from its support set."""

    @abstractmethod
    def predict(
        self, state: State, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Logits (classification) or values (regression) of the inputs (tasks, m, *shape).

        Logits are finite for every column; `kshot.losses.mask_absent` takes padded columns out.
        """

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The loss to minimize across tasks: by default the query loss after adaptation."""
        state = self.adapt(episodes.support)
        predictions = self.predict(state, episodes.query.inputs, episodes.query.mask)
        return self.query_loss(predictions, episodes)

    def query_loss(
        self, predictions: Float[Tensor, "tasks m way"], episodes: Episodes
    ) -> Float[Tensor, ""]:
        """The loss of query predictions, averaged over tasks."""
        logits = mask_absent(predictions, episodes.present)
        return self.loss(logits, episodes.query.targets, episodes.query.mask).mean()

    def forward(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The meta-loss, so that DistributedDataParallel and torch.compile see every learner."""
        return self.meta_loss(episodes)

    def citation(self) -> str:
        """BibTeX of the paper that the method comes from; "" where there is none."""
        return "" if self.paper is None else self.paper.bibtex()

    @property
    def phase(self) -> Hashable:
        """What of a schedule decides which operations `meta_loss` takes: a compiled graph has one.

        Read before `meta_loss`; None for a learner whose operations are always the same.
        """
        return None

    @property
    def transductive(self) -> bool:
        """Whether the prediction of one query depends on the other queries."""
        return self.batch_norm == "batch"

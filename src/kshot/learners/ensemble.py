"""Several learners of one kind that predict together."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.episodes import Examples, Inputs
from kshot.learner import MetaLearner, State

__all__ = ["Ensemble"]


class Ensemble(MetaLearner[tuple[State, ...]]):
    """The mean of the logits, or in regression the values, that several learners predict.

    Each adapts to a task by itself. Members may be the best checkpoints of one training, as in
    MAML++'s results, or trainings from several seeds.

    State:
        The states of the members.

    Args:
        members: learners with one loss, BatchNorm policy and number of inner steps.

    Raises:
        ValueError: when there are none, or they differ in one of these.

    Example:
        >>> from kshot import ProtoNet
        >>> ensemble = Ensemble([ProtoNet(nn.Linear(2, 3)), ProtoNet(nn.Linear(2, 3))])
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> ensemble.predict(ensemble.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])
    """

    def __init__(self, members: Sequence[MetaLearner[State]]) -> None:
        kinds = {(each.loss, each.batch_norm, each.num_test_steps) for each in members}
        if len(kinds) != 1:
            raise ValueError(
                "An ensemble is of at least one learner, all with one loss, BatchNorm policy and "
                f"number of inner steps; these {len(members)} have {len(kinds)} kinds of them."
            )
        first = members[0]
        self.batch_norm_policies = first.batch_norm_policies
        super().__init__(loss=first.loss, batch_norm=first.batch_norm)
        self.num_test_steps = first.num_test_steps
        self.members = nn.ModuleList(members)

    @property
    def transductive(self) -> bool:
        """Whether the prediction of one query depends on the other queries."""
        return self._learners[0].transductive

    def adapt(self, support: Examples) -> tuple[State, ...]:
        """Each member's state."""
        return tuple(member.adapt(support) for member in self._learners)

    def predict(
        self,
        state: tuple[State, ...],
        inputs: Inputs,
        mask: Bool[Tensor, "tasks m"] | None = None,
    ) -> Float[Tensor, "tasks m way"]:
        """The mean of what the members predict."""
        each = zip(self._learners, state, strict=True)
        return torch.stack([member.predict(own, inputs, mask) for member, own in each]).mean(0)

    @property
    def _learners(self) -> list[MetaLearner[State]]:
        return list(self.members)  # pyright: ignore[reportReturnType]

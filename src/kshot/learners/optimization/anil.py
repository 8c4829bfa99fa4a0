"""ANIL: only the head is adapted to a task; the body beneath it is shared by all."""

from collections import deque
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.conversion import split_affine
from kshot.backbones.heads import embedding_dim
from kshot.backbones.normalization import policy_for, reads_support
from kshot.config import BatchNormPolicy
from kshot.episodes import Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_query, embed_support
from kshot.learners.optimization.fast_weights import present_columns
from kshot.learners.optimization.inner_loop import checked_steps, inner_loop
from kshot.learners.optimization.update_rules import SGD, Params
from kshot.learners.papers import RAGHU_2020
from kshot.learners.task_map import map_tasks
from kshot.losses import Loss, cross_entropy, mask_absent
from kshot.options import checks_options

__all__ = ["ANIL", "ANILState"]


class ANILState(NamedTuple):
    """What ANIL learns from a support set.

    Attributes:
        weight: (tasks, way, dim), the adapted head.
        bias: (tasks, way).
        support_inputs: (tasks, n, *shape), for BatchNorm policies that read them, else None.
        support_mask: (tasks, n), as `support_inputs`.
    """

    weight: Float[Tensor, "tasks way dim"]
    bias: Float[Tensor, "tasks way"]
    support_inputs: Inputs | None
    support_mask: Bool[Tensor, "tasks n"] | None


class ANIL(MetaLearner[ANILState]):
    """Almost no inner loop: MAML whose inner steps move the head alone.

    With body f and head (W, b), each task takes k gradient steps on the support loss of
    W f(x) + b from the shared (W, b), and body and head move along the gradient of the query loss
    through these steps (section 4 of the paper). The body sees every example once.

    State:
        `ANILState`: the adapted head of every task.

    Args:
        encoder: the body, network from inputs (n, *shape) to embeddings (n, dim) with its
            `embedding_dim`.
        max_way: columns of the head; it serves any way up to that.
        inner_lr: inner learning rate, on the mean loss of the support set.
        num_inner_steps: inner steps in meta-training.
        num_test_steps: inner steps in evaluation mode; None takes `num_inner_steps`.
        first_order: drop second derivatives.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of a task, inner and outer.

    Raises:
        ValueError: when an episode has more classes than the head has columns.

    Example:
        >>> import torch
        >>> from kshot.backbones.mlp import MLP
        >>> learner = ANIL(MLP((2,)), 5)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML. ICLR 2020.
        https://arxiv.org/abs/1909.09157
    """

    paper = RAGHU_2020

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        inner_lr: float = 0.4,
        num_inner_steps: int = 1,
        num_test_steps: int | None = None,
        first_order: bool = False,
        batch_norm: BatchNormPolicy = "batch",
        loss: Loss = cross_entropy,
    ) -> None:
        encoder = split_affine(encoder)
        super().__init__(loss=loss, batch_norm=policy_for(encoder, batch_norm))
        self.encoder = encoder
        self.head = nn.Linear(embedding_dim(encoder), max_way)
        self.rule = SGD(inner_lr)
        self.num_inner_steps, self.num_test_steps = checked_steps(num_inner_steps, num_test_steps)
        self.first_order = first_order

    def adapt(self, support: Examples) -> ANILState:
        """Embed the support set once, then take the inner steps of each task's head."""
        way = support.targets.shape[-1]
        if way > self.head.out_features:
            raise ValueError(
                f"The episodes have {way} columns and the head has {self.head.out_features}: build "
                f"it with max_way={way}, or draw episodes of a smaller way."
            )
        embeddings = embed_support(self.encoder, self.batch_norm, support.inputs, support.mask)
        num_steps = self.num_inner_steps if self.training else self.num_test_steps or 0
        start: Params = {"weight": self.head.weight[:way], "bias": self.head.bias[:way]}

        def adapt_one_task(
            embeddings: Tensor, targets: Tensor, mask: Tensor | None, present: Tensor
        ) -> Params:
            def support_loss(head: Params, step: int) -> Tensor:
                logits = F.linear(embeddings, head["weight"], head["bias"])
                return self.loss(mask_absent(logits, present), targets, mask)

            steps = inner_loop(
                support_loss, start, self.rule, num_steps, first_order=self.first_order
            )
            return deque(steps, maxlen=1).pop()

        present = present_columns(support, self.loss)
        head = map_tasks(adapt_one_task, embeddings, support.targets, support.mask, present)
        kept = reads_support(self.batch_norm)
        return ANILState(
            head["weight"],
            head["bias"],
            support.inputs if kept else None,
            support.mask if kept else None,
        )

    def predict(
        self, state: ANILState, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of each task's adapted head."""
        embeddings = embed_query(
            self.encoder, self.batch_norm, inputs, mask, state.support_inputs, state.support_mask
        )
        return embeddings @ state.weight.mT + state.bias.unsqueeze(1)

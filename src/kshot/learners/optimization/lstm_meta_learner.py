"""The LSTM meta-learner: a recurrent network learns the update rule, and where it starts."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Examples
from kshot.learners.optimization.fast_weights import (
    FastWeightLearner,
    parameters_exchanged,
    present_columns,
)
from kshot.learners.optimization.inner_loop import inner_step
from kshot.learners.optimization.update_rules import GatedRule, Params
from kshot.learners.optimization.update_rules.coordinatewise import unflatten
from kshot.learners.papers import RAVI_2017
from kshot.learners.task_map import Strategy, map_tasks
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["LSTMMetaLearner"]


class LSTMMetaLearner(FastWeightLearner):
    """Optimization as a model: the rule of the inner steps is an LSTM, trained across tasks.

    The parameters theta of a network are the content of a memory cell, one cell a coordinate:

        theta <- sigma(f) theta - sigma(i) grad L_support(theta),

    where the forget gate f and the input gate i come from a network that has read the losses and
    gradients so far (`GatedRule`), the same for every coordinate. Its weights and the cells' first
    content, which is the initialization, are learned by the query loss after the last step. Losses
    and gradients that the rule reads are taken as constants (section 3.3 of the paper), theta in
    between is not.

    State:
        `FastWeights`: the adapted parameters of every task.

    Args:
        net: network from inputs (n, *shape) to outputs (n, max_way).
        num_inner_steps: inner steps in meta-training.
        num_test_steps: inner steps in evaluation mode; None takes `num_inner_steps`.
        inner_batch_size: support examples of a step in meta-training, 0 all; minibatches go round
            the support set in its own order.
        test_batch_size: support examples of a step in evaluation mode, 0 all.
        num_layers: layers of the memory that the gates read; with 0 they see loss and gradient.
        hidden: numbers of the state of a layer.
        feedback_pre_sigmoid: whether gates see what they were before the sigmoid, as in the
            authors' code, or after it, as in the paper.
        learned_initialization: whether the initialization is learned beside the rule.
        first_order: take losses and gradients that the rule reads as constants.
        adapted: which parameters the steps move, by name, with * for any text: "head.*".
        batch_norm: where BatchNorm statistics come from. "support" as in the authors' code: those
            of the query set in meta-training, of the support set in evaluation.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        gradient_checkpointing: compute each inner step again in the backward pass instead of
            keeping its intermediate results: the rule's are several hundred numbers a coordinate.
        loss: loss of a task, inner and outer.

    Example:
        >>> learner = LSTMMetaLearner(nn.Linear(2, 5))
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Note:
        - The authors' code divides the gradient of the mean loss by the number of examples again;
          here the input gate has to be that much smaller for the same steps.
        - In evaluation, statistics are those of the whole support set under the adapted parameters;
          the authors average over the steps, with a weight of .9 or .95 for the newest.

    Reference:
        Optimization as a Model for Few-Shot Learning. ICLR 2017.
        https://openreview.net/forum?id=rJY0-Kcll
    """

    paper = RAVI_2017
    rule: GatedRule

    @checks_options
    def __init__(
        self,
        net: nn.Module,
        *,
        num_inner_steps: int = 12,
        num_test_steps: int | None = None,
        inner_batch_size: int = 0,
        test_batch_size: int = 0,
        num_layers: int = 1,
        hidden: int = 20,
        feedback_pre_sigmoid: bool = True,
        learned_initialization: bool = True,
        first_order: bool = True,
        adapted: tuple[str, ...] = ("*",),
        batch_norm: BatchNormPolicy = "support",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        gradient_checkpointing: bool = False,
        loss: Loss = cross_entropy,
    ) -> None:
        rule = GatedRule(
            num_layers=num_layers, hidden=hidden, feedback_pre_sigmoid=feedback_pre_sigmoid
        )
        super().__init__(
            net,
            rule,
            adapted=adapted,
            num_inner_steps=num_inner_steps,
            num_test_steps=num_test_steps,
            inner_batch_size=inner_batch_size,
            test_batch_size=test_batch_size,
            first_order=first_order,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            gradient_checkpointing=gradient_checkpointing,
            loss=loss,
        )
        self.learned_initialization = learned_initialization

    @property
    def policy(self) -> BatchNormPolicy:
        """The BatchNorm policy in force."""
        of_the_batch = self.training and self.batch_norm == "support"
        return "batch" if of_the_batch else self.batch_norm

    def initialization(self, way: int) -> Params:
        """The first content of the cells."""
        start = super().initialization(way)
        if self.learned_initialization:
            return start
        return {name: value.detach() for name, value in start.items()}

    def gates(self, support: Examples) -> dict[str, Float[Tensor, "tasks steps 2 *shape"]]:
        """The forget and the input gate of every coordinate at each step, by parameter."""
        present = present_columns(support, self.loss)
        start = self.initialization(present.shape[-1])

        def one_task(support: Examples, present: Tensor) -> Params:
            params, state, seen = start, self.rule.init(start), []
            for step in range(self._num_steps):
                loss = partial(self._inner_loss, start, support, present, step=step)
                params, state = inner_step(loss, params, self.rule, state, first_order=True)
                gates = self.rule.gates(state)
                both = [unflatten(gates[name], start) for name in ("forget", "enter")]
                seen.append({name: torch.stack([gate[name] for gate in both]) for name in start})
            return {name: torch.stack([gates[name] for gates in seen]) for name in start}

        with torch.no_grad(), parameters_exchanged():
            return map_tasks(one_task, support, present, strategy="loop")

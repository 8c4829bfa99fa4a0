"""Reptile: move the initial parameters toward where the steps of each task lead."""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, concatenate
from kshot.learners.optimization.fast_weights import (
    FastWeightLearner,
    Network,
    adapted_params,
    parameters_exchanged,
    present_columns,
)
from kshot.learners.optimization.inner_loop import inner_step
from kshot.learners.optimization.update_rules import (
    Adam,
    CarriedAdam,
    Params,
    RuleState,
    UpdateRule,
)
from kshot.learners.papers import NICHOL_2018
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options

__all__ = ["Reptile"]


class Reptile(FastWeightLearner):
    """Reptile: the initialization is learned without a query loss and without derivatives of steps.

    Each task takes k steps from theta on minibatches of all its examples, to theta_k, and theta
    moves toward the mean of where they end (algorithms 1 and 2):

        theta <- theta + epsilon * mean over tasks of (theta_k - theta).

    That is gradient descent with rate epsilon on half the squared distance to the theta_k, taken
    as constants, which is `meta_loss`: train with `optimizer="sgd"` and `outer_lr` = epsilon, 1 at
    the start, falling linearly. A meta-batch of one task is the serial version.

    State:
        `FastWeights`: the adapted parameters of every task.

    Args:
        net: network from inputs (n, *shape) to outputs (n, max_way).
        inner_lr: learning rate of the inner Adam, whose beta1 is 0.
        carry_over: the inner Adam's averages carry over from task to task in meta-training, and
            test tasks begin from them, as in the authors' code; otherwise every task starts afresh.
            Like theirs, the loss is then summed over a minibatch: averages that come from larger
            ones make test steps shorter.
        num_inner_steps: inner steps in meta-training.
        num_test_steps: inner steps in evaluation mode.
        inner_batch_size: examples of an inner step in meta-training; 0 takes all.
        test_batch_size: examples of an inner step in evaluation mode; 0 takes all.
        adapted: which parameters the steps move, by name, with * for any text: "head.*".
        batch_norm: where BatchNorm statistics come from: "batch" is the paper's transductive row,
            "support_and_query" its other one.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        rule: another update rule, instead of Adam by `inner_lr`; nothing trains a rule here.
        loss: loss of a task's inner steps.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = Reptile(nn.Linear(2, 5))
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Note:
        - Minibatches go round the support set in its own order, which is drawn anew in every
          episode; the authors shuffle at each round.
        - Tasks of a meta-batch begin from the same averages, and the mean of what they leave is
          carried over; the authors' go through the tasks one after the other, and so do
          micro-batches of one task.

    Reference:
        On First-Order Meta-Learning Algorithms. 2018. https://arxiv.org/abs/1803.02999
    """

    paper = NICHOL_2018

    @checks_options
    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 1e-3,
        carry_over: bool = False,
        num_inner_steps: int = 5,
        num_test_steps: int = 50,
        inner_batch_size: int = 10,
        test_batch_size: int = 5,
        adapted: tuple[str, ...] = ("*",),
        batch_norm: BatchNormPolicy = "batch",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        rule: UpdateRule | None = None,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            net,
            rule or Adam(inner_lr, beta1=0.0),
            num_inner_steps=num_inner_steps,
            num_test_steps=num_test_steps,
            inner_batch_size=inner_batch_size,
            test_batch_size=test_batch_size,
            first_order=True,
            adapted=adapted,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            loss=loss,
        )
        if carry_over:
            if rule is not None:
                raise ValueError("carry_over=True is for the inner Adam: give no rule beside it.")
            self.rule = CarriedAdam(adapted_params(self.net, adapted), inner_lr, beta1=0.0)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """Half the squared distance to each task's adapted parameters, averaged over tasks.

        Support and query are one set of examples here.
        """
        examples = concatenate(episodes.support, episodes.query)
        present = present_columns(examples, self.loss)
        start = self.initialization(present.shape[-1])
        inputs = self._of_a_step(examples.inputs)
        with torch.no_grad(), parameters_exchanged():
            lead = partial(self._one_task, start)
            adapted, state = self.map_tasks(lead, inputs, examples, present)
        if isinstance(self.rule, CarriedAdam) and self.training:
            self.rule.carry(state)
        distances = [
            (start[name] - value).square().reshape(len(value), -1).sum(1)
            for name, value in adapted.items()
        ]
        return torch.stack(distances).sum(0).mean() / 2

    def support_loss(
        self,
        params: Params,
        examples: Examples,
        present: Bool[Tensor, " way"],
        network: Network | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one task's minibatch, summed where averages carry over."""
        loss = super().support_loss(params, examples, present, network)
        if not isinstance(self.rule, CarriedAdam):
            return loss
        return loss * counted_rows(examples.targets, examples.mask, self.loss.kind).sum()

    def _one_task(
        self, start: Params, examples: Examples, present: Tensor
    ) -> tuple[Params, RuleState]:
        """Where the steps of one task lead: its parameters, and the rule's state."""
        params, state = start, self.rule.init(start)
        for step in range(self._num_steps):
            loss = partial(self._inner_loss, start, examples, present, step=step)
            params, state = inner_step(loss, params, self.rule, state, first_order=True)
        return params, state

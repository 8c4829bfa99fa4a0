"""MAML: learn the initial parameters from which a few gradient steps fit a new task."""

from typing import Literal

from torch import nn

from kshot.config import BatchNormPolicy
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.optimization.update_rules import UPDATE_RULES, UpdateRule
from kshot.learners.papers import FINN_2017
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["MAML"]


class MAML(FastWeightLearner):
    r"""Model-agnostic meta-learning: the initialization is learned.

    Each task takes k gradient steps on its support loss from the shared initialization theta,

        theta_{s+1} = theta_s - inner_lr * grad L_support(theta_s),  theta_0 = theta,

    and theta moves along the gradient of the query loss L_query(theta_k) through all of these steps
    (section 2 of the paper). FOMAML (`first_order=True`) treats the inner gradients as constants.
    With no inner steps this is joint training on all tasks.

    State:
        `FastWeights`: the adapted parameters of every task.

    Args:
        net: network from inputs (n, *shape) to outputs (n, max_way): logits, or regression values.
            It serves any way up to max_way.
        inner_lr: inner learning rate, on the mean loss of the support set.
        num_inner_steps: inner steps in meta-training.
        num_test_steps: inner steps in evaluation mode; None takes `num_inner_steps`.
        first_order: drop second derivatives (FOMAML).
        adapted: which parameters the steps move, by name, with * for any text: "head.*".
        batch_norm: where BatchNorm statistics come from. "batch", as in the paper's code, is
            transductive: queries share them. "running" reads the averages a network came with.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        gradient_checkpointing: compute each inner step again in the backward pass instead of
            keeping its intermediate results, which bounds memory in long unrolls.
        inner_optimizer: update rule of the inner steps, with the rate `inner_lr`.
        rule: another update rule, instead of `inner_optimizer`; its parameters are meta-learned.
        loss: loss of a task, inner and outer.

    Raises:
        ValueError: when an episode has more classes than the network has outputs.

    Example:
        >>> import torch
        >>> from kshot.episodes import Examples
        >>> learner = MAML(nn.Linear(2, 5), inner_lr=0.1)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Note:
        The authors' code sums the inner loss over classes, so its inner rate 0.4 at 5 classes is
        2.0 here.

    Reference:
        Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017.
        https://arxiv.org/abs/1703.03400
    """

    paper = FINN_2017

    @checks_options
    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 0.4,
        num_inner_steps: int = 1,
        num_test_steps: int | None = None,
        first_order: bool = False,
        adapted: tuple[str, ...] = ("*",),
        batch_norm: BatchNormPolicy = "batch",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        gradient_checkpointing: bool = False,
        inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd",
        rule: UpdateRule | None = None,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            net,
            rule or UPDATE_RULES[inner_optimizer](inner_lr),
            num_inner_steps=num_inner_steps,
            num_test_steps=num_test_steps,
            first_order=first_order,
            adapted=adapted,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            gradient_checkpointing=gradient_checkpointing,
            loss=loss,
        )

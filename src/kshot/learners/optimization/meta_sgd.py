"""Meta-SGD: learn the initial parameters, and for every element of them a rate of its own."""

from torch import nn

from kshot.config import BatchNormPolicy
from kshot.learners.optimization.fast_weights import FastWeightLearner, adapted_params
from kshot.learners.optimization.update_rules import LearnedRates
from kshot.learners.papers import LI_2017
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["MetaSGD"]


class MetaSGD(FastWeightLearner):
    """Meta-SGD: initialization, direction and rate of the step are learned together.

    Each task takes one step, with a rate for every element of the parameters (equation 2):

        theta' = theta - alpha * grad L_support(theta)   (element by element),

    and theta and alpha move along the gradient of L_query(theta').

    State:
        `FastWeights`: the adapted parameters of every task.

    Args:
        net: network from inputs (n, *shape) to outputs (n, max_way).
        lowest_rate: lowest rate at the start.
        highest_rate: highest rate at the start.
        num_inner_steps: inner steps in meta-training.
        num_test_steps: inner steps in evaluation mode; None takes `num_inner_steps`.
        adapted: which parameters the steps move, by name, with * for any text: "head.*".
        batch_norm: where BatchNorm statistics come from.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        gradient_checkpointing: compute each inner step again in the backward pass instead of
            keeping its intermediate results, which bounds memory in long unrolls.
        loss: loss of a task, inner and outer.

    Example:
        >>> import torch
        >>> from kshot.episodes import Examples
        >>> learner = MetaSGD(nn.Linear(2, 5))
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. 2017.
        https://arxiv.org/abs/1707.09835
    """

    paper = LI_2017

    @checks_options
    def __init__(
        self,
        net: nn.Module,
        *,
        lowest_rate: float = 0.005,
        highest_rate: float = 0.1,
        num_inner_steps: int = 1,
        num_test_steps: int | None = None,
        adapted: tuple[str, ...] = ("*",),
        batch_norm: BatchNormPolicy = "batch",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        gradient_checkpointing: bool = False,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            net,
            LearnedRates(adapted_params(net, adapted), lowest_rate, highest_rate),
            num_inner_steps=num_inner_steps,
            num_test_steps=num_test_steps,
            first_order=False,
            adapted=adapted,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            gradient_checkpointing=gradient_checkpointing,
            loss=loss,
        )

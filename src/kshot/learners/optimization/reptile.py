"""Reptile: move the initial parameters toward where the steps of each task lead."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, concatenate
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.optimization.update_rules import Adam, UpdateRule
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy

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
        - Every task starts with fresh Adam averages, so that adaptation is a function of the
          support set; in the authors' training they carry over from task to task.

    Reference:
        On First-Order Meta-Learning Algorithms. 2018. https://arxiv.org/abs/1803.02999
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 1e-3,
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

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """Half the squared distance to each task's adapted parameters, averaged over tasks.

        Support and query are one set of examples here.
        """
        with torch.no_grad():
            adapted = self.adapt(concatenate(episodes.support, episodes.query)).params
        current = self.initialization(episodes.support.targets.shape[-1])
        distances = [
            (current[name] - value).square().reshape(len(value), -1).sum(1)
            for name, value in adapted.items()
        ]
        return torch.stack(distances).sum(0).mean() / 2

"""Fine-tuning: pre-train on all tasks together, then take gradient steps on a new one."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.heads import WithHead
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, concatenate
from kshot.learners.baselines.pretraining import targets_among_all
from kshot.learners.embedding import embed_pooled
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.optimization.update_rules import SGD, Params
from kshot.learners.papers import FINN_2017
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["FineTuned", "FineTuning"]


class FineTuned(FastWeightLearner):
    """A learner that pre-trains an encoder and takes gradient steps from there on each task.

    Subclasses say what pre-training minimizes; `FineTuning` explains the arguments.
    """

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        num_outputs: int,
        *,
        inner_lr: float = 0.01,
        num_test_steps: int = 50,
        tune: Literal["head", "all"] = "all",
        batch_norm: BatchNormPolicy = "running",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            WithHead(encoder, num_outputs),
            SGD(inner_lr),
            adapted=("head.*",) if tune == "head" else ("*",),
            num_inner_steps=num_test_steps,
            num_test_steps=num_test_steps,
            first_order=True,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            loss=loss,
        )
        self.num_outputs = num_outputs

    def initialization(self, way: int) -> Params:
        """The pre-trained parameters; in classification with a new head of `way` columns."""
        params = super().initialization(way)
        if self.loss.kind == "classification":
            weight = params["head.weight"]
            params["head.weight"] = weight.new_zeros(way, weight.shape[1])
            params["head.bias"] = weight.new_zeros(way)
        return params


class FineTuning(FineTuned):
    """Joint pre-training and fine-tuning: the baseline that meta-learning has to beat.

    Pre-training sees all examples of all tasks as one supervised problem. In classification that is
    to tell all training classes apart, and a new task gets a new linear head, zero at first; in
    regression it is to fit all tasks with one function, whose head a new task keeps.

    State:
        `FastWeights`: the tuned parameters of every task.

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        num_outputs: training classes, or numbers to predict.
        inner_lr: learning rate of fine-tuning, on the mean loss of the support set.
        num_test_steps: steps of fine-tuning.
        tune: what fine-tuning moves: the head, or all parameters.
        batch_norm: where BatchNorm statistics come from in fine-tuning; pre-training always uses,
            and remembers, those of its batch.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        loss: loss of pre-training and of fine-tuning.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> import torch
        >>> learner = FineTuning(MLP((2,)), 100)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        The pre-training baseline of Model-Agnostic Meta-Learning for Fast Adaptation of Deep
        Networks. ICML 2017. https://arxiv.org/abs/1703.03400
    """

    paper = FINN_2017

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The joint loss of all support and query examples of all tasks.

        Raises:
            ValueError: in classification, when the episodes do not say their `classes`; when the
                network has fewer outputs than these need.
        """
        examples = concatenate(episodes.support, episodes.query)
        targets = examples.targets
        if self.loss.kind == "classification":
            targets = targets_among_all(targets, episodes.classes, self.num_outputs)
        outputs = embed_pooled(self.net, examples.inputs, examples.mask, update_statistics=True)
        columns = targets.shape[-1]
        if outputs.shape[-1] < columns:
            raise ValueError(
                f"The episodes ask for {columns} numbers and the network has {outputs.shape[-1]} "
                f"outputs: build it with num_outputs={columns}."
            )
        mask = None if examples.mask is None else examples.mask.flatten()
        predictions = outputs[..., :columns].flatten(0, 1)
        return self.loss(predictions, targets.flatten(0, 1), mask)

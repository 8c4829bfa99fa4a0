"""Baseline++ and imprinted weights: cosine classifiers in pre-training and on a new task."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import CosineHead, embedding_dim
from kshot.config import BatchNormPolicy
from kshot.learners.baselines.pretraining import PretrainedLearner
from kshot.learners.metric.distances import class_means, cosines
from kshot.learners.papers import CHEN_2019, QI_2018
from kshot.losses import Loss, counted_rows, cross_entropy, mask_absent
from kshot.options import checks_options

__all__ = ["BaselinePlusPlus", "Imprinted"]

Weights = Float[Tensor, "tasks way dim"]


class CosineLearner(PretrainedLearner[Weights], ABC):
    """A cosine classifier of all training classes, and one of each task's own on the same encoder.

    Subclasses say where the weights of a task start, and how its cosines are scaled.

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        num_outputs: training classes.
        scale: of the cosines in pre-training, at the start.
        num_test_steps: gradient steps on the weights of a task, on its mean support loss.
        inner_lr: learning rate of these steps.
        batch_norm: where BatchNorm statistics come from on new tasks.
        loss: loss of pre-training, of the gradient steps and of the query.
    """

    head: CosineHead

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        num_outputs: int,
        *,
        scale: float = 10.0,
        num_test_steps: int = 0,
        inner_lr: float = 0.1,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        head = CosineHead(embedding_dim(encoder), num_outputs, scale=scale)
        super().__init__(encoder, head, batch_norm=batch_norm, loss=loss)
        self.num_test_steps = num_test_steps
        self.inner_lr = inner_lr

    @abstractmethod
    def start(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Weights:
        """The weights of each task before the first step."""

    @property
    @abstractmethod
    def task_scale(self) -> Tensor | float:
        """What the cosines of a task are multiplied by."""

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Weights:
        """The weights of each task after gradient steps, if there are any: these keep no graph."""
        weights = self.start(embeddings, targets, mask)
        if not self.num_test_steps:
            return weights
        counted = counted_rows(targets, mask, self.loss.kind).unsqueeze(-1)
        present = (targets * counted).sum(1) > 0
        embeddings, weights = embeddings.detach(), weights.detach()
        for _ in range(self.num_test_steps):
            with torch.enable_grad():
                weights.requires_grad_()
                logits = mask_absent(self.compare(weights, embeddings, mask), present)
                total = self.loss(logits, targets, mask).sum()  # each task has its own gradient
                (gradient,) = torch.autograd.grad(total, weights)
            weights = weights.detach() - self.inner_lr * gradient
        return weights

    def compare(
        self,
        summary: Weights,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Scaled cosines of each query with each class's weights."""
        return self.task_scale * cosines(embeddings, summary)


class Imprinted(CosineLearner):
    """Imprinted weights: a new class gets its mean direction as its weights.

    Pre-training learns a cosine classifier of all training classes with a learned scale. The
    weights of a new class are (section 3.2 of the paper)

        w_k = normalize(mean of normalize(f(x_i)) over the class),   logit_k = scale w_k . f / |f|,

    and may be tuned from there by gradient steps on the support set.

    State:
        `EmbeddingState` of the weights of every task (tasks, way, dim).

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        num_outputs: training classes.
        scale: of the cosines, at the start.
        num_test_steps: gradient steps on the weights of the new classes.
        inner_lr: learning rate of these steps.
        batch_norm: where BatchNorm statistics come from on new tasks.
        loss: loss of pre-training, of the gradient steps and of the query.

    Note:
        The paper fine-tunes the whole network; here it is the new weights alone.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = Imprinted(MLP((3,)), 100)
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).shape
        torch.Size([4, 3, 3])

    Reference:
        Low-Shot Learning with Imprinted Weights. CVPR 2018. https://arxiv.org/abs/1712.07136
    """

    paper = QI_2018

    @property
    def classes_apart(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As long as no gradient step sets the classes off from each other."""
        return not self.num_test_steps

    @property
    def task_scale(self) -> Tensor:
        """The one that pre-training learned."""
        return self.head.scale

    def start(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Weights:
        """The mean direction of each class."""
        return F.normalize(class_means(F.normalize(embeddings, dim=-1), targets, mask), dim=-1)


class BaselinePlusPlus(CosineLearner):
    """Baseline++: a cosine classifier is pre-trained, and trained anew on each task's support set.

    Cosines keep the directions of a class together (section 3.2 of the paper); the encoder stays as
    pre-training left it.

    State:
        `EmbeddingState` of the weights of every task (tasks, way, dim).

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        num_outputs: training classes.
        scale: of the cosines in pre-training, at the start; 10 in the authors' code for more than
            200 classes.
        test_scale: of the cosines on a new task.
        num_test_steps: gradient steps on a new task, from random weights that are the same for
            every task.
        inner_lr: learning rate of these steps, on the mean loss of the support set.
        batch_norm: where BatchNorm statistics come from on new tasks.
        loss: loss of pre-training, of the gradient steps and of the query.

    Note:
        The authors take minibatches of 4 with momentum and dampening .9 and weight decay; here
        each step is of the whole support set, and plain.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = BaselinePlusPlus(MLP((3,)), 100)
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).shape
        torch.Size([4, 3, 3])

    Reference:
        A Closer Look at Few-shot Classification. ICLR 2019. https://arxiv.org/abs/1904.04232
    """

    paper = CHEN_2019

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        num_outputs: int,
        *,
        scale: float = 10.0,
        test_scale: float = 2.0,
        num_test_steps: int = 100,
        inner_lr: float = 1.0,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            encoder,
            num_outputs,
            scale=scale,
            num_test_steps=num_test_steps,
            inner_lr=inner_lr,
            batch_norm=batch_norm,
            loss=loss,
        )
        self.test_scale = test_scale

    @property
    def task_scale(self) -> float:
        """The same for every task."""
        return self.test_scale

    def start(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Weights:
        """Random directions, row by row: a class's must not depend on how many there are."""
        way, dim = targets.shape[-1], embeddings.shape[-1]
        generator = torch.Generator().manual_seed(0)
        start = torch.stack([torch.randn(dim, generator=generator) for _ in range(way)])
        return F.normalize(start, dim=-1).to(embeddings).expand(len(targets), way, dim)

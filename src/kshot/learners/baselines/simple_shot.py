"""SimpleShot: nearest class mean on a pre-trained encoder, with centered and scaled embeddings."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.learners.baselines.pretraining import PretrainedLearner
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.learners.papers import WANG_2019
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["SimpleShot"]


class SimpleShot(PretrainedLearner[Float[Tensor, "tasks way dim"]]):
    """SimpleShot: pre-train a classifier, then compare with class means (section 3 of the paper).

    Before they are averaged and compared, embeddings are left as they are ("none", UN in the
    paper), brought to length 1 ("normalize", L2N), or centered by the mean embedding of the
    training classes first ("center_and_normalize", CL2N). Means are not normalized again.

    State:
        `EmbeddingState` of the class means of every task (tasks, way, dim).

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        num_outputs: training classes.
        transform: what is done to embeddings.
        batch_norm: where BatchNorm statistics come from on new tasks.
        loss: loss of pre-training, and of the query.

    Note:
        The mean of the training classes is that of the last hundred or so batches, not of one more
        pass over the data.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = SimpleShot(MLP((3,)), 100)
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).shape
        torch.Size([4, 3, 3])

    Reference:
        SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning. 2019.
        https://arxiv.org/abs/1911.04623
    """

    paper = WANG_2019
    classes_apart = True

    center: Tensor
    batches: Tensor

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        num_outputs: int,
        *,
        transform: Literal["none", "normalize", "center_and_normalize"] = "center_and_normalize",
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        dim = embedding_dim(encoder)
        super().__init__(encoder, nn.Linear(dim, num_outputs), batch_norm=batch_norm, loss=loss)
        self.transform = transform
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def observe(self, embeddings: Float[Tensor, "n dim"]) -> None:
        """Move the center towards a batch's mean: their average, then a moving one."""
        self.batches += 1
        step = 1 / self.batches.clamp_max(_BATCHES_OF_THE_CENTER)
        self.center += step * (embeddings.to(self.center.dtype).mean(0) - self.center)

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks way dim"]:
        """Average the transformed embeddings of each class."""
        return class_means(self._transformed(embeddings), targets, mask)

    def compare(
        self,
        summary: Float[Tensor, "tasks way dim"],
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each mean."""
        return -squared_distances(self._transformed(embeddings), summary)

    def _transformed(self, embeddings: Float[Tensor, "tasks n dim"]) -> Tensor:
        if self.transform == "none":
            return embeddings
        if self.transform == "center_and_normalize":
            embeddings = embeddings - self.center
        return F.normalize(embeddings, dim=-1)


_BATCHES_OF_THE_CENTER = 100

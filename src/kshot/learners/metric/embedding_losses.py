"""Embeddings trained by losses of deep metric learning, compared by their angles."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, concatenate
from kshot.learners.baselines.pretraining import targets_among_all
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.metric.distances import class_means, cosines
from kshot.losses import Loss, counted_rows, cross_entropy

__all__ = ["MetricEmbedding", "SphereFace", "contrastive_pair_loss"]

Objective = Literal["contrastive", "triplet", "sphereface", "cosface", "arcface"]


class MetricEmbedding(EmbeddingLearner[Float[Tensor, "tasks way dim"]]):
    """An encoder trained so that examples of a class are close, and of two classes far apart.

    Meta-training reads the data set's own classes of all examples of a batch:

    - "contrastive": pairs; 1/2 d^2 for one class, 1/2 max(0, margin - d)^2 for two, where d is the
      distance of embeddings, the two kinds weighing the same.
    - "triplet": max(0, d(a, p)^2 - d(a, n)^2 + margin) on the unit sphere, over all anchors and
      positives, with the negatives that are farther than the positive, but not by the margin.
    - "sphereface", "cosface", "arcface": cross-entropy of |f| psi(angle), scale (cosine - margin)
      and scale cos(angle + margin) with a weight vector for each training class.

    A query's logit for a class is the cosine with the mean of its support embeddings, each of
    length 1, times `test_scale`.

    State:
        `EmbeddingState` of the mean directions of every task (tasks, way, dim).

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        num_outputs: training classes.
        objective: which loss.
        margin: None takes the paper's: 1 for contrastive, .2 for triplet, a factor of 4 for
            sphereface, .35 for cosface, .5 radians for arcface.
        scale: of the cosines of cosface and arcface; 64 in the papers, for many more classes.
        warmup: iterations in which the margin of cosface and arcface grows from 0; sphereface has
            its authors' own annealing instead.
        test_scale: of the cosines on new tasks.
        batch_norm: where BatchNorm statistics come from on new tasks.
        loss: loss reported for the query.

    Raises:
        ImportError: when pytorch-metric-learning is missing, which has
            triplet, cosface and arcface.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = MetricEmbedding(MLP((3,)), 100, objective="contrastive")
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).shape
        torch.Size([4, 3, 3])

    Reference:
        Dimensionality Reduction by Learning an Invariant Mapping. CVPR 2006.
        FaceNet: A Unified Embedding for Face Recognition and Clustering. CVPR 2015.
        https://arxiv.org/abs/1503.03832
        SphereFace: Deep Hypersphere Embedding for Face Recognition. CVPR 2017.
        https://arxiv.org/abs/1704.08063
        CosFace: Large Margin Cosine Loss for Deep Face Recognition. CVPR 2018.
        https://arxiv.org/abs/1801.09414
        ArcFace: Additive Angular Margin Loss for Deep Face Recognition. CVPR 2019.
        https://arxiv.org/abs/1801.07698
    """

    classes_apart = True
    iterations: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        num_outputs: int,
        *,
        objective: Objective = "contrastive",
        margin: float | None = None,
        scale: float = 16.0,
        warmup: int = 0,
        test_scale: float = 10.0,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        self.objective: Objective = objective
        self.margin = _MARGINS[objective] if margin is None else margin
        self.num_outputs, self.warmup, self.test_scale = num_outputs, warmup, test_scale
        self.criterion: Any = None
        if objective != "contrastive":
            self.criterion = _criterion(
                objective, self.margin, scale, num_outputs, embedding_dim(encoder)
            )
        self.register_buffer("iterations", torch.zeros((), dtype=torch.int64))

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks way dim"]:
        """The mean direction of each class."""
        return class_means(F.normalize(embeddings, dim=-1), targets, mask)

    def compare(
        self,
        summary: Float[Tensor, "tasks way dim"],
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Scaled cosines of each query with each class's direction."""
        return self.test_scale * cosines(embeddings, summary)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The objective, of all labelled examples of all tasks.

        Raises:
            ValueError: when the episodes do not say their `classes`, or have more of them.
        """
        if self.training:
            self.iterations += 1
        embeddings = torch.cat(self.embed(episodes), 1)
        _, targets, mask = concatenate(episodes.support, episodes.query)
        counted = counted_rows(targets, mask, "classification")
        classes = targets_among_all(targets, episodes.classes, self.num_outputs).argmax(-1)
        embeddings, labels = embeddings[counted].to(targets.dtype), classes[counted]
        with torch.autocast(embeddings.device.type, enabled=False):  # margins need their digits
            if self.objective == "contrastive":
                return contrastive_pair_loss(embeddings, labels, self.margin)
            if self.objective == "triplet":
                miner, loss = self.criterion
                unit = F.normalize(embeddings, dim=-1)
                return loss(unit, labels, miner(unit, labels))
            if self.objective == "sphereface":
                return self.criterion(embeddings, labels, int(self.iterations))
            grown = min(1.0, int(self.iterations) / self.warmup) if self.warmup else 1.0
            self.criterion.margin = grown * self.margin
            return self.criterion(embeddings, labels)


class SphereFace(nn.Module):
    """The angular softmax of SphereFace, whose margin comes in as training goes on (section 3.3).

    The logit of an example's own class is |f| (lambda cos + psi) / (1 + lambda), where psi is
    (-1)^k cos(margin * angle) - 2 k on the k-th of `margin` equal parts of the half turn, and
    lambda falls from 1,000 to 5, as the authors train it. The other logits are |f| cos.

    Args:
        dim: size of an embedding.
        num_classes: training classes.
        margin: a whole number, by which angles are multiplied.
    """

    def __init__(self, dim: int, num_classes: int, margin: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(dim, num_classes) / dim**0.5)
        self.margin = margin

    def forward(
        self, embeddings: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], iteration: int
    ) -> Float[Tensor, ""]:
        """The mean loss of labelled embeddings in some iteration."""
        falling = max(5.0, 1000 / (1 + 0.12 * iteration))
        cosine = F.normalize(embeddings, dim=-1) @ F.normalize(self.W, dim=0)
        own = cosine.gather(1, labels.unsqueeze(1)).squeeze(1).clamp(-1, 1)
        before, multiple = torch.ones_like(own), own
        for _ in range(self.margin - 1):  # Chebyshev: cosines of multiples without the angle
            before, multiple = multiple, 2 * own * multiple - before
        k = (self.margin * own.detach().acos() / math.pi).floor()
        psi = (1 - 2 * (k % 2)) * multiple - 2 * k
        change = F.one_hot(labels, cosine.shape[1]) * ((psi - own) / (1 + falling)).unsqueeze(1)
        return F.cross_entropy((cosine + change) * embeddings.norm(dim=-1, keepdim=True), labels)


def contrastive_pair_loss(
    embeddings: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], margin: float
) -> Float[Tensor, ""]:
    """Half the mean loss of pairs of one class plus half that of pairs of two (equation 4)."""
    first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    squares = (embeddings[first] - embeddings[second]).square().sum(-1)
    same = labels[first] == labels[second]
    # The root has no slope at zero.
    short = F.relu(margin - (squares + 1e-9).sqrt()).square()
    total = sum(
        (each * chosen).sum() / chosen.sum().clamp_min(1)
        for each, chosen in ((squares, same), (short, ~same))
    )
    return torch.as_tensor(total / 4)


_MARGINS: dict[Objective, float] = {
    "contrastive": 1.0,
    "triplet": 0.2,
    "sphereface": 4.0,
    "cosface": 0.35,
    "arcface": 0.5,
}


def _criterion(
    objective: Objective, margin: float, scale: float, num_classes: int, dim: int
) -> nn.Module:
    """The loss, as pytorch-metric-learning has it where that is the paper's."""
    if objective == "sphereface":
        return SphereFace(dim, num_classes, int(margin))
    try:
        from pytorch_metric_learning import distances, losses, miners
    except ImportError as error:
        raise ImportError(
            f"The objective {objective!r} needs pytorch-metric-learning: "
            "pip install 'kshot[metric]'."
        ) from error
    if objective == "triplet":
        squared = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
        miner = miners.TripletMarginMiner(margin, type_of_triplets="semihard", distance=squared)
        return nn.ModuleList([miner, losses.TripletMarginLoss(margin, distance=squared)])
    options: dict[str, Any] = {"scale": scale}
    if objective == "cosface":
        return losses.CosFaceLoss(num_classes, dim, margin=margin, **options)
    criterion = losses.ArcFaceLoss(num_classes, dim, **options)
    criterion.margin = margin  # in radians; its constructor takes degrees
    return criterion

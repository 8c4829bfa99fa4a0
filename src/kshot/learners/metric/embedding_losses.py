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
from kshot.extras import install_command
from kshot.learners.baselines.pretraining import targets_among_all
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.metric.distances import class_means, cosines
from kshot.learners.papers import DENG_2019, HADSELL_2006, LIU_2017, SCHROFF_2015, WANG_2018
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options
from kshot.paper import Paper

__all__ = ["OBJECTIVE_PAPERS", "MarginSoftmax", "MetricEmbedding", "contrastive_pair_loss"]

Objective = Literal["contrastive", "triplet", "sphereface", "cosface", "arcface"]

OBJECTIVE_PAPERS: dict[str, Paper] = {
    "contrastive": HADSELL_2006,
    "triplet": SCHROFF_2015,
    "sphereface": LIU_2017,
    "cosface": WANG_2018,
    "arcface": DENG_2019,
}
"""Where each objective comes from."""


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
        scale: of the cosines of cosface and arcface; None takes 16, the papers 64 for many more
            classes.
        warmup: iterations in which the margin of cosface and arcface grows from 0; sphereface has
            its authors' own annealing instead.
        test_scale: of the cosines on new tasks.
        batch_norm: where BatchNorm statistics come from.
        loss: loss reported for the query.

    Raises:
        ImportError: when pytorch-metric-learning is missing, which has the miner of triplets.
        ValueError: for a margin of sphereface that is no whole number, and for options that the
            objective does not have.

    Note:
        Pairs and triplets are of all examples that are computed together, and iterations are calls:
        with micro-batches or several processes the objective is another one.

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

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        num_outputs: int,
        *,
        objective: Objective = "contrastive",
        margin: float | None = None,
        scale: float | None = None,
        warmup: int = 0,
        test_scale: float = 10.0,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        self.objective: Objective = objective
        self.paper = OBJECTIVE_PAPERS[objective]
        self.margin = _MARGINS[objective] if margin is None else float(margin)
        if objective == "sphereface" and (self.margin < 1 or self.margin % 1):
            raise ValueError(f"The margin of sphereface is a whole number, not {self.margin}.")
        if objective not in ("cosface", "arcface") and (scale is not None or warmup):
            raise ValueError(f"scale and warmup are of cosface and arcface, not of {objective}.")
        self.num_outputs, self.test_scale = num_outputs, test_scale
        self.criterion: Any = None
        if objective == "triplet":
            self.criterion = _triplets(self.margin)
        elif objective != "contrastive":
            scale = 16.0 if scale is None else scale
            dim = embedding_dim(encoder)
            self.criterion = MarginSoftmax(objective, dim, num_outputs, self.margin, scale, warmup)
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
                # Which triplets count must not hang on the last digits, where distances are equal.
                return loss(unit, labels, miner(unit.detach().round(decimals=6), labels))
            return self.criterion(embeddings, labels, int(self.iterations))


class MarginSoftmax(nn.Module):
    """Softmax over training classes by angles, which asks for a margin of an example's own class.

    With the angle of an embedding f and a class's weights, the logit of the own class is

    - sphereface: |f| (lambda cos + psi) / (1 + lambda), where psi is (-1)^k cos(margin * angle) -
      2 k on the k-th of `margin` equal parts of the half turn, and lambda falls from 1,000 to 5, as
      its authors train it; the other logits are |f| cos.
    - cosface: scale (cos - margin); arcface: scale cos(angle + margin), continued by cos - margin
      sin(margin) where that would rise again; the others are scale cos.

    Args:
        kind: which of the three.
        dim: size of an embedding.
        num_classes: training classes.
        margin: see above.
        scale: see above; sphereface has none.
        warmup: iterations in which the margin of cosface and arcface grows from 0.
    """

    def __init__(
        self,
        kind: Literal["sphereface", "cosface", "arcface"],
        dim: int,
        num_classes: int,
        margin: float,
        scale: float,
        warmup: int,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, dim) / dim**0.5)
        self.kind = kind
        self.margin, self.scale, self.warmup = margin, scale, warmup

    def forward(
        self, embeddings: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], iteration: int
    ) -> Float[Tensor, ""]:
        """The mean loss of labelled embeddings in some iteration."""
        cosine = F.normalize(embeddings, dim=-1) @ F.normalize(self.weight, dim=-1).T
        # The angle has no slope where the cosine is 1.
        own = cosine.gather(1, labels.unsqueeze(1)).squeeze(1).clamp(-1 + 1e-7, 1 - 1e-7)
        scale = self.scale
        if self.kind == "sphereface":
            falling = max(5.0, 1000 / (1 + 0.12 * iteration))
            wanted = own + (_multiplied(own, int(self.margin)) - own) / (1 + falling)
            scale = embeddings.norm(dim=-1, keepdim=True)
        else:
            margin = self.margin * (min(1.0, iteration / self.warmup) if self.warmup else 1.0)
            wanted = own - margin if self.kind == "cosface" else _added(own, margin)
        logits = cosine.scatter(1, labels.unsqueeze(1), wanted.unsqueeze(1))
        return F.cross_entropy(scale * logits, labels)


def _multiplied(cosine: Float[Tensor, " n"], margin: int) -> Float[Tensor, " n"]:
    """SphereFace's psi: the cosine of a multiple of the angle, made to fall all the way."""
    before, multiple = torch.ones_like(cosine), cosine
    for _ in range(margin - 1):  # Chebyshev: cosines of multiples without the angle
        before, multiple = multiple, 2 * cosine * multiple - before
    k = (margin * cosine.detach().acos() / math.pi).floor()
    return (1 - 2 * (k % 2)) * multiple - 2 * k


def _added(cosine: Float[Tensor, " n"], margin: float) -> Float[Tensor, " n"]:
    """ArcFace's cosine of the angle and a margin."""
    turned = cosine * math.cos(margin) - (1 - cosine.square()).sqrt() * math.sin(margin)
    past = cosine < -math.cos(margin)  # where angle + margin is more than half a turn
    return torch.where(past, cosine - margin * math.sin(margin), turned)


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


def _triplets(margin: float) -> nn.ModuleList:
    """The miner and the loss, as pytorch-metric-learning has them."""
    try:
        from pytorch_metric_learning import distances, losses, miners
    except ImportError as error:
        raise ImportError(
            "The objective 'triplet' needs pytorch-metric-learning: "
            f"{install_command('pytorch_metric_learning')}."
        ) from error
    squared = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
    miner = miners.TripletMarginMiner(margin, type_of_triplets="semihard", distance=squared)
    return nn.ModuleList([miner, losses.TripletMarginLoss(margin, distance=squared)])

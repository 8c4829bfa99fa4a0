"""Semi-supervised prototypical networks: examples without labels refine the prototypes."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.embedding_learner import EmbeddingLearner, labelled_embeddings
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.learners.papers import REN_2018
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["SemiSupervisedProtoNet"]

Prototypes = Float[Tensor, "tasks way dim"]


class SemiSupervisedProtoNet(EmbeddingLearner[Prototypes]):
    """Prototypical networks whose prototypes are refined by unlabelled support examples.

    Rows of zeros in the support's targets are unlabelled. A step of k-means gives each of them to
    the classes in part, z_jk, and averages anew (equations 3 and 4 of the paper):

        p_k = (sum of f(x_i) over the class + sum over j of z_jk f(x_j)) / (count_k + sum of z_jk).

    - "soft": z_j = softmax over classes of -||f(x_j) - p_k||^2.
    - "distractors": one more cluster around zero, whose radius is learned, takes what is of none of
      the classes (section 3.1.2).
    - "masked": what is far from a class counts less for it, z_jk m_jk, where the bounds of the soft
      mask m are a learned function of the distances' statistics (section 3.1.3).

    Without unlabelled examples it is a prototypical network.

    State:
        `EmbeddingState` of the refined prototypes of every task (tasks, way, dim).

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim).
        refinement: how unlabelled examples count.
        num_refinements: steps of k-means.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.

    Note:
        As in the authors' code, no gradient flows through the statistics that the mask's bounds are
        made of; it does through z_j and m. That code multiplies the mask in twice, the paper once.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = SemiSupervisedProtoNet(nn.Identity())
        >>> inputs = torch.tensor([[[0.0], [10.0], [1.0], [12.0]]])
        >>> targets = torch.tensor([[[1.0, 0], [0, 1], [0, 0], [0, 0]]])
        >>> learner.adapt(Examples(inputs, targets)).summary
        tensor([[[ 0.5000],
                 [11.0000]]])

    Reference:
        Meta-Learning for Semi-Supervised Few-Shot Classification. ICLR 2018.
        https://arxiv.org/abs/1803.00676
    """

    paper = REN_2018

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        refinement: Literal["soft", "distractors", "masked"] = "soft",
        num_refinements: int = 1,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        self.refinement = refinement
        self.num_refinements = num_refinements
        if refinement == "distractors":
            self.log_radius = nn.Parameter(torch.tensor(100.0).log())
        if refinement == "masked":
            self.bounds = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 2))

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Prototypes:
        """Average the embeddings of each class, and refine the averages."""
        targets = labelled_embeddings(embeddings, targets, mask).targets
        prototypes = class_means(embeddings, targets)
        present = targets.sum(1) > 0
        unlabelled = targets.sum(-1) == 0
        unlabelled = unlabelled if mask is None else unlabelled & mask
        distractors = torch.zeros_like(prototypes[:, :1])
        for _ in range(self.num_refinements):
            distances = squared_distances(embeddings, torch.cat([prototypes, distractors], 1))
            shares = self._shares(distances, present) * unlabelled.unsqueeze(-1)
            of_classes, of_none = shares[..., :-1], shares[..., -1:]
            if self.refinement == "masked":
                of_classes = of_classes * self._kept(distances[..., :-1], unlabelled)
            prototypes = class_means(embeddings, targets.to(shares.dtype) + of_classes)
            distractors = class_means(embeddings, of_none)
        return prototypes

    def compare(
        self,
        summary: Prototypes,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each prototype."""
        return -squared_distances(embeddings, summary)

    def _shares(
        self, distances: Float[Tensor, "tasks n clusters"], present: Bool[Tensor, "tasks way"]
    ) -> Float[Tensor, "tasks n clusters"]:
        """How much of an example each class, and last the cluster of distractors, takes."""
        logits = -distances
        any_distractors = self.refinement == "distractors"
        if any_distractors:  # a Gaussian of deviation 1 around a class, wider around zero
            last = F.one_hot(torch.tensor(present.shape[1], device=logits.device))
            log_radius = last * self.log_radius
            logits = logits / 2 * (-2 * log_radius).exp() - log_radius
        absent = F.pad(~present, (0, 1), value=not any_distractors).unsqueeze(1)
        return logits.masked_fill(absent, torch.finfo(logits.dtype).min).softmax(-1)

    def _kept(
        self, distances: Float[Tensor, "tasks n way"], unlabelled: Bool[Tensor, "tasks n"]
    ) -> Float[Tensor, "tasks n way"]:
        """The soft mask: near 1 for examples that are close to a class by its own measure."""
        counted = unlabelled.unsqueeze(-1).to(distances.dtype)
        count = counted.sum(1, keepdim=True).clamp_min(1)

        def mean(values: Tensor) -> Tensor:
            return (values * counted).sum(1, keepdim=True) / count

        # What is not counted has the mean: its powers must not grow beyond all bounds.
        average = mean(distances)
        relative = torch.where(counted > 0, distances, average) / average.clamp_min(1e-8)
        fixed = relative.detach()
        deviations = fixed - mean(fixed)
        variance = mean(deviations.square())
        spread = variance.clamp_min(1e-8)
        far = torch.finfo(fixed.dtype).max * (1 - counted)
        lowest = (fixed + far).amin(1, keepdim=True).clamp_max(1e4)
        highest = (fixed * counted).amax(1, keepdim=True)
        skew = mean(deviations**3) / spread**1.5
        kurtosis = mean(deviations**4) / spread**2 - 3
        statistics = torch.stack([lowest, highest, variance, skew, kurtosis], -1)
        bound, slope = self.bounds(statistics).exp().unbind(-1)
        return ((bound - relative) * slope).sigmoid()

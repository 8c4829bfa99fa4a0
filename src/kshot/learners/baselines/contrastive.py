"""Contrastive pre-training without labels, then fine-tuning: what the pictures alone teach."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import WithHead, embedding_dim
from kshot.config import BatchNormPolicy
from kshot.data.augment import affine_maps, move_pictures
from kshot.episodes import Episodes, concatenate, map_tensors
from kshot.learners.baselines.fine_tuning import FineTuned
from kshot.learners.embedding import embed_pooled
from kshot.learners.papers import CHEN_2020
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["Contrastive", "contrastive_loss"]


class Contrastive(FineTuned):
    """SimCLR: pre-training tells two views of an example from those of all others.

    Every example of the meta-batch is moved at random in two ways, and the projected embedding of
    each view has to be nearer to that of the other than to all the rest. A new task gets a new
    linear head, zero at first, and fine-tuning. No label is read before that.

    State:
        `FastWeights`: the tuned parameters of every task.

    Args:
        encoder: network from inputs (n, *shape) to embeddings, with its `embedding_dim`.
        max_way: columns of the head; any way is served.
        projection: size of the projected embeddings, which only pre-training uses.
        temperature: of the softmax over cosines.
        rotation: largest turn of a view, in degrees.
        shear: largest shear, as a fraction of the height.
        scale: largest change of size, as a fraction.
        shift: largest shift in both directions, as a fraction of the size.
        noise: standard deviation of noise that is added to views, of inputs that are no pictures
            too, which are not moved.
        inner_lr: learning rate of fine-tuning, on the mean loss of the support set.
        num_test_steps: steps of fine-tuning.
        tune: what fine-tuning moves: the head, or all parameters.
        batch_norm: where BatchNorm statistics come from in fine-tuning; pre-training always uses,
            and remembers, those of its batch.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        loss: loss of fine-tuning.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = Contrastive(MLP((2,)), 5)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        A Simple Framework for Contrastive Learning of Visual Representations. ICML 2020.
        https://arxiv.org/abs/2002.05709
    """

    paper = CHEN_2020

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        projection: int = 64,
        temperature: float = 0.5,
        rotation: float = 15.0,
        shear: float = 0.2,
        scale: float = 0.2,
        shift: float = 0.1,
        noise: float = 0.0,
        inner_lr: float = 0.01,
        num_test_steps: int = 50,
        tune: Literal["head", "all"] = "all",
        batch_norm: BatchNormPolicy = "running",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            encoder,
            max_way,
            inner_lr=inner_lr,
            num_test_steps=num_test_steps,
            tune=tune,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            loss=loss,
        )
        size = embedding_dim(encoder)
        self.projector = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Linear(size, projection)
        )
        self.temperature = temperature
        self.rotation, self.shear, self.scale, self.shift = rotation, shear, scale, shift
        self.noise = noise
        assert isinstance(self.net, WithHead)
        self.net.head.requires_grad_(False)  # every task has a head of its own

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The contrastive loss of two views of all support and query examples of all tasks."""
        examples = concatenate(episodes.support, episodes.query)
        views = [map_tensors(self._view, examples.inputs) for _ in range(2)]
        both = map_tensors(lambda *each: torch.cat(each, 1), *views)
        mask = None if examples.mask is None else torch.cat([examples.mask, examples.mask], 1)
        assert isinstance(self.net, WithHead)
        embeddings = embed_pooled(self.net.encoder, both, mask, update_statistics=True)
        first, second = self.projector(embeddings).chunk(2, dim=1)
        counted = None if examples.mask is None else examples.mask.flatten()
        return contrastive_loss(
            first.flatten(0, 1), second.flatten(0, 1), counted, temperature=self.temperature
        )

    def _view(self, inputs: Float[Tensor, "tasks n *shape"]) -> Float[Tensor, "tasks n *shape"]:
        """Each example changed at random, in training mode."""
        if not self.training:
            return inputs
        if inputs.dim() == 5:
            flat = inputs.flatten(0, 1)
            inputs = move_pictures(flat, self._maps(flat), smooth=True).view_as(inputs)
        return inputs + self.noise * torch.randn_like(inputs)

    def _maps(self, pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 3"]:
        def within(limit: float, *shape: int) -> Tensor:
            return limit * (2 * torch.rand(len(pictures), *shape).to(pictures) - 1)

        angle, lean = within(math.radians(self.rotation)), within(self.shear)
        turned = affine_maps(angle, lean, 1 + within(self.scale))
        return torch.cat([turned, 2 * within(self.shift, 2, 1)], dim=-1)


def contrastive_loss(
    first: Float[Tensor, "n dim"],
    second: Float[Tensor, "n dim"],
    counted: Bool[Tensor, " n"] | None = None,
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """The normalized temperature-scaled cross-entropy of n pairs of views (equation 1).

    Args:
        first: one view of every example.
        second: another view of it.
        counted: which pairs there are; None: all.
        temperature: what cosines are divided by.
    """
    if counted is not None:
        first, second = first[counted], second[counted]
    n = len(first)
    with torch.autocast(first.device.type, enabled=False):  # cosines need their digits
        views = torch.cat([first, second]).to(torch.promote_types(first.dtype, torch.float32))
        views = F.normalize(views, dim=-1)
        cosines = views @ views.T / temperature
    itself = torch.eye(2 * n, dtype=torch.bool, device=first.device)
    other = torch.arange(2 * n, device=first.device).roll(n)
    return F.cross_entropy(cosines.masked_fill(itself, -torch.inf), other)

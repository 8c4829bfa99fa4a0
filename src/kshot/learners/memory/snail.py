"""SNAIL: a support set is a sequence, and each query is the step after it."""

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.episodes import Examples, Inputs, map_tensors
from kshot.learners.embedding import embed_query
from kshot.learners.embedding_learner import (
    EmbeddingLearner,
    EmbeddingState,
    labelled_embeddings,
)
from kshot.learners.papers import MISHRA_2018
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["SNAIL", "Attention", "DenseBlock", "ReadSequence"]

Rows = tuple[Tensor, ...]
"""What a block needs of earlier steps to compute a later one: tensors (tasks, n, ...)."""


class ReadSequence(NamedTuple):
    """A support set that was read.

    Attributes:
        targets: (tasks, n, way) of each step; zero rows, at the front, are padding.
        blocks: what each block keeps of each step.
    """

    targets: Float[Tensor, "tasks n way"]
    blocks: tuple[Rows, ...]


class SNAIL(EmbeddingLearner[ReadSequence]):
    """SNAIL: attention finds past examples, causal convolutions gather them.

    The network reads (f(x_1), y_1), ..., (f(x_n), y_n), (f(x), 0), in which y is one-hot, and its
    last output are the logits of the query x (section 3 of the paper). Every block appends its
    features to what it reads:

        Attention(64, 32), TC(128), Attention(256, 128), TC(128), Attention(512, 256), linear,

    where f ends in a linear layer, whatever the encoder; Attention(K, V) is `Attention` with keys
    of K and values of V numbers, and TC(D) are `DenseBlock`s of D filters with dilations 2, 4, ...,
    as many as the logarithm of the longest sequence in training. No step depends on a later one. So
    the support set is read once, and the queries are each the next step after it, all at once and
    without seeing one another.

    Steps are counted back from the query. A support set of any size is read, padding has no place
    in the sequence, and the columns of a smaller way are the first of `max_way`.

    State:
        `EmbeddingState` of a `ReadSequence`.

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim), with its
            `embedding_dim`.
        max_way: length of a label; it serves any way up to that.
        max_shot: largest shot of meta-training, which decides how far convolutions reach.
        filters: D; the numbers of keys and values are in proportion to it.
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn; it needs batch_norm "running".
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.

    Raises:
        ValueError: when an episode has more classes than a label has columns.

    Note:
        Queries and keys of attention begin with the same weights, eight times as large as usual,
        so that a step looks for what resembles it before anything is learned; the paper does not
        say how they begin. Dilations begin at 2, as its pseudo-code has them, so that convolutions
        reach an even number of steps back; the other steps are attention's. The paper has one query
        an episode; several have the same loss on average.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = SNAIL(MLP((2,)), 5)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        A Simple Neural Attentive Meta-Learner. ICLR 2018. https://arxiv.org/abs/1707.03141
    """

    paper = MISHRA_2018
    online = True

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        max_shot: int = 5,
        filters: int = 128,
        rotate_support: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, rotate_support=rotate_support, batch_norm=batch_norm, loss=loss)
        self.max_way = max_way
        dim = embedding_dim(encoder)
        self.embedding = nn.Linear(dim, dim)
        channels = dim + max_way
        num_dense = math.ceil(math.log2(max_way * max_shot + 1))
        self.blocks = nn.ModuleList()
        for key_size, dense in (
            (filters // 2, num_dense),
            (2 * filters, num_dense),
            (4 * filters, 0),
        ):
            self.blocks.append(Attention(channels, key_size, key_size // 2))
            channels += key_size // 2
            for i in range(1, dense + 1):
                self.blocks.append(DenseBlock(channels, 2**i, filters))
                channels += filters
        self.head = nn.Linear(channels, max_way)

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> ReadSequence:
        """Read the labelled examples."""
        embeddings, targets = labelled_embeddings(embeddings, targets, mask)
        order = _padding_first(targets)
        targets = targets.take_along_dim(order, 1)
        real = targets.sum(-1) > 0
        padding = ~real.unsqueeze(-1)
        x = self._steps(embeddings.take_along_dim(order, 1), targets).masked_fill(padding, 0)
        kept = []
        for block in self.blocks:
            features, rows = block(x, real)
            x = torch.cat([x, features.masked_fill(padding, 0)], -1)
            kept.append(rows)
        return ReadSequence(targets, tuple(kept))

    def compare(
        self,
        summary: ReadSequence,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of each query, as the step after the sequence."""
        tasks, m, way = *embeddings.shape[:2], summary.targets.shape[-1]
        x, _ = self._following(summary, embeddings, embeddings.new_zeros(tasks, m, way))
        return self.head(x)[..., :way]

    def attention(
        self, state: EmbeddingState, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks blocks m n"]:
        """How much each query reads of each support example, in each block of attention.

        The rest of a row, up to 1, is what a query reads of itself. Padding has no weight; where a
        support set has some, it comes first, the other examples in their order.
        """
        embeddings = embed_query(
            self.encoder, self.batch_norm, inputs, mask, state.support_inputs, state.support_mask
        )
        read: ReadSequence = state.summary
        real = read.targets.sum(-1) > 0
        unknown = embeddings.new_zeros(*embeddings.shape[:2], read.targets.shape[-1])
        x, found = self._steps(embeddings, unknown), []
        for block, earlier in zip(self.blocks, read.blocks, strict=True):
            if isinstance(block, Attention):
                found.append(block.weights(x, block.key(x), earlier[0], real)[..., :-1])
            features, _ = block.following(x, earlier, real)  # pyright: ignore[reportCallIssue]
            x = torch.cat([x, features], -1)
        return torch.stack(found, 1)

    def observe(self, state: EmbeddingState, examples: Examples) -> EmbeddingState:
        """Read further examples, at the cost of these alone: as if adapted to all of them.

        Under the BatchNorm policies "running" and "none", that is: others take statistics of the
        examples that are read together.
        """
        embeddings = embed_query(
            self.encoder,
            self.batch_norm,
            examples.inputs,
            examples.mask,
            state.support_inputs,
            state.support_mask,
        )
        embeddings, targets = labelled_embeddings(embeddings, examples.targets, examples.mask)
        read: ReadSequence = state.summary
        for row, label in zip(embeddings.split(1, 1), targets.split(1, 1), strict=True):
            _, rows = self._following(read, row, label)
            step = ReadSequence(label, map_tensors(partial(_without_padding, label), rows))
            longer = map_tensors(lambda old, new: torch.cat([old, new], 1), read, step)
            order = _padding_first(longer.targets)
            read = map_tensors(lambda rows, order=order: rows.take_along_dim(order, 1), longer)
        return state._replace(summary=read)

    def _following(
        self,
        read: ReadSequence,
        embeddings: Float[Tensor, "tasks m dim"],
        targets: Float[Tensor, "tasks m way"],
    ) -> tuple[Float[Tensor, "tasks m channels"], tuple[Rows, ...]]:
        """Features of steps that each follow the sequence, and what the blocks keep of them."""
        real = read.targets.sum(-1) > 0
        x, kept = self._steps(embeddings, targets), []
        for block, earlier in zip(self.blocks, read.blocks, strict=True):
            features, rows = block.following(x, earlier, real)  # pyright: ignore[reportCallIssue]
            x = torch.cat([x, features], -1)
            kept.append(rows)
        return x, tuple(kept)

    def _steps(
        self, embeddings: Float[Tensor, "tasks n dim"], targets: Float[Tensor, "tasks n way"]
    ) -> Float[Tensor, "tasks n channels"]:
        """What the first block reads: f beside labels."""
        way = targets.shape[-1]
        if way > self.max_way:
            raise ValueError(
                f"The episodes have {way} columns and labels have {self.max_way}: build the "
                f"learner with max_way={way}, or draw episodes of a smaller way."
            )
        labels = F.pad(targets.to(embeddings.dtype), (0, self.max_way - way))
        return torch.cat([self.embedding(embeddings), labels], -1)


class Attention(nn.Module):
    """Soft attention of a step to itself and to earlier ones (figure 2b of the paper).

    softmax over j of (q_i . k_j) / sqrt(K), times v_j, where q, k and v are affine maps.

    Args:
        channels: size of a step.
        key_size: K, of q and k.
        value_size: of v.
    """

    def __init__(self, channels: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, key_size)
        self.key = nn.Linear(channels, key_size)
        self.value = nn.Linear(channels, value_size)
        self.scale = key_size**-0.5
        # What resembles a step is found from the start.
        self.key.weight.data.mul_(8)
        self.query.load_state_dict(self.key.state_dict())

    def forward(
        self, x: Float[Tensor, "tasks n channels"], real: Bool[Tensor, "tasks n"]
    ) -> tuple[Float[Tensor, "tasks n values"], Rows]:
        """What each step of a sequence finds, and keys and values; padding is found by none."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        seen = real.unsqueeze(1) & torch.ones_like(itself).tril() | itself
        scores = (self.scale * query @ key.mT).masked_fill(~seen, torch.finfo(query.dtype).min)
        return scores.softmax(-1) @ value, (key, value)

    def following(
        self, x: Float[Tensor, "tasks m channels"], earlier: Rows, real: Bool[Tensor, "tasks n"]
    ) -> tuple[Float[Tensor, "tasks m values"], Rows]:
        """What each of m steps finds that follow a sequence, not one another."""
        key, value, (keys, values) = self.key(x), self.value(x), earlier
        weights = self.weights(x, key, keys, real)
        return weights[..., :-1] @ values + weights[..., -1:] * value, (key, value)

    def weights(
        self,
        x: Float[Tensor, "tasks m channels"],
        key: Float[Tensor, "tasks m keys"],
        keys: Float[Tensor, "tasks n keys"],
        real: Bool[Tensor, "tasks n"],
    ) -> Float[Tensor, "tasks m earlier_and_itself"]:
        """What each of m steps gives to the n before them, and last to itself."""
        query = self.query(x)
        before = (query @ keys.mT).masked_fill(~real.unsqueeze(1), torch.finfo(query.dtype).min)
        itself = (query * key).sum(-1, keepdim=True)
        return (self.scale * torch.cat([before, itself], -1)).softmax(-1)


class DenseBlock(nn.Module):
    """A gated causal convolution of two steps, `dilation` apart (figure 2a of the paper).

    tanh(f) sigmoid(g), where f and g are affine in a step and in the one before it.

    Args:
        channels: size of a step.
        dilation: how far back the other step is; before the first, there are zeros.
        filters: D, the size of f and g.
    """

    def __init__(self, channels: int, dilation: int, filters: int) -> None:
        super().__init__()
        self.now = nn.Linear(channels, 2 * filters)
        self.before = nn.Linear(channels, 2 * filters, bias=False)
        self.dilation = dilation

    def forward(
        self, x: Float[Tensor, "tasks n channels"], real: Bool[Tensor, "tasks n"]
    ) -> tuple[Float[Tensor, "tasks n filters"], Rows]:
        """Features of each step of a sequence, in which padding is zero, and the steps."""
        before = F.pad(self.before(x), (0, 0, self.dilation, 0))[:, : x.shape[1]]
        return _gated(self.now(x) + before), (x,)

    def following(
        self, x: Float[Tensor, "tasks m channels"], earlier: Rows, real: Bool[Tensor, "tasks n"]
    ) -> tuple[Float[Tensor, "tasks m filters"], Rows]:
        """Features of each of m steps that follow a sequence, not one another."""
        (steps,) = earlier
        both = self.now(x)
        if steps.shape[1] >= self.dilation:
            both = both + self.before(steps[:, -self.dilation]).unsqueeze(1)
        return _gated(both), (x,)


def _without_padding(
    targets: Float[Tensor, "tasks n way"], rows: Float[Tensor, "tasks n channels"]
) -> Float[Tensor, "tasks n channels"]:
    return rows.masked_fill((targets.sum(-1) == 0).unsqueeze(-1), 0)


def _padding_first(targets: Float[Tensor, "tasks n way"]) -> Int[Tensor, "tasks n 1"]:
    """The order of rows in which those without a label come first."""
    return (targets.sum(-1) > 0).int().argsort(dim=1, stable=True).unsqueeze(-1)


def _gated(both: Float[Tensor, "tasks n twice"]) -> Float[Tensor, "tasks n filters"]:
    feature, gate = both.chunk(2, -1)
    return feature.tanh() * gate.sigmoid()

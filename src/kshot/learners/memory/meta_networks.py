"""Meta networks: gradients of support losses become fast weights, which a memory keeps."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.backbones.recurrent import LSTMCell
from kshot.config import BatchNormPolicy
from kshot.episodes import Inputs, map_tensors
from kshot.learners.embedding_learner import EmbeddingLearner, labelled_embeddings
from kshot.learners.metric.distances import cosines
from kshot.learners.papers import MUNKHDALAI_2017
from kshot.learners.preprocessing import preprocess
from kshot.losses import Loss, cross_entropy, mask_absent
from kshot.options import checks_options

__all__ = ["FastWeightMemory", "MetaNet", "partners"]


class FastWeightMemory(NamedTuple):
    """The fast weights that a support set gave.

    Attributes:
        representation: task-level, of the representation's layer.
        keys: representations of the support examples.
        hidden: example-level, of the base learner's hidden layer.
        output: example-level, of its output layer.
        counted: which rows are labelled examples.
    """

    representation: Float[Tensor, "tasks dim dim"]
    keys: Float[Tensor, "tasks n dim"]
    hidden: Float[Tensor, "tasks n dim dim"]
    output: Float[Tensor, "tasks n way dim"]
    counted: Bool[Tensor, "tasks n"]


class MetaNet(EmbeddingLearner[FastWeightMemory]):
    """Meta networks: networks turn the gradients of support examples into weights, in one step.

    There is a representation u and a base learner b: two networks, the encoder and a copy of it,
    with linear layers on top. Slow weights W of these layers are joined by fast ones W* (layer
    augmentation, section 3.3 of the paper):

        ReLU(W x) + ReLU(W* x) in the hidden layer of b,   W x + W* x where no ReLU follows.

    Task level (equations 2-4): the gradients of u's loss on T support examples are read by an LSTM,
    whose last output is W* of u. Example level (equations 1, 10, 11): the gradient of b's loss on
    support example i becomes W*_i by a small network. Both compute each coordinate by itself, with
    the same weights. A query x is answered by b with the fast weights (equations 8, 9)

        sum over i of a_i W*_i,   a = softmax over i of scale * cos(u(x), u(x_i)).

    u's loss is a cross-entropy if no class has more than one example, else it is contrastive.

    State:
        `EmbeddingState` of a `FastWeightMemory`.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`.
        max_way: outputs of b; it serves any way up to that.
        num_gradients: T; the first examples of the support set are taken, whose order is random.
        units: width of both networks that give fast weights.
        scale: of the cosine, at the start; the paper has 1, and does not learn it.
        margin: of the contrastive loss.
        first_order: treat the gradients of the support losses as constants.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of b, on the support set and on the query.

    Raises:
        ValueError: when an episode has more classes than b has outputs.

    Note:
        As in the authors' code, where the paper leaves it open: gradients are constants; u(x) is
        the layer beneath u's classifier, which stays as drawn, since nothing but such gradients
        comes from it. Unlike there: convolutions have no fast weights (on Omniglot they have, and
        no BatchNorm); several examples a class have the paper's contrastive loss, each paired with
        the next of its class and every second one with the next of another; and for steadier
        training the cosine has a learned scale, and fast weights are divided by the square root of
        dim, so that they begin as small as slow ones.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = MetaNet(MLP((2,)), 5)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        Meta Networks. ICML 2017. https://arxiv.org/abs/1703.00837
    """

    paper = MUNKHDALAI_2017

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        num_gradients: int = 5,
        units: int = 20,
        scale: float = 10.0,
        margin: float = 1.0,
        first_order: bool = True,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(_Twice(encoder), batch_norm=batch_norm, loss=loss)
        if num_gradients < 1:
            raise ValueError(f"num_gradients must be at least 1, not {num_gradients}.")
        dim = embedding_dim(encoder)
        self.representation = nn.Linear(dim, dim, bias=False)
        self.classifier = nn.Linear(dim, max_way, bias=False).requires_grad_(False)
        self.hidden = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, max_way, bias=False)
        self.task_reader = LSTMCell(2, units)
        self.task_weight = nn.Linear(units, 1)
        self.example_weight = nn.Sequential(
            nn.Linear(2, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1)
        )
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.num_gradients = num_gradients
        self.margin = margin
        self.first_order = first_order

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n twice"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> FastWeightMemory:
        """Turn the gradients of labelled examples into fast weights."""
        way, max_way = targets.shape[-1], self.output.out_features
        if way > max_way:
            raise ValueError(
                f"The episodes have {way} columns and the base learner has {max_way} outputs: "
                f"build it with max_way={way}, or draw episodes of a smaller way."
            )
        embeddings, targets = labelled_embeddings(embeddings, targets, mask)
        order = (targets.sum(-1) == 0).int().argsort(dim=1, stable=True).unsqueeze(-1)
        targets = targets.take_along_dim(order, 1)  # rows without a label last
        of_u, of_b = embeddings.take_along_dim(order, 1).chunk(2, -1)
        with torch.no_grad() if self.first_order else nullcontext():
            task_gradients = self._representation_gradients(of_u, targets)
            example_gradients = self._base_gradients(of_b, targets)
        counted = targets.sum(-1) > 0
        fast = self._task_weights(task_gradients, counted[:, : self.num_gradients])
        hidden, output = (
            _fast_weights(self.example_weight(preprocess(gradient, p=7.0)))
            for gradient in example_gradients
        )
        return FastWeightMemory(fast, self._represent(of_u, fast), hidden, output, counted)

    def compare(
        self,
        summary: FastWeightMemory,
        embeddings: Float[Tensor, "tasks m twice"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of the base learner with the fast weights of each query."""
        of_u, x = embeddings.chunk(2, -1)
        similarities = self.scale * cosines(
            self._represent(of_u, summary.representation), summary.keys
        )
        absent = ~summary.counted.unsqueeze(1)
        attention = similarities.masked_fill(absent, torch.finfo(similarities.dtype).min).softmax(
            -1
        )
        x = F.relu(self.hidden(x)) + F.relu(_attended(attention, summary.hidden, x))
        slow = F.linear(x, self.output.weight[: summary.output.shape[2]])
        return slow + _attended(attention, summary.output, x)

    def _represent(
        self, x: Float[Tensor, "tasks n dim"], fast: Float[Tensor, "tasks dim dim"]
    ) -> Float[Tensor, "tasks n dim"]:
        """u(x), from what its body says of x."""
        return self.representation(x) + x @ fast.mT

    def _representation_gradients(
        self, x: Float[Tensor, "tasks n dim"], targets: Float[Tensor, "tasks n way"]
    ) -> Float[Tensor, "tasks t dim dim"]:
        """The gradients of u's loss on the first T examples, or on pairs of these with others."""
        weight, t = self.representation.weight, min(self.num_gradients, x.shape[1])
        classifier = self.classifier.weight[: targets.shape[-1]]

        def example_loss(weight: Tensor, x: Tensor, target: Tensor, present: Tensor) -> Tensor:
            return _loss_of_one(cross_entropy, classifier @ F.relu(weight @ x), target, present)

        def pair_loss(weight: Tensor, x: Tensor, other: Tensor, same: Tensor) -> Tensor:
            distance = (weight @ (x - other)).square().sum().clamp_min(1e-12).sqrt()
            return torch.where(same, distance, F.relu(self.margin - distance)).square() / 2

        other, same, several = partners(targets, t)
        others = x.take_along_dim(other.unsqueeze(-1), 1)
        examples = x[:, :t], targets[:, :t], _present(targets)[:, :t]
        (of_examples,) = _gradients(example_loss, (weight,), *examples)
        (of_pairs,) = _gradients(pair_loss, (weight,), x[:, :t], others, same)
        return torch.where(several[:, None, None, None], of_pairs, of_examples)

    def _base_gradients(
        self, x: Float[Tensor, "tasks n dim"], targets: Float[Tensor, "tasks n way"]
    ) -> tuple[Float[Tensor, "tasks n dim dim"], Float[Tensor, "tasks n way dim"]]:
        """The gradients of b's loss on each example, in its hidden and its output layer."""

        def example_loss(
            hidden: Tensor, output: Tensor, x: Tensor, target: Tensor, present: Tensor
        ) -> Tensor:
            return _loss_of_one(self.loss, output @ F.relu(hidden @ x), target, present)

        weights = self.hidden.weight, self.output.weight[: targets.shape[-1]]
        hidden, output = _gradients(example_loss, weights, x, targets, _present(targets))
        return hidden, output

    def _task_weights(
        self, gradients: Float[Tensor, "tasks t dim dim"], counted: Bool[Tensor, "tasks t"]
    ) -> Float[Tensor, "tasks dim dim"]:
        """The fast weights that the LSTM gives after the last gradient that counts."""
        tasks, _, dim, _ = gradients.shape
        state = self.task_reader.initial_state(tasks * dim * dim)
        for gradient, real in zip(gradients.unbind(1), counted.unbind(1), strict=True):
            read = self.task_reader(preprocess(gradient, p=7.0).view(-1, 2), state)
            real = real.repeat_interleave(dim * dim).unsqueeze(1)
            state = map_tensors(partial(torch.where, real), read, state)
        return _fast_weights(self.task_weight(state[0]).view(tasks, dim, dim, 1))


class _Twice(nn.Module):
    """A network and a copy of it, their embeddings side by side: the bodies of u and b."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.representation = encoder
        self.base = copy.deepcopy(encoder)
        self.embedding_dim = 2 * embedding_dim(encoder)

    def forward(self, inputs: Inputs) -> Float[Tensor, "n twice"]:
        return torch.cat([self.representation(inputs), self.base(inputs)], -1)


def partners(
    targets: Float[Tensor, "tasks n way"], count: int
) -> tuple[Int[Tensor, "tasks t"], Bool[Tensor, "tasks t"], Bool[Tensor, " tasks"]]:
    """For each of the first `count` examples, the row of another one to compare it with.

    In turn the next of the same class and the next of another class, going round; where there is
    none, the next of any.

    Args:
        targets: zero rows, which are last, are no examples.
        count: how many; at most n.

    Returns:
        The rows, whether they are of the same class, and whether a task has any such pair.
    """
    n, labels = targets.shape[1], targets.argmax(-1)
    rows = torch.arange(n, device=targets.device)
    counted = targets.sum(-1) > 0
    others = counted.unsqueeze(1) & (rows != rows.unsqueeze(1))
    same = labels.unsqueeze(1) == labels.unsqueeze(2)
    wanted = same == (rows % 2 == 0).unsqueeze(1)
    cost = (rows - rows.unsqueeze(1)) % n + n * ~wanted + 2 * n * ~others
    partner = cost[:, :count].argmin(-1)
    pairs = same & others & counted.unsqueeze(2)
    return partner, same.gather(2, partner.unsqueeze(2)).squeeze(2), pairs.flatten(1).any(1)


def _gradients(
    loss: Callable[..., Tensor], weights: tuple[Tensor, ...], *examples: Tensor
) -> tuple[Tensor, ...]:
    """The gradients (tasks, n, *shape) of the loss of each example in weights that all share."""
    gradient: Callable[..., Any] = torch.func.grad(loss, tuple(range(len(weights))))
    dims = (None,) * len(weights) + (0,) * len(examples)
    return torch.func.vmap(torch.func.vmap(gradient, dims), dims)(*weights, *examples)


def _fast_weights(outputs: Float[Tensor, "*layer dim 1"]) -> Float[Tensor, "*layer dim"]:
    """What a network says of each weight, as small as weights of layers with `dim` inputs begin."""
    return outputs.squeeze(-1) / outputs.shape[-2] ** 0.5


def _loss_of_one(loss: Loss, logits: Tensor, target: Tensor, present: Tensor) -> Tensor:
    return loss(mask_absent(logits.unsqueeze(0), present), target.unsqueeze(0))


def _present(targets: Float[Tensor, "tasks n way"]) -> Bool[Tensor, "tasks n way"]:
    """For each example, which columns its task has examples of."""
    return (targets.sum(1, keepdim=True) > 0).expand_as(targets)


def _attended(
    attention: Float[Tensor, "tasks m n"],
    weights: Float[Tensor, "tasks n out dim"],
    x: Float[Tensor, "tasks m dim"],
) -> Float[Tensor, "tasks m out"]:
    """The outputs of each query's mixture of weights: linear, so that outputs are mixed instead."""
    outputs = x.unsqueeze(1) @ weights.mT  # (tasks, n, m, out)
    return torch.einsum("tmn,tnmo->tmo", attention.to(outputs.dtype), outputs)

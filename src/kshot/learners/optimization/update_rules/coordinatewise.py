"""Rules that are one small network, which moves every coordinate by the same weights."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.recurrent import CellState, LSTMCell
from kshot.learners.optimization.update_rules.base import Params, UpdateRule
from kshot.learners.preprocessing import preprocess
from kshot.transforms import being_traced

__all__ = ["CoordinateState", "CoordinatewiseRule"]


class CoordinateState(NamedTuple):
    """What a rule remembers of some coordinates.

    Attributes:
        memory: for each layer of the memory, its output and content, each (n, hidden).
        own: what the rule itself remembers: a tensor (n, ...), or ().
    """

    memory: tuple[CellState, ...]
    own: Any


class CoordinatewiseRule(UpdateRule):
    """A rule that treats each coordinate of each parameter alike, whatever the network is.

    What is told of a coordinate (its gradient, and where asked the loss) passes through a memory,
    layers of LSTM whose weights all coordinates share and whose state each has for itself;
    subclasses say how a coordinate moves by what the memory gives. So a rule has a few thousand
    weights, learned on one network, and moves another of any size.

    Coordinates of all parameters are rows of one matrix, and under `torch.func.vmap` those of all
    tasks: a layer is one product of matrices. In long networks that matrix is cut into chunks, so
    that what is in memory at once stays in the processor's cache.

    Args:
        num_layers: layers of the memory; with 0 there is none, and the subclass sees what is told.
        hidden: numbers of a layer's state.
        reads_loss: whether the loss is told beside the gradient.
        preprocessed: whether both are told as `preprocess` makes them, or as they are.
        num_more: numbers that the subclass tells beside these.
        chunk_size: coordinates (of each task) computed at once; all of them in a compiled graph.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        hidden: int,
        reads_loss: bool,
        preprocessed: bool,
        num_more: int = 0,
        chunk_size: int,
    ) -> None:
        super().__init__()
        if chunk_size < 1 or num_layers < 0:
            raise ValueError(
                f"chunk_size must be at least 1 and num_layers at least 0, not {chunk_size} and "
                f"{num_layers}."
            )
        self.reads_loss = reads_loss
        self.preprocessed = preprocessed
        self.chunk_size = chunk_size
        told = (2 if preprocessed else 1) * (2 if reads_loss else 1) + num_more
        self.memory = nn.ModuleList(
            LSTMCell(hidden if layer else told, hidden) for layer in range(num_layers)
        )
        self.num_features = hidden if num_layers else told

    @abstractmethod
    def begin(self, values: Float[Tensor, " n"]) -> Any:
        """What the rule itself remembers of coordinates at first: a tensor (n, ...), or ()."""

    @abstractmethod
    def move(
        self,
        values: Float[Tensor, " n"],
        grads: Float[Tensor, " n"],
        features: Float[Tensor, "n features"],
        own: Any,
    ) -> tuple[Float[Tensor, " n"], Any]:
        """Coordinates after a step, and what the rule itself remembers then."""

    def init(self, params: Params) -> tuple[CoordinateState, ...]:
        """An empty memory of every coordinate, chunk by chunk."""
        return tuple(
            CoordinateState(
                tuple(layer.initial_state(len(values)) for layer in self._layers),
                self.begin(values),
            )
            for values in self._chunks(params)
        )

    def step(
        self,
        params: Params,
        grads: Params,
        state: tuple[CoordinateState, ...],
        *,
        loss: Float[Tensor, ""],
    ) -> tuple[Params, tuple[CoordinateState, ...]]:
        """One step of every coordinate, by its gradient and its memory."""
        moved, after = [], []
        chunks = zip(self._chunks(params), self._chunks(grads), state, strict=True)
        for values, slopes, (memory, own) in chunks:
            features, layers = self.told(slopes, loss, own), []
            for layer, before in zip(self._layers, memory, strict=True):
                layers.append(layer(features, before))
                features = layers[-1][0]
            new_values, own = self.move(values, slopes, features, own)
            moved.append(new_values)
            after.append(CoordinateState(tuple(layers), own))
        return unflatten(torch.cat(moved), params), tuple(after)

    def told(
        self, grads: Float[Tensor, " n"], loss: Float[Tensor, ""], own: Any
    ) -> Float[Tensor, "n inputs"]:
        """What is told of coordinates, in the precision of the rule's own weights."""
        numbers = [grads, loss] if self.reads_loss else [grads]
        weight = next(self.parameters())
        rows = [
            preprocess(each.to(weight)) if self.preprocessed else each.to(weight).unsqueeze(-1)
            for each in numbers
        ]
        return torch.cat([row.expand(len(grads), -1) for row in rows], -1)

    @property
    def _layers(self) -> list[LSTMCell]:
        return list(self.memory)  # pyright: ignore[reportReturnType]

    def _chunks(self, params: Params) -> tuple[Float[Tensor, " n"], ...]:
        """Coordinates that are computed at once."""
        values = flatten(params)
        # A compiler joins operations by itself, and each chunk would cost it a time of its own.
        return (values,) if being_traced() else values.split(self.chunk_size)


def flatten(params: Params) -> Float[Tensor, " n"]:
    """The coordinates of all parameters, one after the other."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(values: Float[Tensor, " n"], like: Params) -> Params:
    """The inverse of `flatten`, by names and shapes of other parameters."""
    parts = values.split([value.numel() for value in like.values()])
    return {
        name: part.view(value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }

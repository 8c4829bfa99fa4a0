"""What every encoder is: a frozen map from raw pictures or sentences to embeddings."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from kshot.data.cache import Progress

__all__ = ["EncodedBatch", "Encoder", "RawBatch", "check_list", "record_failures"]


class EncodedBatch(NamedTuple):
    """Some of the inputs, embedded."""

    places: list[int]
    """Where in the list of inputs they were."""
    embeddings: Float[np.ndarray, "n dim"]
    """float32 and finite, a row for each place."""
    failures: dict[int, ValueError]
    """What is wrong with the inputs that have no embedding, by place."""


RawBatch = tuple[list[int], Tensor | None, Mapping[int, ValueError]]
"""As an `EncodedBatch`, before its embeddings are checked; None without any."""


class Encoder(ABC):
    """A frozen map from raw inputs (pictures, sentences) to embeddings.

    An encoder of one's own sets the four attributes and implements `embed_batches` and `content`.
    """

    kind: Literal["pictures", "text"]
    """What it reads."""
    dim: int
    """How many numbers an embedding has."""
    spec: str | None = None
    """The name by which `load_encoder` finds it again; None for a network of the user's own."""
    batch_size: int = 64
    """How many inputs the network reads at once, unless a call says otherwise."""
    text: "Encoder | None" = None
    """For pictures: the encoder of texts into the same space, where there is one."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A sha256, in hex, of all that embeddings depend on: weights, preprocessing, pooling."""

    @abstractmethod
    def content(self, item: Any) -> bytes:
        """The sha256 of an input's content; inputs of equal content have equal embeddings.

        Raises:
            ValueError: when it cannot be read.
        """

    @abstractmethod
    def embed_batches(self, inputs: Sequence[Any], batch_size: int) -> Iterator[RawBatch]:
        """The embeddings batch by batch, in any order; each input comes once, or as a failure."""

    def encode(
        self,
        inputs: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        failures: dict[int, str] | None = None,
    ) -> Float[np.ndarray, "n dim"]:
        """Embed inputs, in their order.

        Args:
            inputs: any number of pictures, or of texts.
            batch_size: how many the network reads at once; it changes speed and memory only. By
                default the encoder's own.
            progress: told how many are done, of how many.
            failures: where to note what is wrong with inputs that cannot be embedded, by their
                place in the list. Their rows are NaN, all others are as they should be.

        Returns:
            float32, a row for each input; finite save for the rows in `failures`.

        Raises:
            ValueError: without `failures`, when an input cannot be embedded (PictureError for a
                picture); it names the input.
        """
        check_list(inputs)
        embeddings = np.full((len(inputs), self.dim), np.nan, dtype=np.float32)
        done = 0
        for batch in self.stream(inputs, batch_size=batch_size):
            embeddings[batch.places] = batch.embeddings
            record_failures(batch.failures, failures)
            done += len(batch.places) + len(batch.failures)
            if progress is not None:
                progress(done, len(inputs))
        return embeddings

    def stream(
        self, inputs: Sequence[Any], *, batch_size: int | None = None
    ) -> Iterator[EncodedBatch]:
        """Embed inputs and hand out each batch as it is done, in the encoder's own order."""
        check_list(inputs)
        batch_size = self.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
        for places, tensor, failures in self.embed_batches(inputs, batch_size):
            failures = dict(failures)
            if tensor is None:
                yield EncodedBatch(places, np.empty((0, self.dim), np.float32), failures)
                continue
            embeddings = tensor.float().cpu().numpy()
            if embeddings.shape != (len(places), self.dim):
                raise ValueError(
                    f"The network gave {embeddings.shape} for {len(places)} inputs, expected "
                    f"{(len(places), self.dim)}: an embedding of {self.dim} numbers for each."
                )
            finite = np.isfinite(embeddings).all(axis=1)
            if not finite.all():
                for row in np.flatnonzero(~finite):
                    failures[places[row]] = ValueError(
                        "The network's embedding of it is not finite. Check the network's weights "
                        "and this input, or leave it out."
                    )
                places = [places[row] for row in np.flatnonzero(finite)]
            yield EncodedBatch(places, embeddings[finite], failures)

    def encode_names(self, names: Sequence[str]) -> Float[np.ndarray, "n dim"] | None:
        """Embed class names into the space of the inputs; None when the encoder reads no text.

        The names are embedded as they are given: CLIP does best with "a photo of a cat".
        """
        reader = self if self.kind == "text" else self.text
        return None if reader is None else reader.encode(names)


def check_list(inputs: Any) -> None:
    """Refuse one input in place of a list: text would be read letter by letter.

    Raises:
        ValueError: for a text, or for anything that has no length.
    """
    if isinstance(inputs, str | bytes) or not hasattr(inputs, "__len__"):
        raise ValueError(
            f"Expected a list of inputs, got one {type(inputs).__name__}: write [...]."
        )


def record_failures(found: Mapping[int, ValueError], failures: dict[int, str] | None) -> None:
    """Note what is wrong with some inputs; without a place for notes, raise the first.

    Raises:
        ValueError: the first failure, of its own class, with its place and those of the others.
    """
    if not found:
        return
    if failures is not None:
        failures.update({place: str(error) for place, error in found.items()})
        return
    first, *others = sorted(found)
    message = f"Input {first} (the first is 0): {found[first]}"
    if others:
        shown = ", ".join(map(str, others[:20])) + (", ..." if len(others) > 20 else "")
        message += f" {len(others)} more of the same batch cannot be embedded: {shown}."
    raise type(found[first])(message) from found[first]

"""Embeddings of texts: batches of like length, so that little time goes into padding."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kshot.encoders.encoder import Encoder, RawBatch
from kshot.encoders.network import FrozenNetwork
from kshot.options import checks_options

__all__ = ["Pooling", "TextEncoder", "Tokenize"]

Tokenize = Callable[[list[str]], Mapping[str, Any]]
"""From n texts to the network's arguments by name: tensors (n, length), padded, among them
`attention_mask`, which is 0 at the padding."""

Pooling = Literal["mean", "cls"] | None
"""How a text's tokens become one embedding: their mean, the first, or by the network itself."""

_BLOCK = 16
"""Batches that are tokenized together and sorted by their true lengths."""

_SAMPLES = [
    "The quick brown fox jumps over 13 lazy dogs, doesn't it?",
    "ÉTÉ naïve Straße İstanbul ΑΒΓ привет 你好 こんにちは नमस्ते 🙂",
    "antidisestablishmentarianism http://a.b/c?d=e&f  \t\n ## [CLS] <s> x_y",
    "a " * 2000,
]
"""Texts whose tokens tell one tokenizer from another."""


class TextEncoder(Encoder):
    """A frozen network that reads texts.

    A module is copied and frozen (see `FrozenNetwork`): the one that was given stays as it is.

    Args:
        net: a module or callable that takes what `tokenize` gives by name, and returns (n, length,
            dim), or an object with such a `last_hidden_state`, or with pooling=None (n, dim).
        tokenize: makes tokens of texts and cuts them to `max_length`.
        max_length: how many tokens the network reads, those at the start and end counted.
        pooling: "mean" of a text's tokens, its first token "cls", or None when the network pools.
        normalize: whether embeddings are scaled to length 1.
        spec: the name by which `load_encoder` finds it again.
        fingerprint: stands for the network, and is to be changed with it: needed to cache what a
            callable gives that is no module, or a module whose code changes but not its weights.
        device: where the network computes; "auto" takes a GPU when there is one.

    Raises:
        ValueError: when the network or the tokenizer gives something else.

    Example:
        >>> def tokenize(texts):
        ...     ids = [torch.tensor([ord(letter) % 50 for letter in text[:9]]) for text in texts]
        ...     ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
        ...     return {"ids": ids.clamp(min=0), "attention_mask": (ids >= 0).long()}
        >>> table = torch.nn.Embedding(50, 8)
        >>> net = lambda ids, attention_mask: table(ids)
        >>> TextEncoder(net, tokenize, max_length=9).encode(["one", "two"]).shape
        (2, 8)
    """

    kind: Literal["pictures", "text"] = "text"

    @checks_options
    def __init__(
        self,
        net: nn.Module | Callable[..., Any],
        tokenize: Tokenize,
        *,
        max_length: int,
        pooling: Pooling = "mean",
        normalize: bool = True,
        spec: str | None = None,
        fingerprint: str | None = None,
        device: str = "auto",
    ) -> None:
        self.max_length = max_length
        self.pooling: Pooling = pooling
        self.normalize = normalize
        self.spec = spec
        self._tokenize = tokenize
        self.network = FrozenNetwork(net, device, fingerprint)
        self.dim = self._embed(self._tokens(["a"]), torch.tensor([0])).shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the network, the pooling, and the tokens of some sample texts."""
        tokens = self._tokens(_SAMPLES)
        samples = {name: part.tolist() for name, part in tokens.items() if isinstance(part, Tensor)}
        parts = [self.max_length, self.pooling, self.normalize, samples, self.network.digest()]
        text = json.dumps([type(self).__name__, *parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def content(self, item: Any) -> bytes:
        """The sha256 of the text in UTF-8.

        Raises:
            ValueError: when there is nothing to read.
        """
        if (reason := _unreadable(item)) is not None:
            raise reason
        return hashlib.sha256(item.encode("utf-8", "surrogatepass")).digest()

    def embed_batches(self, inputs: Sequence[Any], batch_size: int) -> Iterator[RawBatch]:
        """The embeddings batch by batch, from the longest texts to the shortest."""
        reasons = {place: _unreadable(text) for place, text in enumerate(inputs)}
        failures = {place: reason for place, reason in reasons.items() if reason is not None}
        if failures:
            yield [], None, failures
        # Longest first: when a batch does not fit into memory, it is the first.
        order = sorted(reasons.keys() - failures.keys(), key=lambda n: (-len(inputs[n]), n))
        num_full = 0
        for start in range(0, len(order), _BLOCK * batch_size):
            block = order[start : start + _BLOCK * batch_size]
            tokens = self._tokens([inputs[place] for place in block])
            lengths = tokens["attention_mask"].sum(1)
            num_full += int((lengths >= self.max_length).sum())
            for rows in lengths.argsort(descending=True, stable=True).split(batch_size):
                yield [block[row] for row in rows.tolist()], self._embed(tokens, rows), {}
        if num_full:
            warnings.warn(
                f"{num_full} of {len(inputs)} texts fill the {self.max_length} tokens that the "
                "encoder reads: what goes beyond is not read. Shorten them, or split them.",
                stacklevel=4,
            )

    def _tokens(self, texts: list[str]) -> Mapping[str, Any]:
        tokens = self._tokenize(texts)
        if not isinstance(tokens.get("attention_mask"), Tensor):
            raise ValueError(
                "tokenize must give a tensor `attention_mask`, 0 at the padding; it gave "
                f"{sorted(tokens)}."
            )
        return tokens

    def _embed(self, tokens: Mapping[str, Any], rows: Tensor) -> Tensor:
        """The embeddings of some rows of tokens, without the padding that all of them share."""
        whole = tokens["attention_mask"]
        used = whole[rows].any(0)
        batch = {
            name: part[rows][:, used].to(self.network.device)
            if isinstance(part, Tensor) and part.shape == whole.shape
            else part
            for name, part in tokens.items()
        }
        return self.pooled(self.network(**batch), **batch)

    def pooled(self, output: Any, *, attention_mask: Tensor, **others: Any) -> Tensor:
        """An embedding a text, (n, dim), of what the network gave for some tokens.

        Raises:
            ValueError: when it gave something else than `pooling` expects.
        """
        hidden = getattr(output, "last_hidden_state", output)
        embeddings = _pool(hidden, attention_mask, self.pooling)
        return nn.functional.normalize(embeddings, dim=1) if self.normalize else embeddings


def _pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    expected = 2 if pooling is None else 3
    if not isinstance(hidden, Tensor) or hidden.ndim != expected:
        found = getattr(hidden, "shape", type(hidden).__name__)
        shape = "(n, dim)" if pooling is None else "(n, length, dim)"
        raise ValueError(f"With pooling={pooling!r} the network must give {shape}, not {found}.")
    hidden = hidden.float()
    if pooling == "mean":
        weights = mask.unsqueeze(2).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)
    if pooling == "cls":  # some tokenizers pad at the left
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.int().argmax(1)]
    return hidden


def _unreadable(text: object) -> ValueError | None:
    if not isinstance(text, str):
        return ValueError(f"Expected a text, got {type(text).__name__}. Convert or remove it.")
    return None if text.strip() else ValueError("The text is empty. Fill or remove it.")

"""Embeddings of pictures: decoded in threads while the network computes."""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor, nn

from kshot.data.pictures import Fit, Picture, PictureError, Resample, prepare_picture
from kshot.encoders.encoder import Encoder, RawBatch
from kshot.encoders.network import FrozenNetwork
from kshot.options import checks_options

__all__ = ["PictureEncoder"]

_AHEAD = 2
"""Batches that are decoded while the network computes."""


class PictureEncoder(Encoder):
    """A frozen network that reads pictures: files, their content, opened pictures or arrays.

    A picture is turned upright, laid on white, made square and resized to `size / crop` pixels as
    by `prepare_picture`; its central `size` pixels go to the network as (x / 255 - mean) / std.

    A module is copied and frozen (see `FrozenNetwork`): the one that was given stays as it is.

    Args:
        net: a module or callable from (n, channels, size, size) to (n, dim) or (n, dim, 1, 1).
        size: side of its input in pixels.
        mean: subtracted from each channel, in [0, 1].
        std: each channel is divided by it.
        crop: side of the central square that is kept, as a fraction (timm's crop_pct).
        resample: filter of the resizing.
        fit: how a picture becomes square.
        channels: 1 for grey, 3 for colour.
        spec: the name by which `load_encoder` finds it again.
        text: an encoder of texts into the same space.
        fingerprint: stands for the network, and is to be changed with it: needed to cache what a
            callable gives that is no module, or a module whose code changes but not its weights.
        device: where the network computes; "auto" takes a GPU when there is one.

    Raises:
        ValueError: when the arguments contradict each other or the network.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten())
        >>> encoder = PictureEncoder(net, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> encoder.encode([np.full((40, 30, 3), 255, dtype=np.uint8)])
        array([[1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.]], dtype=float32)
    """

    kind: Literal["pictures", "text"] = "pictures"

    @checks_options
    def __init__(
        self,
        net: nn.Module | Callable[[Tensor], Tensor],
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        crop: float = 1.0,
        resample: Resample = "bicubic",
        fit: Fit = "crop",
        channels: Literal[1, 3] = 3,
        spec: str | None = None,
        text: Encoder | None = None,
        fingerprint: str | None = None,
        device: str = "auto",
    ) -> None:
        if not (len(mean) == len(std) == channels):
            raise ValueError(
                f"mean and std must have {channels} numbers, one for each channel, not "
                f"{len(mean)} and {len(std)}."
            )
        if not (0 < crop <= 1 and size >= 1 and min(std) > 0):
            raise ValueError(
                "Expected size >= 1, 0 < crop <= 1 and std > 0, got "
                f"size={size}, crop={crop}, std={tuple(std)}."
            )
        self.size = size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.preparation: dict[str, Any] = {
            # Rounded down as timm does; the tiny number undoes the rounding of 224 / (224 / 232).
            "size": math.floor(size / crop + 1e-6),
            "channels": channels,
            "resample": resample,
            "fit": fit,
        }
        self.spec = spec
        self.text = text
        self.network = FrozenNetwork(net, device, fingerprint)
        if self.network.device.type == "cpu":
            # The feature maps of so few stay in its cache: EfficientNet-lite0 takes 60 ms a picture
            # on one core in batches of 4, 75 ms in batches of 8, 220 ms in batches of 64.
            self.batch_size = 4
        self._mean, self._std = (
            torch.tensor(values, device=self.network.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        self.dim = self._embed(np.zeros((1, channels, size, size), dtype=np.uint8)).shape[1]
        if text is not None and (text.kind, text.dim) != ("text", self.dim):
            raise ValueError(
                f"text must be an encoder of texts into {self.dim} numbers, as the pictures are, "
                f"not of {text.kind} into {text.dim}."
            )

    @cached_property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the network and the preprocessing."""
        parts = [self.size, self.mean, self.std, self.preparation, self.network.digest()]
        text = json.dumps([type(self).__name__, *parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def content(self, item: Picture) -> bytes:
        """The sha256 of a file, or of the pixels of an array or opened picture.

        Raises:
            PictureError: when it cannot be read.
        """
        if isinstance(item, bytes):
            return hashlib.sha256(item).digest()
        if isinstance(item, np.ndarray):
            layout, pixels = (str(item.dtype), item.shape), np.ascontiguousarray(item).tobytes()
            return hashlib.sha256(repr(layout).encode() + pixels).digest()
        try:
            if isinstance(item, Image.Image):
                image = ImageOps.exif_transpose(item)
                layout = (image.mode, image.size, image.info.get("transparency"))
                palette = bytes(image.getpalette() or ())
                return hashlib.sha256(repr(layout).encode() + palette + image.tobytes()).digest()
            with Path(item).expanduser().open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except MemoryError:
            raise
        except Exception as error:  # decoders raise nearly anything
            raise _unreadable(item, error) from error

    def embed_batches(self, inputs: Sequence[Picture], batch_size: int) -> Iterator[RawBatch]:
        """The embeddings batch by batch, in order."""
        for places, results in self._decoded(inputs, batch_size):
            failures = {
                place: result
                for place, result in zip(places, results, strict=True)
                if isinstance(result, PictureError)
            }
            pictures = [result for result in results if not isinstance(result, PictureError)]
            good = [place for place in places if place not in failures]
            yield good, self._embed(np.stack(pictures)) if pictures else None, failures

    def _embed(self, pictures: UInt8[np.ndarray, "n channels size size"]) -> Tensor:
        raw = torch.from_numpy(pictures).to(self.network.device)  # a quarter of the bytes
        return self.pooled(self.network((raw.float() / 255 - self._mean) / self._std))

    def pooled(self, embeddings: Any) -> Tensor:
        """What the network gave, an embedding a picture: (n, dim).

        Raises:
            ValueError: when it gave something else.
        """
        is_flat = isinstance(embeddings, Tensor) and embeddings.ndim >= 2
        if not is_flat or math.prod(embeddings.shape[2:]) != 1:
            found = getattr(embeddings, "shape", type(embeddings).__name__)
            raise ValueError(
                f"The network must give (n, dim) or (n, dim, 1, 1), not {found}. Pool its feature "
                "maps, as with torch.nn.Sequential(net, AdaptiveAvgPool2d(1), Flatten())."
            )
        return embeddings.flatten(1)

    def _decoded(
        self, inputs: Sequence[Picture], batch_size: int
    ) -> Iterator[tuple[list[int], list[np.ndarray | PictureError]]]:
        """Each batch of pictures, decoded while the one before is used."""
        waiting: deque[tuple[list[int], list[Future]]] = deque()
        pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
        try:
            for start in range(0, len(inputs), batch_size):
                places = list(range(start, min(start + batch_size, len(inputs))))
                waiting.append((places, [pool.submit(self._decode, inputs[n]) for n in places]))
                if len(waiting) > _AHEAD:
                    places, futures = waiting.popleft()
                    yield places, [future.result() for future in futures]
            for places, futures in waiting:
                yield places, [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, picture: Picture) -> np.ndarray | PictureError:
        try:
            prepared = prepare_picture(picture, **self.preparation)
        except PictureError as error:
            return error
        except FileNotFoundError as error:
            return _unreadable(picture, error)
        # Rounded as torchvision's CenterCrop does.
        start = round((prepared.shape[1] - self.size) / 2)
        return prepared[:, start : start + self.size, start : start + self.size]


def _unreadable(picture: Any, error: Exception) -> PictureError:
    if isinstance(error, FileNotFoundError):
        return PictureError(f"There is no picture file {picture}. Check the path.")
    reason = str(error).rstrip(".") or type(error).__name__
    name = picture if isinstance(picture, str | Path) else f"({type(picture).__name__})"
    return PictureError(f"The picture {name} cannot be read: {reason}. Replace or remove it.")

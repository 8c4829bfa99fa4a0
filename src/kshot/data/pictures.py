"""The one place where pictures become arrays: the same for training data and for a user's own."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from kshot.data.cache import Progress
from kshot.data.files import FileTree

__all__ = ["Fit", "Picture", "PictureError", "Resample", "prepare_picture", "prepare_pictures"]

Picture = str | Path | bytes | Image.Image | np.ndarray
"""A picture file, its content, an opened picture, or an array (height, width[, channels])."""

Resample = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
"""Filter that makes a picture smaller; all but "nearest" average over the area."""

Fit = Literal["crop", "stretch"]
"""How a picture becomes square: its central square is kept, or it is stretched as a whole."""


class PictureError(ValueError):
    """A picture that cannot be read."""


def prepare_picture(
    picture: Picture,
    *,
    size: int,
    channels: Literal[1, 3] = 3,
    resample: Resample = "lanczos",
    invert: bool = False,
    bilevel: bool = False,
    fit: Fit = "crop",
    name: str | None = None,
) -> np.ndarray:
    """Make an input of a picture of any size and mode.

    The picture is turned as its camera says, laid on white where it is transparent, made grey or
    colour, made square, resized, and inverted, in this order. A data set's `preparation` holds the
    arguments with which its pictures were made:
    `prepare_picture(picture, **splits.preparation)` prepares a new one in the same way.

    Args:
        picture: the path of a file, its content, an opened picture, or an array: (height, width) or
            (height, width, channels) of uint8, bool, or floating numbers in [0, 1].
        size: side of the result in pixels.
        channels: 1 for grey, 3 for colour.
        resample: filter of the resizing.
        invert: whether light and dark change places, so that ink on paper becomes 255 on 0.
        bilevel: whether the picture is made black and white, at half brightness, before it is
            resized (with "nearest", as Pillow resizes pictures of one bit).
        fit: how it is made square.
        name: what to call it in an error, when it is not a path.

    Returns:
        uint8 (channels, size, size).

    Raises:
        FileNotFoundError: when there is no such file.
        PictureError: when it cannot be read; names the picture and says why.
    """
    if name is None:
        is_path = isinstance(picture, str | Path)
        name = str(picture) if is_path else f"({type(picture).__name__})"
    try:
        image = _as_eight_bits(_opened(picture, size))
        image = image.convert("L" if channels == 1 else "RGB")
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        # Decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error, ...
        reason = str(error) or type(error).__name__
        raise PictureError(
            f"The picture {name} cannot be read: {reason.rstrip('.')}. Replace or remove it."
        ) from error
    if bilevel:
        image = image.convert("L").convert("1", dither=Image.Dither.NONE)
        image = image.convert("L" if channels == 1 else "RGB")
        resample = "nearest"
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    array = np.asarray(image.resize((size, size), Image.Resampling[resample.upper()]))
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    return 255 - array if invert else np.ascontiguousarray(array)


def prepare_pictures(
    files: FileTree, names: Sequence[str], progress: Progress, **preparation: Any
) -> tuple[np.ndarray, dict[str, str]]:
    """Make one array of many picture files.

    Args:
        files: where they are.
        names: which of them.
        progress: told how many are done.
        **preparation: arguments of `prepare_picture`.

    Returns:
        uint8 (len(names), channels, size, size), zero where a picture could not be read, and for
        each such picture what is wrong with it.
    """
    first = prepare_picture(np.zeros((1, 1), dtype=np.uint8), **preparation)
    pictures = np.zeros((len(names), *first.shape), dtype=np.uint8)
    failures: dict[str, str] = {}
    for number, result in enumerate(_decoded(files, names, preparation)):
        if isinstance(result, str):
            failures[names[number]] = result
        else:
            pictures[number] = result
        progress(number + 1, len(names))
    return pictures, failures


def _decoded(
    files: FileTree, names: Sequence[str], preparation: Mapping[str, Any]
) -> Iterator[np.ndarray | str]:
    """Each picture in order, or what is wrong with it; decoding runs in threads."""

    def decode(name: str) -> np.ndarray | str:
        try:
            return prepare_picture(files.read(name), name=name, **preparation)
        except (PictureError, OSError) as error:
            return str(error)

    block = 256  # Executor.map would hold every result that is not yet asked for
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(names), block):
            yield from pool.map(decode, names[start : start + block])


def _opened(picture: Picture, size: int) -> Image.Image:
    """The picture, decoded and turned upright."""
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, Image.Image):
        return ImageOps.exif_transpose(picture)
    source = io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture).expanduser()
    with Image.open(source) as image:
        # A photograph of many megapixels is decoded at a fraction of them, in a tenth of the time.
        image.draft(None, (4 * size, 4 * size))
        return ImageOps.exif_transpose(image)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))
    if not is_picture or array.size == 0:
        raise ValueError(f"an array must be (height, width[, channels]), not {array.shape}")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN fails both
            raise ValueError("floating values must be in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an array must be uint8, bool or floating in [0, 1], not {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


def _as_eight_bits(image: Image.Image) -> Image.Image:
    """The picture without transparency, with at most 8 bits a channel."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are no numbers")
        if image.mode == "F":
            scale = 255.0 if values.max() <= 1 else 1.0
        else:
            scale = 1 / 257 if image.mode.startswith("I;16") or values.max() > 255 else 1.0
        return Image.fromarray(np.rint(values * scale).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image)
        return paper.convert("RGB")
    return image

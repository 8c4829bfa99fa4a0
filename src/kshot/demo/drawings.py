"""Pictures as a visitor sends them become inputs that look like what a learner was trained on."""

import io
import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from kshot.data.pictures import prepare_picture

__all__ = ["INK", "Ink", "PictureRefused", "as_input", "ink_of", "open_picture", "redraw"]

WORKING_SIDE = 112
"""Longer side at which ink is looked for, in pixels: finer than any input, and quick."""

SMALLEST_EXTENT = 0.15
"""A drawing is enlarged as if it were at least this share of its picture: a dot stays a dot."""

FAINTEST_INK = 24
"""Least difference between ink and paper, of 255: below, a picture is blank."""


class Ink(NamedTuple):
    """How the drawings of a data set look.

    Attributes:
        extent: longer side of what is drawn, as a share of the picture's side.
        pen: half the width of a line, as a share of the picture's side; None leaves lines as wide
            as they come.
    """

    extent: float
    pen: float | None


INK: Mapping[str, Ink] = {
    "scripts-pen": Ink(19.8 / 28, 0.85 / 28),
    "scripts": Ink(19.8 / 28, None),
    "omniglot": Ink(17.0 / 28, 0.55 / 28),
}
"""How drawings look, by data set or by protocol of glyphs."""


class PictureRefused(ValueError):
    """A picture that cannot be used; the message says what was expected and what came."""


def open_picture(content: bytes, *, largest_side: int, name: str = "the picture") -> Image.Image:
    """Decode a PNG, JPEG, WebP, GIF or BMP and lay it on white paper.

    Args:
        content: the file.
        largest_side: longest side allowed, in pixels; it is checked before anything is decoded.
        name: what to call it in an error.

    Returns:
        A picture of mode "RGB", turned as its camera says.

    Raises:
        PictureRefused: when it is no picture, too large, or damaged.
    """
    kinds: tuple[Literal["PNG", "JPEG", "WEBP", "GIF", "BMP"], ...] = (
        *("PNG", "JPEG", "WEBP"),
        *("GIF", "BMP"),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=kinds)
    except Exception as error:
        # Decoders of what is no picture raise nearly anything.
        raise PictureRefused(
            f"Expected {name} as a PNG, JPEG, WebP, GIF or BMP file, and its {len(content)} bytes "
            f"are none of these: send the file's own bytes ({type(error).__name__})."
        ) from error
    if max(image.size) > largest_side:
        raise PictureRefused(
            f"Expected {name} with sides of at most {largest_side} pixels, and it is "
            f"{image.width} x {image.height}: make it smaller."
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode == "RGB":
            image.load()
            return image
        image = image.convert("RGBA")
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise PictureRefused(
            f"Expected {name} to be whole, and it cannot be decoded ({reason.rstrip('.')}): save "
            "it again."
        ) from error
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    return paper.convert("RGB")


def as_input(
    image: Image.Image, preparation: Mapping[str, Any], ink: Ink | None, name: str = "the picture"
) -> np.ndarray:
    """What a learner sees of a picture.

    Where it learned from drawings, the ink is found, cut out, centered, and drawn again as large
    and with as wide a pen as in the training pictures, so that neither the place nor the size nor
    the pen of a visitor matters. Other pictures are prepared as the training pictures were.

    Args:
        image: mode "RGB".
        preparation: how the training pictures were made (`LabelledSplits.preparation`).
        ink: how drawings look there; None when they are no drawings.
        name: what to call it in an error.

    Returns:
        uint8 (channels, size, size).

    Raises:
        PictureRefused: when a drawing has no ink.
    """
    if ink is None:
        return prepare_picture(image, **preparation)
    drawn = redraw(ink_of(image, name), preparation["size"], ink)
    # Photographs of ink on paper are inverted where ink is light on dark in training.
    return (drawn if preparation["invert"] else 255 - drawn)[None]


def ink_of(image: Image.Image, name: str = "the picture") -> np.ndarray:
    """Where a drawing has ink, (height, width) bool, whatever the paper and its light.

    Ink is darker than the paper around it, or lighter when the picture's border is dark.

    Args:
        image: mode "RGB".
        name: what to call it in an error.

    Raises:
        PictureRefused: when there is none.
    """
    grey = image.convert("L")
    if max(grey.size) > WORKING_SIDE:
        grey.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    if np.median(border) < 128:
        values = 255 - values
    # The paper is as light as the lightest place nearby, so that shadows on it are no ink.
    reach = max(3, max(values.shape) // 4)
    paper = ndimage.uniform_filter(ndimage.maximum_filter(values, reach), reach)
    darkness = (paper - values).clip(0)
    if darkness.max() < FAINTEST_INK:
        raise PictureRefused(
            f"Expected a drawing, dark on light or light on dark, and {name} is blank: draw "
            "something."
        )
    return darkness > max(FAINTEST_INK / 2, _threshold(darkness))


def redraw(ink: np.ndarray, size: int, look: Ink) -> np.ndarray:
    """Draw ink again: centered, of a given extent, with a given pen, its edges antialiased.

    As in the making of glyphs, a pixel is half full at the edge of the ink, and none or all half a
    pixel away from it; another pen is a number added to the distance from the edge.

    Args:
        ink: (height, width) bool, some of it true.
        size: side of the result, in pixels.
        look: how large and how wide.

    Returns:
        (size, size) uint8, ink 255 on 0.
    """
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longest = max(bottom - top, right - left, SMALLEST_EXTENT * max(ink.shape))
    zoom = look.extent * size / longest
    margin = int(np.ceil(2 / zoom)) + 2  # farther out there is no ink, whatever the pen
    cut = np.pad(ink[top:bottom, left:right], margin)
    inside = np.asarray(ndimage.distance_transform_edt(cut)) - 0.5 * cut
    outside = np.asarray(ndimage.distance_transform_edt(~cut)) - 0.5 * ~cut
    pen = 0.0
    if look.pen is not None:
        # Depths within a line of half-width h go evenly from 0 to h.
        width = 2 * float(inside[cut].mean()) * zoom
        pen = max(look.pen * size - width, -0.6 * width)
    step = (np.arange(size) + 0.5 - size / 2) / zoom
    places = np.meshgrid(
        step + (cut.shape[0] - 1) / 2, step + (cut.shape[1] - 1) / 2, indexing="ij"
    )
    distance = ndimage.map_coordinates(inside - outside, places, order=1, mode="nearest")
    return np.rint((0.5 + distance * zoom + pen).clip(0, 1) * 255).astype(np.uint8)


def _threshold(values: np.ndarray) -> float:
    """The value that parts two groups best (Otsu): where the variance between them is largest.

    Args:
        values: from 0 on, some of them above it.
    """
    bins = 64
    width = float(values.max()) / bins
    counts = np.bincount(
        (values / width).astype(np.intp).clip(max=bins - 1).ravel(), minlength=bins
    )
    middles = width * (np.arange(bins) + 0.5)
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * middles).cumsum()
    means = sums / below.clip(1), (sums[-1] - sums) / above.clip(1)
    best = int((below * above * (means[0] - means[1]) ** 2)[:-1].argmax())
    return width * (best + 1)

"""What figures share: colors and lines that stay apart in grey, pictures, names, frames."""

from typing import Any

import numpy as np
from torch import Tensor

__all__ = [
    "INK",
    "LINES",
    "RIGHT",
    "SOFT",
    "WRONG",
    "draw_picture",
    "frame",
    "line",
    "short_name",
]

INK = "#222222"
"""Text, and what is so whatever a learner says."""
RIGHT = "#1b6ca8"
"""What a learner says, and right predictions."""
WRONG = "#c8553d"
"""Wrong predictions, and a second line."""
SOFT = "#9a9a9a"
"""What stands behind: chance, the state before."""
LINES = [
    (RIGHT, "-", "o"),
    (WRONG, "--", "s"),
    (INK, ":", "^"),
    (SOFT, "-.", "D"),
    (RIGHT, ":", "v"),
    (WRONG, "-", "x"),
    (INK, "-", "P"),
    (SOFT, "--", "h"),
]
"""Lines that stay apart in grey: color, dash, marker."""


def line(number: int) -> dict[str, Any]:
    """Color, dash and marker of the line of some number, as matplotlib takes them."""
    color, style, marker = LINES[number % len(LINES)]
    return {"color": color, "linestyle": style, "marker": marker}


def frame(axis: Any, grid: str = "both") -> None:
    """A frame that is open above and on the right, with a pale grid along "x", "y" or "both"."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, alpha=0.25)


def draw_picture(axis: Any, picture: Tensor) -> None:
    """Draw a picture (channels, height, width) in [0, 1] without a frame.

    A drawing, mostly black or white, is shown as ink on paper, whichever of the two the data has
    as 1; a grey photograph as it is.
    """
    image = picture.detach().cpu().permute(1, 2, 0).numpy()
    if image.shape[2] == 1:
        drawing = (np.abs(image - 0.5) > 0.4).mean() > 0.6
        inverted = drawing and image.mean() <= 0.5
        axis.imshow(image[:, :, 0], cmap="gray_r" if inverted else "gray", vmin=0, vmax=1)
    else:
        axis.imshow(np.clip(image, 0, 1))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def short_name(name: str, length: int = 22) -> str:
    """The telling end of a long class name."""
    name = name.rsplit("/", 1)[-1].lower() if name.isupper() or "/" in name else name
    return name if len(name) <= length else "..." + name[-length + 3 :]

"""Hand-like drawings of a thousand letters and signs: a data set that needs no download."""

from collections.abc import Callable
from itertools import pairwise
from math import radians
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.data.sources.glyph_faces import GLYPH_SPLITS, NUM_STEPS, GlyphFaces, read_glyph_faces

__all__ = ["GLYPH_SPLITS", "GlyphDrawings", "draw_by_hand", "draw_glyphs"]

# How a hand departs from a font; lengths in pixels of a 28 x 28 picture, whatever the size drawn.
# Chosen on the validation groups alone: pixels compared with the one example are right every second
# time (5-way 1-shot), a trained network 24 times in 25, and a person reads every drawing.
PICTURE_SIDE = 28
EXTENT = (18.0, 21.5)  # longer side of the frame about the character
TURN = radians(10)  # largest rotation
SLANT = 0.15  # largest shift sideways per unit of height
STRETCH = 0.2  # largest change of width : height, as a logarithm
WOBBLE = 0.6  # standard deviation of the bends of lines, and
WOBBLE_LIMIT = 1.1  # the farthest that they move a point along x or y
WOBBLE_KNOTS = 4  # bends are drawn on a grid of so many knots a side, and smooth between
PEN = (-0.15, 0.3)  # growth of a stroke at either side
WANDER = 2.5  # largest shift off the centre along x or y
BORDER = 2.5  # kept free about the frame for bends, pen and fading edges
REACH = 4  # cells of a clean picture: the farthest distance from an edge that is measured

# Few large batches: threads that wait for each other cost more than they save on a busy machine.
NUM_BATCHES = 16


class GlyphDrawings(NamedTuple):
    """Pictures of characters as a hand might draw them.

    Attributes:
        examples: (num_classes * drawings, 1, size, size) uint8, ink = 255 on 0; the drawings of a
            class are contiguous.
        labels: (num_classes * drawings,) int64.
        class_names: group and Unicode name of each class, `"greek/GREEK SMALL LETTER BETA"`.
        groups: script or family of signs of each class, as in `GLYPH_SPLITS`.
    """

    examples: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: tuple[str, ...]


def draw_glyphs(
    *,
    size: int = PICTURE_SIDE,
    drawings: int = 20,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    redraw: Callable[[GlyphFaces], GlyphFaces] | None = None,
) -> GlyphDrawings:
    """Draw every character of matplotlib's fonts that has a shape of its own.

    The groups are split by `GLYPH_SPLITS`.

    Note:
        Unlike Omniglot's, these classes must not be multiplied by quarter turns: a turned arrow,
        bracket or pattern of dots is another character of the set.

    Args:
        size: side of a picture, in pixels.
        drawings: pictures a class.
        seed: of the hand; the characters do not depend on it.
        progress: called with the numbers of steps done and in all.
        redraw: what becomes of the fonts' clean pictures before a hand draws after them.

    Raises:
        FileNotFoundError: matplotlib's fonts are not where it says.
    """
    total = NUM_STEPS + NUM_BATCHES
    faces = read_glyph_faces(progress and (lambda done, _: progress(done, total)))
    return draw_by_hand(
        faces if redraw is None else redraw(faces),
        size=size,
        drawings=drawings,
        seed=seed,
        progress=progress and (lambda done, _: progress(NUM_STEPS + done, total)),
    )


def draw_by_hand(
    faces: GlyphFaces,
    *,
    size: int = PICTURE_SIDE,
    drawings: int = 20,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> GlyphDrawings:
    """Draw classes by hand after their clean pictures, the faces of a class in turn.

    Args:
        faces: the clean pictures.
        size: side of a picture, in pixels.
        drawings: pictures a class.
        seed: of the hand.
        progress: called with the numbers of steps done and in all.
    """
    if size < 1 or drawings < 1:
        raise ValueError(
            f"Expected a size of at least 1 px and at least 1 drawing a class, got size={size} and "
            f"drawings={drawings}."
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    num_classes = len(faces.class_names)
    ends = np.searchsorted(faces.classes, np.arange(num_classes + 1))
    models = np.concatenate(
        [
            np.resize(rng.permutation(np.arange(start, end)), drawings)
            for start, end in pairwise(ends.tolist())
        ]
    )
    examples = []
    for number, batch in enumerate(np.array_split(models, NUM_BATCHES), 1):
        if len(batch):
            used, places = np.unique(batch, return_inverse=True)
            distances = _edge_distances(faces.pictures[used])
            examples.append(_draw(distances[torch.from_numpy(places)], size, rng))
        if progress is not None:
            progress(number, NUM_BATCHES)
    return GlyphDrawings(
        examples=np.concatenate(examples),
        labels=np.repeat(np.arange(num_classes, dtype=np.int64), drawings),
        class_names=faces.class_names,
        groups=faces.groups,
    )


def _draw(distances: Tensor, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw each character once, by a hand of its own.

    Points are (x, y) pairs off the centre of a picture, in pixels of a 28 x 28 picture or in cells
    of a clean one. A pixel asks what point of the clean picture the hand has moved onto it.

    Args:
        distances: (n, side, side), of each cell from the edge of the ink (`_edge_distances`).
        size: side of the drawings, in pixels.
        rng: source of the hands.

    Returns:
        (n, 1, size, size) uint8.
    """
    n, side = distances.shape[:2]
    matrix, box = _hands(distances, rng)
    slack = (PICTURE_SIDE / 2 - BORDER - box).clamp(0, WANDER)
    shift = slack * _uniform(rng, (-1.0, 1.0), n, 2)
    bends = F.interpolate(
        _tensor(rng.normal(scale=WOBBLE, size=(n, 2, WOBBLE_KNOTS, WOBBLE_KNOTS))),
        size=(size, size),
        mode="bicubic",
        align_corners=True,
    ).clamp(-WOBBLE_LIMIT, WOBBLE_LIMIT)

    line = (torch.arange(size) + 0.5) * (PICTURE_SIDE / size) - PICTURE_SIDE / 2
    pixels = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    moved = pixels + bends.permute(0, 2, 3, 1) - shift[:, None, None]
    points = moved.flatten(1, 2) @ torch.linalg.inv(matrix).mT
    sampled = F.grid_sample(
        distances[:, None],
        points.view(n, size, size, 2) * (2 / side),
        padding_mode="border",
        align_corners=False,
    )
    zoom = torch.linalg.det(matrix).sqrt()[:, None, None, None]
    pen = _uniform(rng, PEN, n, 1, 1, 1)
    # Half ink at the edge, none or all half a drawn pixel away from it.
    ink = 0.5 + (sampled * zoom + pen) * (size / PICTURE_SIDE)
    return ink.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def _hands(distances: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn, slant, stretch and zoom of each drawing.

    Returns:
        (n, 2, 2) matrices from cells to pixels, and (n, 2) half the sides of the frame that then
        holds the character, in pixels.
    """
    n = len(distances)
    turn, slant, stretch = (
        _uniform(rng, (-bound, bound), n) for bound in (TURN, SLANT, STRETCH / 2)
    )
    zero, one = torch.zeros(n), torch.ones(n)
    matrices = (
        torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).view(n, 2, 2)
        @ torch.stack([one, slant, zero, one], -1).view(n, 2, 2)
        @ torch.stack([stretch.exp(), zero, zero, (-stretch).exp()], -1).view(n, 2, 2)
    )
    ink = distances > 0
    seen = torch.stack([ink.any(1), ink.any(2)], 1).int()
    empty = torch.minimum(seen.argmax(-1), seen.flip(-1).argmax(-1))
    half_sides = seen.shape[-1] / 2 - empty
    box = (matrices.abs() @ half_sides[..., None])[..., 0]
    zoom = _uniform(rng, EXTENT, n) / (2 * box.amax(1))
    return matrices * zoom[:, None, None], box * zoom[:, None]


def _edge_distances(pictures: np.ndarray) -> Tensor:
    """Distance of each cell from the edge of the ink, positive inside, at most `REACH`.

    Distances, unlike ink, can be bent and enlarged and keep sharp edges; a wider or narrower pen
    is a number added.

    Args:
        pictures: (n, INK_SIDE, INK_SIDE) uint8.

    Returns:
        (n, side, side) float32, with a margin of `REACH` cells all around.
    """
    ink = np.pad(pictures > 127, ((0, 0), (REACH, REACH), (REACH, REACH)))
    return _tensor(_depths(ink) - _depths(~ink))


def _depths(inside: np.ndarray) -> np.ndarray:
    """Distance from inside cells to the nearest other cell's edge; 0 outside."""
    squares = np.where(inside, np.uint8((REACH + 1) ** 2), np.uint8(0))
    # The nearest cell in a plane: first along each row, then along the columns of the result.
    for _ in range(2):
        nearest = squares.copy()
        for offset in range(1, REACH + 1):
            added = np.uint8(offset**2)
            for to, source in (
                (np.s_[:, :, offset:], np.s_[:, :, :-offset]),
                (np.s_[:, :, :-offset], np.s_[:, :, offset:]),
            ):
                np.minimum(nearest[to], squares[source] + added, out=nearest[to])
        squares = np.ascontiguousarray(nearest.swapaxes(1, 2))
    depths = np.sqrt(np.arange((REACH + 1) ** 2 + 1, dtype=np.float32)) - 0.5
    return depths.clip(0, REACH)[squares]


def _uniform(rng: np.random.Generator, bounds: tuple[float, float], *shape: int) -> Tensor:
    return _tensor(rng.uniform(*bounds, size=shape))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32, copy=False))

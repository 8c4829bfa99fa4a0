"""Glyphs as lines of a pen: the middle line of what a font fills, drawn anew."""

import numpy as np

from kshot.data.sources.glyph_faces import INK_SIDE, GlyphFaces

__all__ = ["middle_lines", "pen_faces"]


def pen_faces(faces: GlyphFaces) -> GlyphFaces:
    """The same classes with every stroke as wide as a pen, whatever the weight of the font.

    People draw with pens: fonts differ in weight and serifs, which say nothing of a class that is
    drawn. Lines are 1.5 pixels of a 28 x 28 picture wide, on every second face finer along
    diagonals, and the hand that draws them widens and narrows them further (`PEN`).

    Args:
        faces: clean pictures, as `read_glyph_faces` has them.
    """
    lines = middle_lines(faces.pictures > 127)
    padded = np.pad(lines, ((0, 0), (1, 1), (1, 1)))

    def moved(down: int, right: int) -> np.ndarray:
        return padded[:, 1 + down : 1 + down + INK_SIDE, 1 + right : 1 + right + INK_SIDE]

    fine = lines | moved(0, 1) | moved(0, -1) | moved(1, 0) | moved(-1, 0)
    broad = fine | moved(1, 1) | moved(1, -1) | moved(-1, 1) | moved(-1, -1)
    is_fine = (faces.faces % 2 == 0)[:, None, None]
    return faces._replace(pictures=np.where(is_fine, fine, broad).astype(np.uint8) * 255)


def middle_lines(ink: np.ndarray) -> np.ndarray:
    """Thin shapes to lines one cell wide that are connected as they are.

    Args:
        ink: (n, height, width) bool.

    Returns:
        (n, height, width) bool; a blob leaves a point or a short line.

    Reference:
        Zhang, Suen: A fast parallel algorithm for thinning digital patterns. Communications of the
        ACM, 1984. https://doi.org/10.1145/357994.358023
    """
    ink = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    changing = np.arange(len(ink))
    while len(changing):
        before = ink[changing]
        after = before
        for second in (False, True):
            after = after & ~_removable(after, second)
        ink[changing] = after
        changing = changing[(before != after).any(axis=(1, 2))]
    return ink[:, 1:-1, 1:-1]


def _removable(ink: np.ndarray, second: bool) -> np.ndarray:
    """Cells of the outline that no line needs, in one of the two passes of the paper."""
    around = [  # p2 ... p9, clockwise from the north
        np.roll(ink, (down, right), axis=(1, 2))
        for down, right in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
    ]
    count = np.sum(around, axis=0, dtype=np.uint8)
    turns = np.sum(
        [~a & b for a, b in zip(around, around[1:] + around[:1], strict=True)],
        axis=0,
        dtype=np.uint8,
    )
    north, _, east, _, south, _, west, _ = around
    if second:
        spared = (north & east & west) | (north & south & west)
    else:
        spared = (north & east & south) | (east & south & west)
    return ink & (count >= 2) & (count <= 6) & (turns == 1) & ~spared

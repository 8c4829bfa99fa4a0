"""Strokes of a pen: lines one cell wide, as connected as the shapes they come from."""

import inspect

import numpy as np
import pytest
from scipy import ndimage

from kshot.data.sources.glyph_faces import INK_SIDE, GlyphFaces
from kshot.data.sources.glyph_strokes import middle_lines, pen_faces
from kshot.data.sources.glyphs import glyphs

EIGHT = np.ones((3, 3), dtype=bool)


def shapes() -> np.ndarray:
    """A bar, a thick ring, a blob, and a T, (4, INK_SIDE, INK_SIDE) bool."""
    rows, columns = np.mgrid[:INK_SIDE, :INK_SIDE]
    distance = np.hypot(rows - 20.5, columns - 20.5)
    bar = (abs(rows - 20) < 4) & (columns > 2) & (columns < 38)
    ring = (distance > 9) & (distance < 16)
    across = (abs(columns - 20) < 17) & (rows < 8) & (rows > 2)
    letter = across | ((abs(columns - 20) < 4) & (rows > 2) & (rows < 38))
    return np.stack([bar, ring, distance < 5, letter])


def test_lines_are_thin_within_the_shape_and_connected_as_it_is():
    ink = shapes()
    lines = middle_lines(ink)
    assert not (lines & ~ink).any() and lines.any(axis=(1, 2)).all()
    blocks = lines[:, 1:, 1:] & lines[:, :-1, 1:] & lines[:, 1:, :-1] & lines[:, :-1, :-1]
    assert blocks.sum() <= len(ink), "lines are one cell wide, but for a corner"
    for shape, line in zip(ink, lines, strict=True):
        assert ndimage.label(line, EIGHT)[1] == ndimage.label(shape, EIGHT)[1]
        assert ndimage.label(~line)[1] == ndimage.label(~shape)[1], "a ring keeps its hole"
    assert 20 < lines[0].sum() < 40 and lines[2].sum() <= 4


def test_faces_get_one_pen_whatever_their_weight():
    ink = shapes()
    bold = ndimage.binary_dilation(ink, EIGHT, axes=(1, 2))
    pictures = np.concatenate([ink, bold]).astype(np.uint8) * 255
    zeros = np.zeros(8, dtype=np.int64)
    faces = GlyphFaces(pictures, zeros, zeros, ("digits/ONE",), ("digits",))
    drawn = pen_faces(faces).pictures
    assert drawn.shape == pictures.shape and set(np.unique(drawn)) == {0, 255}
    light, heavy = (drawn[part] > 0 for part in (slice(4), slice(4, 8)))
    assert abs(int(light.sum()) - int(heavy.sum())) < 0.1 * light.sum()
    broad = pen_faces(faces._replace(faces=zeros + 1)).pictures > 0
    assert (broad >= (drawn > 0)).all() and broad.sum() > (drawn > 0).sum()


def test_other_strokes_are_refused():
    # As users call it: the tests' own check of types would be first to refuse.
    with pytest.raises(ValueError, match="must be 'font' or 'pen', not 'brush'"):
        inspect.unwrap(glyphs)(strokes="brush")  # pyright: ignore[reportArgumentType]

"""A drawing becomes what a learner was trained on, wherever, however large and with what pen."""

import io

import numpy as np
import pytest
from PIL import Image

from kshot.demo.drawings import INK, PictureRefused, as_input, ink_of, open_picture, redraw
from tests.demo.conftest import draw

PREPARATION = {"size": 28, "invert": True}
LOOK = INK["scripts-pen"]


def seen(content: bytes, invert: bool = True) -> np.ndarray:
    image = open_picture(content, largest_side=4096)
    return as_input(image, {**PREPARATION, "invert": invert}, LOOK)[0].astype(float)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return np.minimum(first, second).sum() / np.maximum(first, second).sum()


def test_size_pen_paper_and_format_make_little_difference():
    plain = seen(draw("circle"))
    assert overlap(plain, seen(draw("circle", side=640))) > 0.9
    assert overlap(plain, seen(draw("circle", side=64))) > 0.8
    broad = seen(draw("circle", pen=11))
    assert overlap(plain, broad) > 0.4 and 0.8 < broad.sum() / plain.sum() < 1.25
    assert overlap(plain, seen(draw("circle", dark=False))) > 0.9
    stream = io.BytesIO()
    Image.open(io.BytesIO(draw("circle"))).save(stream, "JPEG", quality=70)
    assert overlap(plain, seen(stream.getvalue())) > 0.9
    assert overlap(plain, seen(draw("cross"))) < 0.5


def test_a_drawing_is_centered_of_the_extent_and_pen_of_the_glyphs():
    picture = seen(draw("cross", pen=9))
    rows, columns = np.flatnonzero(picture.max(1) > 127), np.flatnonzero(picture.max(0) > 127)
    assert abs(rows[0] + rows[-1] - 27) <= 1 and abs(columns[0] + columns[-1] - 27) <= 1
    assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22
    assert picture.max() == 255 and picture.min() == 0
    line = seen(draw("bar"))[14]
    assert 1.2 < line.sum() / 255 < 2.4, "pixels of ink across a line"
    np.testing.assert_array_equal(seen(draw("cross"), invert=False), 255 - seen(draw("cross")))


def test_light_that_falls_off_is_no_ink():
    drawn = np.asarray(Image.open(io.BytesIO(draw("circle"))).convert("L"), dtype=float)
    shadow = np.linspace(1.0, 0.55, drawn.shape[1])
    image = Image.fromarray((drawn * shadow).astype(np.uint8)).convert("RGB")
    assert overlap(seen(draw("circle")), as_input(image, PREPARATION, LOOK)[0].astype(float)) > 0.8


def test_transparent_paper_is_white_and_a_dot_stays_a_dot():
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (48, 48, 53, 53))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    dot = seen(stream.getvalue())
    assert 2 < dot.sum() / 255 < 60


def test_redrawn_lines_are_never_lost():
    ink = np.zeros((60, 60), dtype=bool)
    ink[5:55, 30] = True
    assert redraw(ink, 28, LOOK).max() > 128


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "none of these"),
        (b"GIF89a and then nothing", "none of these"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of these"),
        (draw("circle")[:200], "be whole"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str):
    with pytest.raises(PictureRefused, match=reason):
        open_picture(content, largest_side=4096)


def test_a_large_or_blank_picture_is_refused():
    with pytest.raises(PictureRefused, match="at most 100 pixels, and it is 160 x 160"):
        open_picture(draw("circle"), largest_side=100)
    blank = open_picture(draw("nothing"), largest_side=4096)
    with pytest.raises(PictureRefused, match="the third is blank"):
        ink_of(blank, "the third")

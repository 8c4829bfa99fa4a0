"""Glyphs as a task source, with a quick stand-in for the drawing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kshot.config import EpisodeConfig
from kshot.data.sources import glyph_drawing, glyph_faces, glyph_strokes
from kshot.data.sources.glyphs import glyphs

GROUPS = [group for groups in glyph_faces.GLYPH_SPLITS.values() for group in groups]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Six classes of every group; remembers how the drawing was called."""
    calls: list[dict[str, object]] = []

    def draw_glyphs(
        *,
        size: int,
        drawings: int,
        seed: int,
        progress: Callable[[int, int], None] | None,
        redraw: Callable[[glyph_faces.GlyphFaces], glyph_faces.GlyphFaces] | None,
    ) -> glyph_drawing.GlyphDrawings:
        calls.append({"size": size, "drawings": drawings, "seed": seed, "redraw": redraw})
        groups = tuple(group for group in GROUPS for _ in range(6))
        labels = np.repeat(np.arange(len(groups)), drawings)
        if progress is not None:
            progress(1, 1)
        return glyph_drawing.GlyphDrawings(
            np.zeros((len(labels), 1, size, size), np.uint8),
            labels,
            tuple(f"{group}/LETTER {i}" for i, group in enumerate(groups)),
            groups,
        )

    monkeypatch.setattr(glyph_drawing, "draw_glyphs", draw_glyphs)
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    return calls


def test_glyphs_are_split_by_script_and_drawn_once(drawn: list):
    first, second = glyphs(), glyphs()
    assert drawn == [{"size": 28, "drawings": 20, "seed": 0, "redraw": None}]
    assert (first.name, first.protocol, first.input_shape) == ("glyphs", "scripts", (1, 28, 28))
    for data in (first, second):
        for split, groups in glyph_faces.GLYPH_SPLITS.items():
            assert set(data.dataset(split).groups or ()) == set(groups)
            assert data.num_classes(split) == 6 * len(groups)
    assert first.preparation["invert"]
    episodes = first.sampler("test", EpisodeConfig(way=5, shot=5, within=True), 0).sample([0, 1])
    assert episodes.query.inputs.shape == (2, 75, 1, 28, 28)


def test_another_size_is_drawn_anew(drawn: list):
    glyphs()
    assert glyphs(size=14).input_shape == (1, 14, 14)
    assert [call["size"] for call in drawn] == [28, 14]


def test_strokes_of_a_pen_are_data_of_their_own(drawn: list):
    assert (glyphs().protocol, glyphs(strokes="pen").protocol) == ("scripts", "scripts-pen")
    assert [call["redraw"] for call in drawn] == [None, glyph_strokes.pen_faces]
    glyphs(strokes="pen")
    assert len(drawn) == 2

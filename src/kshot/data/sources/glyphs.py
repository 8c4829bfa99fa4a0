"""Glyphs: letters and signs of eleven scripts as a hand might draw them, with no download."""

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kshot.data.cache import Progress, cached_arrays
from kshot.data.dataset import LabelledDataset
from kshot.data.splits import LabelledSplits, split_classes
from kshot.options import checks_options

__all__ = ["glyphs"]

_DRAWINGS = 20
_SEED = 0


@checks_options
def glyphs(*, size: int = 28, strokes: Literal["font", "pen"] = "font") -> LabelledSplits:
    """Letters and signs of matplotlib's fonts, 20 drawings each, no two classes of one shape.

    Whole scripts are kept apart: letters of the test alphabets are never seen in training. Made in
    half a minute on first use and kept in the cache. Ink is 1 on 0.

    Args:
        size: Side of the pictures in pixels.
        strokes: As wide as the fonts have them, or all drawn with a pen, as people draw. The
            protocol is then "scripts-pen".

    Returns:
        Splits whose classes are called "script/UNICODE NAME", in groups by script.
    """
    # Imported here: fonts and image filters are slow to import, and only this data needs them.
    import matplotlib

    from kshot.data.sources import glyph_drawing, glyph_faces, glyph_strokes

    if strokes not in ("font", "pen"):
        raise ValueError(f"strokes must be 'font' or 'pen', not {strokes!r}.")
    with_pen = strokes == "pen"

    def build(progress: Progress) -> Mapping[str, Any]:
        drawn = glyph_drawing.draw_glyphs(
            size=size,
            drawings=_DRAWINGS,
            seed=_SEED,
            progress=progress,
            redraw=glyph_strokes.pen_faces if with_pen else None,
        )
        return {
            "examples": drawn.examples,
            "labels": drawn.labels,
            "class_names": list(drawn.class_names),
            "groups": list(drawn.groups),
        }

    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    key = {
        "fonts": [_digest(fonts / f"{face}.ttf") for face in glyph_faces.FACES],
        # The drawing has many constants: its source stands for them all.
        "drawing": [
            hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
            for module in (glyph_drawing, glyph_faces, *[glyph_strokes] * with_pen)
        ],
        "size": size,
        "drawings": _DRAWINGS,
        "seed": _SEED,
    }
    stored = cached_arrays("glyphs", key, build)
    data = LabelledDataset.from_labels(
        stored["examples"], stored["labels"], stored["class_names"], stored["groups"]
    )
    lists = {
        split: [
            name
            for name, group in zip(stored["class_names"], stored["groups"], strict=True)
            if group in groups
        ]
        for split, groups in glyph_faces.GLYPH_SPLITS.items()
    }
    return LabelledSplits(
        name="glyphs",
        protocol="scripts-pen" if with_pen else "scripts",
        splits=split_classes(data, lists),
        # Not how the drawings were made, but how a photograph of ink on paper becomes like them.
        preparation={
            "size": size,
            "channels": 1,
            "resample": "lanczos",
            "invert": True,
            "bilevel": False,
            "fit": "crop",
        },
    )


def _digest(font: Path) -> str:
    """The sha256 of a font; a missing one is reported by the drawing."""
    return hashlib.sha256(font.read_bytes()).hexdigest() if font.is_file() else "missing"

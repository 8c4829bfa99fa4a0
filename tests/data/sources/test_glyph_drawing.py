"""The glyphs are many, legible, told apart by a person, and the same for a seed."""

# ruff: noqa: RUF001 - letters that look like others are what is tested

import unicodedata

import numpy as np
import pytest

from kshot.data.sources.glyph_drawing import (
    GLYPH_SPLITS,
    GlyphDrawings,
    draw_by_hand,
    draw_glyphs,
)
from kshot.data.sources.glyph_faces import (
    FACES,
    INK_SIDE,
    MIN_DIFFERENCE,
    MIN_FACES,
    MIN_TEST_DIFFERENCE,
    NUM_STEPS,
    GlyphFaces,
    differences,
    read_glyph_faces,
)

DRAWINGS = 20


@pytest.fixture(scope="session")
def steps() -> list[tuple[int, int]]:
    """What `drawn` told of its progress."""
    return []


@pytest.fixture(scope="session")
def drawn(steps: list[tuple[int, int]]) -> GlyphDrawings:
    return draw_glyphs(progress=lambda done, total: steps.append((done, total)))


@pytest.fixture(scope="session")
def faces() -> GlyphFaces:
    return read_glyph_faces()


@pytest.fixture(scope="session")
def few(faces: GlyphFaces) -> GlyphFaces:
    """The first three classes."""
    chosen = faces.classes < 3
    return GlyphFaces(
        faces.pictures[chosen],
        faces.classes[chosen],
        faces.faces[chosen],
        faces.class_names[:3],
        faces.groups[:3],
    )


def test_there_are_a_thousand_classes_of_twenty_drawings(drawn: GlyphDrawings):
    num_classes = len(drawn.class_names)
    assert num_classes >= 1000
    assert len(set(drawn.class_names)) == len(drawn.groups) == num_classes
    assert drawn.examples.shape == (num_classes * DRAWINGS, 1, 28, 28)
    assert drawn.examples.dtype == np.uint8
    assert drawn.labels.dtype == np.int64
    np.testing.assert_array_equal(drawn.labels, np.repeat(np.arange(num_classes), DRAWINGS))


def test_names_are_the_group_and_the_unicode_name(drawn: GlyphDrawings):
    for name, group in zip(drawn.class_names, drawn.groups, strict=True):
        assert name.startswith(f"{group}/")
        assert len(character(name)) == 1


def test_every_class_has_enough_faces(faces: GlyphFaces):
    pairs = np.stack([faces.classes, faces.faces], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert np.bincount(faces.classes).min() >= MIN_FACES
    assert len(np.bincount(faces.classes)) == len(faces.class_names)
    assert set(faces.faces.tolist()) == set(range(len(FACES)))
    assert (np.diff(faces.classes) >= 0).all()


def test_clean_pictures_fill_their_frame(faces: GlyphFaces):
    assert faces.pictures.shape[1:] == (INK_SIDE, INK_SIDE)
    ink = faces.pictures > 0
    longer = np.maximum(extent(ink.any(axis=1)), extent(ink.any(axis=2)))
    # An edge that is all but white may round to none.
    assert longer.min() >= INK_SIDE - 2


def test_no_drawing_is_empty_or_clipped(drawn: GlyphDrawings):
    pictures = drawn.examples[:, 0]
    assert (pictures > 127).sum(axis=(1, 2)).min() >= 8
    assert pictures[:, [0, -1]].max() == 0
    assert pictures[:, :, [0, -1]].max() == 0
    spans = [extent(pictures.any(axis=axis)) for axis in (1, 2)]
    longer = np.maximum(*spans)
    assert longer.min() >= 13
    assert 19 <= np.median(longer) <= 23


def test_the_drawings_of_a_class_differ(drawn: GlyphDrawings):
    assert len(np.unique(drawn.examples.reshape(len(drawn.examples), -1), axis=0)) == len(
        drawn.examples
    )


def test_a_seed_gives_the_same_drawings(drawn: GlyphDrawings, faces: GlyphFaces):
    # `drawn` has read the fonts on its own.
    again = draw_by_hand(faces, seed=0)
    np.testing.assert_array_equal(again.examples, drawn.examples)
    assert again.class_names == drawn.class_names
    assert again.groups == drawn.groups


def test_another_seed_gives_other_drawings(few: GlyphFaces):
    first, second = (draw_by_hand(few, seed=seed).examples for seed in (0, 1))
    assert (first != second).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    "alike",
    ["AΑАᴀ", "CcСсϹϲᴄ", "OoΟοОоՕօᴏ", "SsЅѕꜱՏ", "ZΖzᴢ", "HНΗʜ", "XxΧХх", "Жж", "Яя", "ЩщШш"],
)
def test_look_alikes_are_one_class(faces: GlyphFaces, alike: str):
    shown = [character(name) for name in faces.class_names]
    shapes = 2 if alike == "ЩщШш" else 1
    assert len([c for c in shown if c in alike]) == shapes


def test_a_letter_is_not_a_class_beside_its_capital_of_the_same_shape(faces: GlyphFaces):
    shown = {character(name) for name in faces.class_names}
    assert not shown & set("cosvwxzвгджзийклнцчшщъыьэюя")
    assert shown >= set("fkrt")


def test_no_two_classes_look_alike_in_a_face(faces: GlyphFaces):
    for face in range(len(FACES)):
        rows = np.flatnonzero(faces.faces == face)
        assert (least_differences(faces, rows, rows) >= [MIN_DIFFERENCE, MIN_TEST_DIFFERENCE]).all()


def test_no_two_classes_look_alike_across_faces(faces: GlyphFaces):
    everything = np.arange(len(faces.pictures))
    some = np.random.default_rng(0).choice(everything, 1000, replace=False)
    least = least_differences(faces, some, everything)
    assert (least >= [MIN_DIFFERENCE, MIN_TEST_DIFFERENCE]).all()


def test_differences_ignore_weight_and_count_ink():
    thin, bold, dotted = np.zeros((3, INK_SIDE, INK_SIDE), dtype=np.uint8)
    thin[:, 20:22] = 255
    bold[:, 18:24] = 255
    dotted[:, 20:22] = 255
    dotted[4:8, 30:34] = 255
    apart = differences(np.stack([thin, bold]), np.stack([thin, bold, dotted]))
    np.testing.assert_array_equal(apart, [[0, 0, 4], [0, 0, 4]])


def test_splits_are_disjoint_and_cover_every_group(drawn: GlyphDrawings):
    assert set(GLYPH_SPLITS) == {"train", "val", "test"}
    groups = [group for split in GLYPH_SPLITS.values() for group in split]
    assert len(groups) == len(set(groups))
    assert set(groups) == set(drawn.groups)
    counts = {s: sum(g in groups for g in drawn.groups) for s, groups in GLYPH_SPLITS.items()}
    assert counts["train"] >= 700
    assert counts["val"] >= 100
    assert counts["test"] >= 170


def test_pixels_alone_are_right_about_every_second_time(drawn: GlyphDrawings):
    """5-way 1-shot on the validation groups: neither solved by overlap nor beyond it."""
    rng = np.random.default_rng(0)
    classes = [c for c, group in enumerate(drawn.groups) if group in GLYPH_SPLITS["val"]]
    pictures = drawn.examples.reshape(len(drawn.class_names), DRAWINGS, -1).astype(np.float32)
    right = []
    for _ in range(300):
        episode = np.stack(
            [rng.permutation(pictures[c]) for c in rng.choice(classes, 5, replace=False)]
        )
        apart = ((episode[:, 1:, None] - episode[:, 0]) ** 2).sum(axis=-1)
        right.append((apart.argmin(axis=-1) == np.arange(5)[:, None]).mean())
    assert 0.45 <= np.mean(right) <= 0.58


def test_a_larger_picture_is_the_same_drawing_with_more_pixels(few: GlyphFaces):
    small = draw_by_hand(few, drawings=4, size=28).examples.astype(float)
    large = draw_by_hand(few, drawings=4, size=56).examples.astype(float)
    assert large.shape == (12, 1, 56, 56)
    pooled = large.reshape(12, 1, 28, 2, 28, 2).mean(axis=(3, 5))
    assert np.abs(pooled - small).mean() < 0.05 * small.mean()


def test_progress_counts_every_step(drawn: GlyphDrawings, steps: list[tuple[int, int]]):
    total = steps[-1][1]
    assert total > NUM_STEPS
    assert steps == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"drawings": 0}])
def test_nothing_to_draw_is_an_error(few: GlyphFaces, wrong: dict[str, int]):
    with pytest.raises(ValueError, match="at least 1"):
        draw_by_hand(few, **wrong)


def character(class_name: str) -> str:
    return unicodedata.lookup(class_name.partition("/")[2])


def least_differences(faces: GlyphFaces, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of two classes, and of a test class and another one."""
    apart = differences(faces.pictures[rows], faces.pictures[others])
    apart[faces.classes[rows][:, None] == faces.classes[others]] = np.inf
    tested = np.isin(faces.groups, GLYPH_SPLITS["test"])[faces.classes]
    across = apart[tested[rows]][:, ~tested[others]]
    return np.array([apart.min(), across.min(initial=np.inf)])


def extent(seen: np.ndarray) -> np.ndarray:
    """From the first to the last true column, (n, columns) to (n,)."""
    return seen.shape[1] - seen.argmax(axis=1) - seen[:, ::-1].argmax(axis=1)

"""Clean pictures of letters and signs from the fonts of matplotlib, every class a shape."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "FACES",
    "GLYPH_SPLITS",
    "INK_SIDE",
    "MIN_DIFFERENCE",
    "MIN_FACES",
    "MIN_TEST_DIFFERENCE",
    "NUM_STEPS",
    "GlyphFaces",
    "differences",
    "read_glyph_faces",
]

# Every face here follows Unicode. The Computer Modern files have encodings of their own, where a
# code point may show another sign, and the display and size variants hold a handful of signs.
FACES: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
)
"""Font files, without their suffix."""

GLYPH_SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("latin", "greek", "mathematics", "braille", "arrows", "digits"),
        "val": ("cyrillic", "currency"),
        "test": ("georgian", "armenian", "lao"),
    }
)
"""Groups of each split: whole scripts, so that no test alphabet is seen in training."""

ALPHABETS = frozenset({"latin", "greek", "cyrillic", "georgian", "armenian", "lao"})
SIGN_RANGES: Mapping[str, tuple[range, ...]] = MappingProxyType(
    {
        "arrows": (range(0x2190, 0x2200), range(0x27F0, 0x2800), range(0x2900, 0x2980)),
        "mathematics": (range(0x2200, 0x2300), range(0x2A00, 0x2B00)),
        "braille": (range(0x2800, 0x2900),),
    }
)

MIN_FACES = 8
"""Fewest faces that show a class. For signs some of them share one drawing."""

EM_SIDE = 96  # pixels an em, so that most characters are made smaller to fit, not larger
INK_SIDE = 42
"""Side of a clean picture, which the longer side of its ink fills: two cells a pixel of a 28 x 28
picture, where a character is about 21 pixels long."""

TOLERANCE = 2  # cells, that is one pixel of a 28 x 28 picture
MIN_DIFFERENCE = 8.0
"""Least ink, in pixels of a 28 x 28 picture, in which pictures of two classes differ.

Measured on 1,769 characters of which only the equal had been merged, as a prototypical network sees
their drawings: how often one is taken for the wrong of two characters when ten drawings of each are
known. Of pairs that differ by less than 4 pixels it is 24 %, by 4 to 6 19 %, by 6 to 8 15 %, by 8
to 10 9.5 %, by 20 to 30 1.4 %. So from 8 pixels on a character is told from another nine times in
ten. Below are letters that differ in size, and accents of one place that differ in slant (caron and
circumflex); just above, other accents (acute and caron) and a dot or a stroke more.
"""

MIN_TEST_DIFFERENCE = 15.0
"""The same for a class of the test split and one of another. Up to here lie pairs that a person may
call one shape in two hands (Georgian Har and Latin Q, Armenian Tiwn and Latin S), and no shape of a
test is to be seen before it; from here on pairs like Armenian Ho, which is an h, and Latin b."""

NUM_BLOCKS = 64
NUM_STEPS = len(FACES) + NUM_BLOCKS
"""Steps of `read_glyph_faces`, as it reports its progress."""


class GlyphFaces(NamedTuple):
    """Every class as its faces show it: centred, the longer side of the ink filling the picture.

    Attributes:
        pictures: (num_pictures, INK_SIDE, INK_SIDE) uint8, ink = 255 on 0; those of a class are
            contiguous.
        classes: (num_pictures,) int64, class of each picture, ascending.
        faces: (num_pictures,) int64, index into `FACES`.
        class_names: group and Unicode name of each class, `"greek/GREEK SMALL LETTER BETA"`.
        groups: script or family of signs of each class, as in `GLYPH_SPLITS`.
    """

    pictures: np.ndarray
    classes: np.ndarray
    faces: np.ndarray
    class_names: tuple[str, ...]
    groups: tuple[str, ...]


def read_glyph_faces(progress: Callable[[int, int], None] | None = None) -> GlyphFaces:
    """Read every character that enough faces show and that looks like no other.

    Characters are taken in the order of `_characters`: test groups first, small groups first. A
    picture that looks like one of a class already taken (see `differences`), in whatever face, is
    not used; a character left with fewer than `MIN_FACES` pictures is not a class. So a shape that
    several scripts share (Latin A, Greek Alpha, Cyrillic A) is in one class and one split alone.

    Args:
        progress: called with the numbers of steps done and in all.

    Raises:
        FileNotFoundError: matplotlib's fonts are not where it says.
    """
    steps = iter(range(1, NUM_STEPS + 1))

    def step() -> None:
        if progress is not None:
            progress(next(steps), NUM_STEPS)

    fonts = [_font_path(face) for face in FACES]
    shown = [frozenset(FT2Font(str(font)).get_charmap()) for font in fonts]
    groups = _characters(shown)
    characters = list(groups)
    clean: dict[tuple[int, int], np.ndarray] = {}
    for face, font in enumerate(fonts):
        for number, picture in _clean_pictures(font, characters, shown[face]):
            clean[number, face] = picture
        step()
    small = _scaled_capitals(characters, clean)
    rows = sorted(row for row in clean if row[0] not in small)
    owners, faces = np.array(rows).T
    pictures = np.stack([clean[row] for row in rows])

    tested = [groups[character] in GLYPH_SPLITS["test"] for character in characters]
    kept = _distinct(pictures, owners, np.array(tested)[owners], step)
    taken, classes = np.unique(owners[kept], return_inverse=True)
    chosen = [characters[number] for number in taken.tolist()]
    return GlyphFaces(
        pictures=pictures[kept],
        classes=classes.astype(np.int64),
        faces=faces[kept].astype(np.int64),
        class_names=tuple(f"{groups[c]}/{unicodedata.name(c)}" for c in chosen),
        groups=tuple(groups[c] for c in chosen),
    )


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much ink of two pictures lies apart, whatever the weight of their strokes.

    The area of the ink of the one that is farther than `TOLERANCE` from any ink of the other, and
    the reverse, summed. A bold and a light picture of a shape, or two that differ by the rounding
    of a corner, are at 0; an accent more costs its area.

    Args:
        first: (n, INK_SIDE, INK_SIDE) uint8.
        second: (m, INK_SIDE, INK_SIDE) uint8.

    Returns:
        (n, m) float32, in pixels of a 28 x 28 picture.
    """
    ink, reach = _ink_and_reach(first)
    other_ink, other_reach = _ink_and_reach(second)
    return _missed(np.hstack([ink, reach]), np.hstack([other_reach, other_ink]))


def _font_path(face: str) -> Path:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the font {face} that comes with matplotlib at {path}, found no such file. "
            "Install matplotlib from PyPI (some distributions take its fonts out)."
        )
    return path


def _characters(shown: Sequence[frozenset[int]]) -> dict[str, str]:
    """Group of each character that enough faces show, in the order of the right to a shape.

    Test groups come before validation and training groups, which are larger; in a split the group
    of the fewest characters comes first, and in a group the lowest code point.
    """
    counts = Counter(point for points in shown for point in points)
    groups = {
        chr(point): group
        for point, count in sorted(counts.items())
        if count >= MIN_FACES and (group := _group(chr(point))) is not None
    }
    sizes = Counter(groups.values())
    by_right = sorted(
        (("test", "val", "train").index(split), sizes[group], group)
        for split, members in GLYPH_SPLITS.items()
        for group in members
    )
    return {
        character: group
        for _, _, group in by_right
        for character in groups
        if groups[character] == group
    }


def _group(character: str) -> str | None:
    """Script or family of signs; None for what makes no class of its own.

    Marks that combine, modifier letters, small capitals, punctuation and digits beyond 0 to 9 have
    none; nor do letters with two marks or more (Vietnamese, ancient Greek), for which 28 pixels
    leave two or three to a mark.
    """
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if "SMALL CAPITAL" in name or len(unicodedata.normalize("NFD", character)) > 2:
        return None
    script = name.partition(" ")[0].lower()
    if category in {"Lu", "Ll", "Lo"}:
        return script if script in ALPHABETS else None
    if category == "Nd":
        return "digits" if character.isascii() else None
    if category == "Sc":
        return "currency"
    if category in {"Sm", "So"}:
        for group, ranges in SIGN_RANGES.items():
            if any(ord(character) in points for points in ranges):
                return group
    return None


def _clean_pictures(
    font: Path, characters: Sequence[str], shown: frozenset[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and picture of each character that a font shows with any ink."""
    face = ImageFont.truetype(font, EM_SIDE, layout_engine=ImageFont.Layout.BASIC)
    for number, character in enumerate(characters):
        if ord(character) not in shown:
            continue
        left, top, right, bottom = face.getbbox(character)
        drawn = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
        ImageDraw.Draw(drawn).text((1 - left, 1 - top), character, fill=255, font=face)
        if drawn.getbbox() is None:
            continue
        box = _ink_box(drawn)
        width, height = box[2] - box[0], box[3] - box[1]
        scale = INK_SIDE / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        fitted = drawn.resize((width, height), Image.Resampling.BOX, box=box)
        picture = Image.new("L", (INK_SIDE, INK_SIDE))
        picture.paste(fitted, ((INK_SIDE - width) // 2, (INK_SIDE - height) // 2))
        yield number, np.asarray(picture)


def _ink_box(image: Image.Image) -> tuple[int, int, int, int]:
    box = image.getbbox()
    if box is None:
        raise ValueError("Expected a picture with ink on it, got an empty one.")
    return box


def _scaled_capitals(
    characters: Sequence[str], clean: Mapping[tuple[int, int], np.ndarray]
) -> set[int]:
    """Numbers of the small letters that are their capitals written smaller, as c, z and ж are.

    Most differ from them in proportions alone, which a hand does not keep: each is stretched to its
    capital's before the two are compared. Of letters with a mark the letters without are compared.
    """
    numbers = {character: number for number, character in enumerate(characters)}
    found = set()
    for character, number in numbers.items():
        letters = [unicodedata.normalize("NFD", c)[0] for c in (character, character.upper())]
        if letters[0] == letters[1] or not numbers.keys() >= {*letters, character.upper()}:
            continue
        pairs = [
            (clean[small], clean[capital])
            for face in range(len(FACES))
            if (small := (numbers[letters[0]], face)) in clean
            and (capital := (numbers[letters[1]], face)) in clean
        ]
        stretched = np.stack([_stretched(picture, like=capital) for picture, capital in pairs])
        apart = differences(stretched, np.stack([capital for _, capital in pairs])).diagonal()
        if (apart >= MIN_DIFFERENCE).sum() < MIN_FACES:
            found.add(number)
    return found


def _stretched(picture: np.ndarray, *, like: np.ndarray) -> np.ndarray:
    """The picture with its ink as wide and as high as another's, and in the same place."""
    box = _ink_box(Image.fromarray(like))
    image = Image.fromarray(picture)
    stretched = Image.new("L", image.size)
    stretched.paste(
        image.resize(
            (box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR, box=_ink_box(image)
        ),
        box[:2],
    )
    return np.asarray(stretched)


def _distinct(
    pictures: np.ndarray, owners: np.ndarray, tested: np.ndarray, step: Callable[[], None]
) -> np.ndarray:
    """Which pictures to use, (num_pictures,) bool, so that no two classes look alike.

    Blocks of characters make the comparison large matrix products; within a block the characters
    are taken one by one.
    """
    kept = np.zeros(len(pictures), dtype=bool)
    taken = np.empty((len(pictures), 2 * (INK_SIDE // 2) ** 2), dtype=np.float32)
    for block in np.array_split(np.unique(owners), NUM_BLOCKS):
        rows = np.flatnonzero(np.isin(owners, block))
        ink, reach = _ink_and_reach(pictures[rows])
        covering, covered = np.hstack([ink, reach]), np.hstack([reach, ink])
        alike = _alike(covering, taken[: kept.sum()], tested[rows], tested[kept]).any(axis=1)
        alike_here = _alike(covering, covered, tested[rows], tested[rows])
        used = np.zeros(len(rows), dtype=bool)
        for owner in block:
            chosen = (owners[rows] == owner) & ~alike & ~alike_here[:, used].any(axis=1)
            if chosen.sum() >= MIN_FACES:
                used |= chosen
        taken[kept.sum() : kept.sum() + used.sum()] = covered[used]
        kept[rows[used]] = True
        step()
    return kept


def _alike(
    covering: np.ndarray, covered: np.ndarray, tested: np.ndarray, other_tested: np.ndarray
) -> np.ndarray:
    needed = np.where(
        tested[:, None] == other_tested,
        np.float32(MIN_DIFFERENCE),
        np.float32(MIN_TEST_DIFFERENCE),
    )
    return _missed(covering, covered) < needed


def _ink_and_reach(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of each pixel that are ink, and that lie within `TOLERANCE` of ink.

    Two (n, pixels) float32, of pixels two cells wide: their quarters are exact, so that every sum
    of their products is exact too, and the choice of classes the same on every machine.
    """
    ink = np.pad(pictures > 127, ((0, 0), (TOLERANCE, TOLERANCE), (TOLERANCE, TOLERANCE)))
    side = pictures.shape[-1]
    moved = [
        ink[:, down : down + side, right : right + side]
        for down in range(2 * TOLERANCE + 1)
        for right in range(2 * TOLERANCE + 1)
        if (down - TOLERANCE) ** 2 + (right - TOLERANCE) ** 2 <= TOLERANCE**2
    ]
    ink, reach = pictures > 127, np.logical_or.reduce(moved)
    return _pixels(ink), _pixels(reach)


def _pixels(cells: np.ndarray) -> np.ndarray:
    cells = cells.view(np.uint8)
    sums = cells[:, ::2, ::2] + cells[:, 1::2, ::2] + cells[:, ::2, 1::2] + cells[:, 1::2, 1::2]
    return sums.reshape(len(cells), -1).astype(np.float32) / 4


def _missed(ink_then_reach: np.ndarray, reach_then_ink: np.ndarray) -> np.ndarray:
    """Ink of each picture out of reach of the other's, and the reverse, in one matrix product."""
    half = ink_then_reach.shape[1] // 2
    ink = ink_then_reach[:, :half].sum(axis=1)[:, None] + reach_then_ink[:, half:].sum(axis=1)
    return ink - ink_then_reach @ reach_then_ink.T

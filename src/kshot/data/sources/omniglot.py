"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn by 20 people."""

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kshot.data.cache import Progress, cache_folder, cached_arrays
from kshot.data.dataset import LabelledDataset
from kshot.data.download import download
from kshot.data.files import FileTree, open_files
from kshot.data.pictures import Resample, prepare_pictures
from kshot.data.splits import LabelledSplits, split_classes
from kshot.options import checks_options

__all__ = ["OMNIGLOT_PROTOCOLS", "OmniglotProtocol", "omniglot"]

ClassLists = dict[str, list[str]]

_PARTS = {
    # The digests are those of the official archives; 964 and 659 are their characters.
    "images_background": ("68d2efa1b9178cc56df9314c21c6e718", 964),
    "images_evaluation": ("6b91aef0f799c5bb55b94e3f2daec811", 659),
}
_MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
)
_DRAWERS = 20


@checks_options
def omniglot(
    *,
    protocol: Literal[
        "vinyals", "maml1100", "random1200", "reptile1200", "santoro1200", "lake"
    ] = "vinyals",
    root: Path | None = None,
    size: int = 28,
) -> LabelledSplits:
    """Omniglot under one of its published protocols.

    A protocol fixes the classes of each split, in which splits a quarter turn of a character is a
    class of its own, whether ink is 1 or 0, and how pictures are made smaller; accuracies under
    different protocols do not compare. All of it is in memory once, whatever the rotations.

    | protocol | train / val / test characters | turns are classes in | ink | made smaller |
    | --- | --- | --- | --- | --- |
    | vinyals | 1028 / 172 / 423, published lists | train, val, test | 1 | 1-bit, nearest |
    | maml1100 | 1100 / 100 / 423 at random | train, val, test | 1 | 1-bit, nearest |
    | random1200 | 1200 / - / 423 at random | train | 0 | grey, Lanczos |
    | reptile1200 | 1200 / - / 423 at random | train | 0 | 1-bit, nearest |
    | santoro1200 | 1200 / - / 423 at random | train, test | 1 | grey, bilinear |
    | lake | 964 / - / 659, background and evaluation | train, test | 1 | grey, bilinear |

    Args:
        protocol: Published way to split and prepare the data: "vinyals" (Matching and Prototypical
            Networks), "maml1100" (MAML and its descendants), "random1200" (Relation Network),
            "reptile1200" (Reptile), "santoro1200" (MANN), "lake" (the two official archives).
        root: Folder with images_background.zip and images_evaluation.zip, or with these two
            unpacked. When it is not given: the folder omniglot in $KSHOT_DATA if it is there, else
            they are downloaded once (16 MB).
        size: Side of the pictures in pixels; 28 in all papers but MANN's, which has 20.

    Returns:
        Splits whose classes are called "Alphabet/characterNN", turned ones
        "Alphabet/characterNN@90", in groups by alphabet.

    Raises:
        FileNotFoundError: when `root` lacks an archive.
        ValueError: when an archive is damaged or incomplete.

    Note:
        - The authors of MAML, Relation Network and MANN shuffle characters in the order their file
          system lists them, which cannot be reproduced. Here Python's `random.seed(1)` shuffles the
          sorted list, so the sizes are theirs and the lists are not; the three have the same test
          characters. Reptile sorts before it shuffles with seed 0: its lists are reproduced.
        - MAML's authors ask for a Lanczos filter, but save pictures of one bit, which Pillow
          resizes with "nearest".
        - MAML draws a quarter turn for each class of an episode, train and test; here turns are
          classes, so that an episode can, rarely, hold two turns of one character. Relation Network
          turns all pictures of an episode alike, which never makes a new class at test time: its
          test classes are not turned here.
        - The two papers that use "lake" prepare pictures in ways of their own; here they are made
          smaller by an averaging filter, like theirs. MANN's does not say how.

    Reference:
        Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program
        induction. Science, 2015. https://github.com/brendenlake/omniglot
    """
    if protocol not in OMNIGLOT_PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(OMNIGLOT_PROTOCOLS)}, not {protocol!r}."
        )
    rules = OMNIGLOT_PROTOCOLS[protocol]
    preparation: dict[str, Any] = {
        "size": size,
        "channels": 1,
        "resample": rules.resample,
        "invert": rules.ink_is_one,
        "bilevel": rules.bilevel,
        "fit": "stretch",
    }
    data, background = _read(root, preparation)
    splits = split_classes(data, rules.lists(data.class_names, background))
    return LabelledSplits(
        name="omniglot",
        protocol=protocol,
        splits={
            split: classes.with_rotations() if split in rules.rotated else classes
            for split, classes in splits.items()
        },
        preparation=preparation,
    )


@dataclass(frozen=True)
class OmniglotProtocol:
    """What a protocol fixes.

    Attributes:
        lists: the classes of each split, given all classes in sorted order and the set of those in
            the background archive.
        rotated: splits in which every quarter turn is a class.
        ink_is_one: whether strokes are 1 on 0, or 0 on 1.
        resample: filter of the resizing.
        bilevel: whether pictures are black and white when they are resized.
    """

    lists: Callable[[Sequence[str], frozenset[str]], ClassLists]
    rotated: tuple[str, ...]
    ink_is_one: bool
    resample: Resample
    bilevel: bool


def _vinyals(names: Sequence[str], background: frozenset[str]) -> ClassLists:
    """The lists published with Prototypical Networks, kept as ranges of characters."""
    source = package_files("kshot.data") / "protocols" / "omniglot_vinyals.json"
    ranges: Mapping[str, Mapping[str, tuple[int, int]]] = json.loads(source.read_text("utf-8"))
    return {
        split: [
            f"{alphabet}/character{number:02d}"
            for alphabet, (first, last) in alphabets.items()
            for number in range(first, last + 1)
        ]
        for split, alphabets in ranges.items()
    }


def _shuffled(seed: int, **counts: int) -> Callable[[Sequence[str], frozenset[str]], ClassLists]:
    """All characters in sorted order, shuffled and cut into splits of the given sizes."""

    def lists(names: Sequence[str], background: frozenset[str]) -> ClassLists:
        order = list(names)
        random.Random(seed).shuffle(order)
        remaining = iter(order)
        return {split: [next(remaining) for _ in range(n)] for split, n in counts.items()}

    return lists


def _lake(names: Sequence[str], background: frozenset[str]) -> ClassLists:
    return {
        "train": [name for name in names if name in background],
        "test": [name for name in names if name not in background],
    }


OMNIGLOT_PROTOCOLS: dict[str, OmniglotProtocol] = {
    "vinyals": OmniglotProtocol(_vinyals, ("train", "val", "test"), True, "nearest", True),
    "maml1100": OmniglotProtocol(
        _shuffled(1, train=1100, val=100, test=423), ("train", "val", "test"), True, "nearest", True
    ),
    "random1200": OmniglotProtocol(
        _shuffled(1, train=1200, test=423), ("train",), False, "lanczos", False
    ),
    "reptile1200": OmniglotProtocol(
        _shuffled(0, train=1200, test=423), ("train",), False, "nearest", True
    ),
    "santoro1200": OmniglotProtocol(
        _shuffled(1, train=1200, test=423), ("train", "test"), True, "bilinear", False
    ),
    "lake": OmniglotProtocol(_lake, ("train", "test"), True, "bilinear", False),
}
"""The published protocols, by name."""


def _read(
    root: Path | None, preparation: Mapping[str, Any]
) -> tuple[LabelledDataset, frozenset[str]]:
    """All characters in sorted order, and the names of those of the background archive."""
    with ExitStack() as stack:
        parts = [stack.enter_context(open_files(path)) for path in _locate(root)]

        def build(progress: Progress) -> Mapping[str, Any]:
            return _build(parts, preparation, progress)

        key = {"parts": [part.digest() for part in parts], "preparation": dict(preparation)}
        stored = cached_arrays("omniglot", {**key, "version": 1}, build)
    names = stored["class_names"]
    alphabets = [name.split("/")[0] for name in names]
    data = LabelledDataset.from_labels(stored["examples"], stored["labels"], names, alphabets)
    return data, frozenset(stored["background"])


def _locate(root: Path | None) -> list[Path]:
    """The two archives, or folders with their content, in the order of `_PARTS`."""
    if root is not None:
        return [_found(root.expanduser(), part) for part in _PARTS]
    hint = "Or put both archives into a folder and name it with the option root."
    if shared := os.environ.get("KSHOT_DATA"):
        folder = Path(shared).expanduser() / "omniglot"
        if folder.is_dir():
            return [_found(folder, part) for part in _PARTS]
        hint += f" KSHOT_DATA is {shared}, where there is no folder omniglot."
    return [
        download(
            "omniglot",
            f"{part}.zip",
            [f"{mirror}{part}.zip" for mirror in _MIRRORS],
            folder=cache_folder() / "downloads" / "omniglot",
            md5=md5,
            hint=hint,
        )
        for part, (md5, _) in _PARTS.items()
    ]


def _found(folder: Path, part: str) -> Path:
    for path in (folder / f"{part}.zip", folder / part):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"There is no {part}.zip in {folder}. It must hold images_background.zip and "
        "images_evaluation.zip, the official archives of Omniglot, or the two unpacked."
    )


def _build(
    parts: Sequence[FileTree], preparation: Mapping[str, Any], progress: Progress
) -> Mapping[str, Any]:
    """Read every drawing of both archives."""
    pictures, names, background = [], [], []
    total = sum(count for _, count in _PARTS.values()) * _DRAWERS
    for files, (part, (_, characters)) in zip(parts, _PARTS.items(), strict=True):
        drawings = [name for name in files.names if name.endswith(".png")]
        found = {_class_name(name) for name in drawings}
        if len(found) != characters or len(drawings) != characters * _DRAWERS:
            raise ValueError(
                f"{files.path} must hold {characters} characters with {_DRAWERS} drawings each, "
                f"and has {len(found)} with {len(drawings)} drawings in all: it is not the "
                f"official {part}, or incomplete."
            )
        before = sum(map(len, pictures))
        array, failures = prepare_pictures(
            files,
            drawings,
            lambda done, _, before=before: progress(before + done, total),
            **preparation,
        )
        if failures:
            raise ValueError(
                f"{len(failures)} drawings cannot be read; download the archive again. First: "
                + next(iter(failures.values()))
            )
        pictures.append(array)
        names.extend(map(_class_name, drawings))
        background.extend(found if part == "images_background" else ())
    class_names = sorted(set(names), key=lambda name: name.split("/"))
    label = {name: number for number, name in enumerate(class_names)}
    return {
        "examples": np.concatenate(pictures),
        "labels": np.array([label[name] for name in names]),
        "class_names": class_names,
        "background": sorted(background),
    }


def _class_name(file: str) -> str:
    """Alphabet/characterNN of .../Alphabet/characterNN/0709_01.png."""
    return "/".join(file.split("/")[-3:-1])

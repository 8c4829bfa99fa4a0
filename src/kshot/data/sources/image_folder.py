"""A user's own pictures: a folder or zip archive with one folder of pictures for each class."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kshot.data.cache import Progress, cached_arrays
from kshot.data.dataset import LabelledDataset
from kshot.data.files import FileTree, find_data, open_files
from kshot.data.layout import find_layout, first_few
from kshot.data.pictures import Fit, Resample, prepare_pictures
from kshot.data.splits import LabelledSplits, split_classes, split_shares
from kshot.options import checks_options

__all__ = ["image_folder", "read_folder", "read_support"]

_RESAMPLE: Resample = "lanczos"


@checks_options
def image_folder(
    *,
    path: Path,
    size: int = 84,
    channels: Literal["auto", 1, 3] = "auto",
    fit: Fit = "crop",
    split_seed: int = 0,
    shares: tuple[float, float, float] = (0.6, 0.16, 0.24),
    lists: Path | None = None,
    unreadable: Literal["error", "skip"] = "error",
) -> LabelledSplits:
    """Pictures in one folder for each class, of any size and mode.

    The layout is found out: `class/picture.png`, or `group/class/picture.png` where all classes lie
    one folder deeper (alphabets, say: episodes can be drawn within a group), or the same below
    folders `train`, `val` and `test`; one more folder around everything does not matter. Pictures
    are read once and kept in the cache under a digest of their content.

    Args:
        path: Folder or zip archive with a folder of pictures for each class; a relative path is
            also looked for in $KSHOT_DATA.
        size: Side in pixels to which pictures are resized.
        channels: How pictures are read: 1 makes all of them grey, 3 gives all of them colour,
            "auto" takes colour when any picture has some, and says so when these are few.
        fit: How a picture becomes square: "crop" keeps its central square, "stretch" all of it.
        split_seed: Seed that deals the classes to the splits, unless folders or lists do.
        shares: Shares of the classes for training, validation and test; they sum to 1.
        lists: JSON file with the class names of each split, {"train": [...], "val": [...],
            "test": [...]}; classes in none of them are left out. Looked for like `path`.
        unreadable: What to do about pictures that cannot be read: "error" stops and lists them,
            "skip" leaves them out and says how many.

    Returns:
        Splits under the protocol "folders", "seed0-0.6-0.16-0.24" (seed and shares) or
        "lists-" with the first 8 digits of the sha256 of the lists.

    Raises:
        FileNotFoundError: when there is nothing at a path.
        ValueError: when the layout is unclear, a class has no picture, the archive is damaged, or a
            picture cannot be read; says which and how to mend it.

    Example:
        >>> splits = image_folder(path=Path("my_pictures"))  # doctest: +SKIP
        >>> splits.sampler("train", EpisodeConfig(way=5, shot=1), seed=0)  # doctest: +SKIP
    """
    path = find_data(path)
    data, stored_splits, preparation = read_folder(path, size, channels, fit, unreadable)
    protocol, splits = _split(data, stored_splits, path, lists, shares, split_seed)
    return LabelledSplits(
        name="image_folder", protocol=protocol, splits=splits, preparation=preparation
    )


def read_folder(
    path: Path,
    size: int,
    channels: Literal["auto", 1, 3],
    fit: Fit,
    unreadable: Literal["error", "skip"] = "error",
) -> tuple[LabelledDataset, Any, dict[str, Any]]:
    """All classes of a folder or archive, the splits its own folders make, the preparation.

    Arguments are those of `image_folder`.
    """
    with open_files(path) as files:

        def build(progress: Progress) -> Mapping[str, Any]:
            return _build(files, size, channels, fit, progress)

        key = {"files": files.digest(), "size": size, "channels": channels, "fit": fit}
        stored = cached_arrays("image_folder", {**key, "version": 1}, build)
    _report(stored, path, unreadable, channels)
    data = LabelledDataset.from_labels(
        stored["examples"], stored["labels"], stored["class_names"], stored["groups"]
    )
    preparation = {
        "size": size,
        "channels": stored["examples"].shape[1],
        "resample": _RESAMPLE,
        "invert": False,
        "bilevel": False,
        "fit": fit,
    }
    return data, stored["splits"], preparation


def read_support(path: Path, preparation: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
    """The few labelled pictures a user has: one folder for each class.

    Args:
        path: folder or zip archive with a folder of pictures for each class.
        preparation: how pictures become inputs, from the data a learner was trained on.

    Returns:
        uint8 (n, channels, size, size) and the class name of each.

    Raises:
        ValueError: when there is only one class, or a picture cannot be read.
    """
    with open_files(find_data(path)) as files:
        layout = find_layout(files)
        names = [name for members in layout.classes.values() for name in members]
        labels = [label for label, members in layout.classes.items() for _ in members]
        pictures, failures = prepare_pictures(files, names, lambda done, total: None, **preparation)
    if failures:
        raise ValueError(
            f"{len(failures)} of the {len(names)} pictures in {path} cannot be read: "
            f"{first_few(list(failures.values()))} Replace or remove them."
        )
    if len(layout.classes) < 2:
        raise ValueError(
            f"{path} has one class, {labels[0]!r}: there must be two or more, each a folder of "
            "pictures."
        )
    return pictures, labels


def _build(
    files: FileTree, size: int, channels: Literal["auto", 1, 3], fit: Fit, progress: Progress
) -> Mapping[str, Any]:
    """Read every picture; those that cannot be read are named, not raised."""
    layout = find_layout(files)
    names = [name for members in layout.classes.values() for name in members]
    labels = np.repeat(np.arange(len(layout.classes)), [*map(len, layout.classes.values())])
    pictures, failures = prepare_pictures(
        files,
        names,
        progress,
        size=size,
        channels=1 if channels == 1 else 3,
        resample=_RESAMPLE,
        fit=fit,
    )
    readable = np.array([name not in failures for name in names])
    if not readable.all():
        pictures, labels = pictures[readable], labels[readable]
    # A picture is grey when its channels agree everywhere, however it is stored.
    coloured = np.array([bool((picture != picture[:1]).any()) for picture in pictures])
    if channels == "auto" and not coloured.any():
        pictures = pictures[:, :1]
    return {
        "examples": pictures,
        "labels": labels,
        "class_names": list(layout.classes),
        "groups": layout.groups,
        "splits": layout.splits,
        "failures": list(failures.values()),
        "num_coloured": int(coloured.sum()),
    }


def _report(
    stored: Mapping[str, Any],
    path: Path,
    unreadable: Literal["error", "skip"],
    channels: Literal["auto", 1, 3],
) -> None:
    """Say what is wrong or unexpected with the pictures."""
    labels, failures = stored["labels"], stored["failures"]
    if failures:
        total = len(labels) + len(failures)
        found = f"{len(failures)} of the {total} pictures in {path} cannot be read"
        if unreadable == "error":
            raise ValueError(
                f"{found}: {first_few(failures)} Replace or remove them, or leave them out with "
                'unreadable="skip".'
            )
        left = np.bincount(labels, minlength=len(stored["class_names"]))
        lost = [stored["class_names"][c] for c in np.flatnonzero(left == 0)]
        if lost:
            raise ValueError(f"{found}, which leaves no picture of {first_few(lost)}.")
        warnings.warn(f"{found} and are left out: {first_few(failures)}", stacklevel=3)
    coloured = stored["num_coloured"]
    if channels == "auto" and 0 < coloured < len(labels) / 2:
        warnings.warn(
            f"{coloured} of the {len(labels)} pictures in {path} have colour, so all are read as "
            "colour. channels=1 reads all as grey; channels=3 keeps colour without this message.",
            stacklevel=3,
        )


def _split(
    data: LabelledDataset,
    folders: Sequence[str] | None,
    path: Path,
    lists: Path | None,
    shares: tuple[float, float, float],
    seed: int,
) -> tuple[str, dict[str, LabelledDataset]]:
    """The protocol's name, and the classes of each split that has any."""
    if lists is not None:
        text = find_data(lists).read_bytes()
        named = _parse_lists(text, lists)
        named = {split: names for split, names in named.items() if names}
        return f"lists-{hashlib.sha256(text).hexdigest()[:8]}", split_classes(data, named)
    if folders is not None:
        named = {
            split: [
                name for name, own in zip(data.class_names, folders, strict=True) if own == split
            ]
            for split in ("train", "val", "test")
            if split in folders
        }
        return "folders", split_classes(data, named)
    splits = split_shares(data, dict(zip(("train", "val", "test"), shares, strict=True)), seed)
    empty = [split for split, classes in splits.items() if not classes.num_classes]
    wanted = [split for split, share in zip(splits, shares, strict=True) if share > 0]
    if lost := [split for split in empty if split in wanted]:
        warnings.warn(
            f"The {data.num_classes} classes in {path} are too few for all splits: "
            f"{first_few(lost)} has none. Add classes, or change shares.",
            stacklevel=3,
        )
    return (
        "-".join([f"seed{seed}", *(f"{share:g}" for share in shares)]),
        {split: classes for split, classes in splits.items() if split not in empty},
    )


def _parse_lists(text: bytes, path: Path) -> dict[str, list[str]]:
    try:
        named = json.loads(text)
    except ValueError as error:
        raise ValueError(f"The class lists {path} are not valid JSON: {error}.") from error
    if not isinstance(named, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in named.values()
    ):
        raise ValueError(
            f'The class lists {path} must be {{"train": [names], "val": [names], ...}}.'
        )
    return named

"""How a folder of pictures is arranged: which file belongs to which class, group and split."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from kshot.data.files import FileTree

__all__ = ["PICTURE_SUFFIXES", "Layout", "find_layout", "first_few"]

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".ico", ".jp2", ".avif"),
)
"""Endings of the files that count as pictures; other files are left alone."""

_SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class Layout(NamedTuple):
    """Which file belongs to which class, and which class to which group and split.

    Attributes:
        classes: names of the classes, sorted, each with the names of its files.
        groups: for each class, the folder above its own, or None where there is none.
        splits: for each class, its split, or None when folders do not say.
    """

    classes: dict[str, list[str]]
    groups: list[str] | None
    splits: list[str] | None


def find_layout(files: FileTree) -> Layout:
    """Find out how pictures are arranged.

    Understands `class/picture` and `group/class/picture`, either below `train`, `val` and `test`,
    and more folders around everything. Files that are no pictures are left alone.

    Raises:
        ValueError: when the layout is unclear or a class folder has no picture.
    """
    pictures = [name for name in files.names if _suffix(name) in PICTURE_SUFFIXES]
    _check_folders(files, pictures)
    parts = {name: tuple(name.split("/")) for name in pictures}
    while _depth(parts) > 2 and len(_heads(parts)) == 1 and not _name_splits(parts):
        parts = {name: part[1:] for name, part in parts.items()}  # one folder around everything
    split_of: dict[str, str] | None = None
    if _depth(parts) > 2 and _name_splits(parts):
        split_of = _splits(parts, files)
        parts = {name: part[1:] for name, part in parts.items()}
    if _depth(parts) > 3:
        raise ValueError(
            f"The pictures in {files.path} lie too deep: {pictures[0]!r}. Expected class/picture "
            "or group/class/picture; give a folder further down."
        )
    classes: dict[str, list[str]] = {}
    for name, part in sorted(parts.items(), key=lambda item: item[1]):
        classes.setdefault("/".join(part[:-1]), []).append(name)
    return Layout(
        classes,
        [name.split("/")[0] for name in classes] if _depth(parts) == 3 else None,
        None if split_of is None else [split_of[name] for name in classes],
    )


def first_few(items: Sequence[str], count: int = 5) -> str:
    """The first items of a list, and how many more there are: a part of a message."""
    more = f" (and {len(items) - count} more)" if len(items) > count else ""
    return ", ".join(items[:count]) + more


def _check_folders(files: FileTree, pictures: Sequence[str]) -> None:
    """Every folder without subfolders is a class with pictures, and all lie equally deep."""
    if not pictures:
        raise ValueError(
            f"There is no picture in {files.path}. Expected one folder for each class with "
            f"pictures ({', '.join(PICTURE_SUFFIXES)}) inside."
        )
    parents = {folder.rpartition("/")[0] for folder in files.folders}
    with_pictures = {name.rpartition("/")[0] for name in pictures}
    empty = [f for f in files.folders if f not in parents and f not in with_pictures]
    if empty:
        raise ValueError(
            f"There is no picture in these folders of {files.path}: {first_few(empty)}. Every "
            "innermost folder is a class: add pictures, remove the folder, or give a folder "
            "further down."
        )
    highest, deepest = (end(pictures, key=lambda name: name.count("/")) for end in (min, max))
    if "/" not in highest or highest.count("/") < deepest.count("/"):
        raise ValueError(
            f"The pictures in {files.path} do not all lie in class folders of one depth: "
            f"{first_few(sorted({highest, deepest}))}. Put each picture into the folder of its "
            "class, and give the folder above these."
        )


def _splits(parts: dict[str, tuple[str, ...]], files: FileTree) -> dict[str, str]:
    """The split of each class, from the outermost folder."""
    split_of: dict[str, str] = {}
    for part in parts.values():
        name, split = "/".join(part[1:-1]), _SPLIT_FOLDERS[part[0]]
        if split_of.setdefault(name, split) != split:
            raise ValueError(
                f"Class {name!r} of {files.path} is in the splits {split_of[name]!r} and "
                f"{split!r}. A few-shot split has classes of its own: put all pictures of a class "
                "into one folder, without train and test folders around them, and the classes are "
                "dealt to the splits."
            )
    return split_of


def _name_splits(parts: dict[str, tuple[str, ...]]) -> bool:
    """Whether every outermost folder is called like a split."""
    return _heads(parts) <= _SPLIT_FOLDERS.keys()


def _heads(parts: dict[str, tuple[str, ...]]) -> set[str]:
    return {part[0] for part in parts.values()}


def _depth(parts: dict[str, tuple[str, ...]]) -> int:
    return len(next(iter(parts.values())))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()

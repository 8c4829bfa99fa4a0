"""A user's own examples, to learn from as they are: folders of pictures, tables of sentences."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from kshot.data.files import FileTree, find_data, open_files
from kshot.data.layout import PICTURE_SUFFIXES, Layout, find_layout, first_few
from kshot.data.sources.tables import TABLE_SUFFIXES, read_rows

__all__ = ["OwnExamples", "read_picture_folder", "read_table"]

_FOREIGN_PICTURES = (".heic", ".heif", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw")
"""Endings of pictures that are not read; whoever has them must hear it."""


class OwnExamples(NamedTuple):
    """Labelled examples, as an encoder reads them.

    Attributes:
        kind: what they are.
        inputs: the path of each picture (its content, from an archive), or each sentence.
        labels: the class of each.
        sources: where each came from, for people: a file's name below the folder, or the sentence.
        notes: sentences about what was left out and why.
    """

    kind: Literal["pictures", "text"]
    inputs: list[Path | bytes | str]
    labels: list[str]
    sources: list[str]
    notes: list[str]

    def without(self, places: set[int], notes: Sequence[str] = ()) -> "OwnExamples":
        """All but some of the examples, and what is to be said of that."""
        kept = [place for place in range(len(self.labels)) if place not in places]
        return OwnExamples(
            self.kind,
            [self.inputs[place] for place in kept],
            [self.labels[place] for place in kept],
            [self.sources[place] for place in kept],
            [*self.notes, *notes],
        )


def read_picture_folder(
    path: Path, *, label: str | None = None, one_class: bool = False
) -> OwnExamples:
    """The pictures in the class folders of a folder or zip archive.

    Understands what `image_folder` does. Files that are no pictures are left out with a note;
    pictures are not opened, save those of an archive, whose content is held in memory. Names of
    classes are brought to one form of Unicode (NFC): the same name from a Mac and from elsewhere is
    the same class.

    Args:
        path: folder or archive; a relative path is also looked for in $KSHOT_DATA.
        label: the class of all pictures, when there is one only; by default its folder's name.
        one_class: whether pictures may lie in `path` itself, which is a class then.

    Raises:
        FileNotFoundError: when there is nothing at the path.
        ValueError: when the layout is unclear, or a label is given for several classes.
    """
    path = find_data(path)
    inputs: list[Path | bytes | str] = []
    labels: list[str] = []
    sources: list[str] = []
    with open_files(path) as files:
        layout = _layout(files, one_class)
        classes = list(layout.classes)
        if label is not None and len(classes) > 1:
            raise ValueError(
                f"{path} has {len(classes)} classes ({first_few(classes)}), and a label is for a "
                "folder of pictures of one class. Leave the label out, or give one class's folder."
            )
        notes = _left_out(files, layout, label)
        for own_name, names in layout.classes.items():
            before = len(labels)
            for name in names:
                try:
                    content = path / name if path.is_dir() else files.read(name)
                except OSError as error:
                    notes.append(f"{name} cannot be read: {error}. It is left out.")
                    continue
                inputs.append(content)
                labels.append(_one_form(own_name if label is None else label))
                sources.append(name if "/" in name else f"{own_name}/{name}")
            if len(labels) == before:
                notes.append(f"No picture of {own_name!r} can be read: the class is left out.")
    if layout.splits is not None:
        notes.append(f"The folders {', '.join(sorted(set(layout.splits)))} are read together.")
    return OwnExamples("pictures", inputs, labels, sources, notes)


def read_table(path: Path, *, text: str = "text", label: str = "label") -> OwnExamples:
    """The sentences in a table, with their classes.

    Args:
        path: .csv (commas), .tsv (tabs) or .jsonl (an object a line), in UTF-8 with or without a
            byte-order mark; a relative path is also looked for in $KSHOT_DATA.
        text: the column of sentences.
        label: the column of classes. Numbers are taken as text.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for another kind of file, a missing column or a damaged row; says which.
    """
    path = find_data(path)
    inputs: list[Path | bytes | str] = []
    labels: list[str] = []
    without = {"row": 0, text: 0, label: 0}
    for row in read_rows(path, (text, label)):
        if not any(row.values()):
            without["row"] += 1
        elif not row[text]:
            without[text] += 1
        elif not row[label]:
            without[label] += 1
        else:
            inputs.append(row[text])
            labels.append(_one_form(row[label]))
    notes = [
        f"{count} row{'s' * (count != 1)} of {path.name} "
        + ("without anything" if what == "row" else f"without {what!r}")
        + f" {'is' if count == 1 else 'are'} left out."
        for what, count in without.items()
        if count
    ]
    if not inputs:
        raise ValueError(
            f"There is no row with a {text!r} and a {label!r} in {path}. Expected one row for each "
            f"example ({', '.join(TABLE_SUFFIXES)})."
        )
    return OwnExamples("text", inputs, labels, [str(sentence) for sentence in inputs], notes)


def _layout(files: FileTree, one_class: bool) -> Layout:
    """As `find_layout`, and where it is allowed, a folder that is itself a class."""
    if one_class:
        pictures = [name for name in files.names if _is_picture(name)]
        if pictures and not any("/" in name for name in pictures):
            name = files.path.resolve().name if files.path.is_dir() else files.path.stem
            return Layout({name: pictures}, None, None)
    return find_layout(files)


def _left_out(files: FileTree, layout: Layout, label: str | None) -> list[str]:
    """What there is among the pictures that is none."""
    class_of = {
        str(PurePosixPath(name).parent): own_name
        for own_name, names in layout.classes.items()
        for name in names
    }
    others: dict[tuple[str, bool], list[str]] = {}
    for name in files.names:
        if not _is_picture(name):
            foreign = PurePosixPath(name).suffix.lower() in _FOREIGN_PICTURES
            others.setdefault((str(PurePosixPath(name).parent), foreign), []).append(name)
    notes = []
    for (folder, foreign), names in others.items():
        own_name = class_of.get(folder)
        where = (
            f"in {files.path}"
            if own_name is None
            else f"among the pictures of {_one_form(own_name if label is None else label)!r}"
        )
        shown = first_few([PurePosixPath(name).name for name in names], 3)
        one = len(names) == 1
        if foreign:
            notes.append(
                f"{shown} {where} {'is' if one else 'are'} in a format that is not read: left out. "
                "Convert to .jpg or .png."
            )
        else:
            notes.append(
                f"{shown} {where} {'is not a picture' if one else 'are not pictures'}: left out."
            )
    return notes


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def _one_form(name: str) -> str:
    return unicodedata.normalize("NFC", name)

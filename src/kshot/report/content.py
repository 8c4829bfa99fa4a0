"""What a report says, whatever it is written in."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Block", "Code", "Picture", "Report", "Section", "Table", "Text"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain text.
    """

    text: str


@dataclass(frozen=True)
class Code:
    """Lines to be copied.

    Attributes:
        text: the lines.
    """

    text: str


@dataclass(frozen=True)
class Table:
    """A table of plain text.

    Attributes:
        columns: heads of the columns.
        rows: as many texts each as there are columns.
        title: what the table is of; a folded one is opened by it.
        folded: whether it is shown on demand only, where a format has that.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: file name without folder and ending, one of its own within the report.
        png: the file's bytes.
        title: what it shows.
    """

    name: str
    png: bytes
    title: str


Block = Text | Code | Table | Picture
"""A part of a section."""


@dataclass(frozen=True)
class Section:
    """A part of a report under one heading.

    Attributes:
        title: the heading.
        blocks: what stands under it.
    """

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        title: its heading.
        sections: its parts.
    """

    title: str
    sections: Sequence[Section]

"""A paper: what a learner comes from, as a reference and as BibTeX."""

import re
from dataclasses import dataclass

__all__ = ["Paper"]


@dataclass(frozen=True)
class Paper:
    """A published method.

    Attributes:
        authors: their names, given name first.
        title: as printed.
        venue: short name of the conference or journal; "" for a preprint.
        year: of publication there.
        url: where it can be read.
        booktitle: full name of the proceedings or journal; "" for a preprint.
        journal: whether that is a journal.

    Example:
        >>> Paper(("Ada Lovelace",), "On Engines", "", 1843, "https://example.org").reference
        'On Engines, 1843'
    """

    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    url: str
    booktitle: str = ""
    journal: bool = False

    @property
    def reference(self) -> str:
        """Title, venue and year in one line."""
        return f"{self.title}, {self.venue} {self.year}".replace(",  ", ", ")

    @property
    def key(self) -> str:
        """The citation key: first author's last name, year, first word of the title."""
        name = re.sub(r"\W", "", self.authors[0].split()[-1])
        words = [word for word in re.findall(r"\w+", self.title) if word.lower() not in _SMALL]
        return f"{name}{self.year}{words[0]}".lower()

    def bibtex(self) -> str:
        """The entry for a bibliography: author, title, where, year and url."""
        kind, where = "misc", f"  howpublished = {{{_preprint(self.url)}}},\n"
        if self.booktitle:
            kind, field = ("article", "journal") if self.journal else ("inproceedings", "booktitle")
            where = f"  {field} = {{{self.booktitle}}},\n"
        # Braces around the title keep its capitals.
        return (
            f"@{kind}{{{self.key},\n"
            f"  author = {{{' and '.join(self.authors)}}},\n"
            f"  title = {{{{{self.title}}}}},\n"
            f"{where}"
            f"  year = {{{self.year}}},\n"
            f"  url = {{{self.url}}},\n"
            "}"
        )


_SMALL = {"a", "an", "the", "on", "of", "how", "to"}


def _preprint(url: str) -> str:
    found = re.search(r"arxiv\.org/abs/([\d.]+)", url)
    return f"arXiv:{found[1]}" if found else "Preprint"

"""Write docs/papers.md from the registry and the results: `python -m studies papers`."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kshot.cli.tables import task_name
from kshot.learners.registry import LEARNERS, LearnerRow
from kshot.report.markdown import markdown_table

__all__ = ["BESIDE", "beside_papers", "main", "page", "rows_of"]

ROOT = Path(__file__).parents[1]
HEAD = """# Papers

What each learner is, where its numbers are, and what differs from the paper. The command
`python -m studies papers` writes this page from the registry and [results](../results);
`learner.citation()` gives BibTeX.
"""
BESIDE_HEAD = """## Beside the papers' figures

Every result that has a published figure of the same task, with the 95 % interval of the mean over
episodes, of one training. [What is fair to compare](compare.md) says what BatchNorm's policy and
the number of queries do to it.
"""
BESIDE = ["learner", "results", "task", "queries", "BatchNorm", "reached, %", "published, %"]
"""Columns of the table of figures."""


def main(arguments: list[str]) -> None:
    """Write the page."""
    (ROOT / "docs" / "papers.md").write_text(page(), encoding="utf-8")


def page() -> str:
    """docs/papers.md, as the registry and the results have it now."""
    learners = [
        [f"`{name}`", _paper(row), _results(name), row.notes] for name, row in LEARNERS.items()
    ]
    figures = [line for name in LEARNERS for line in beside_papers(name)]
    table = markdown_table(["learner", "paper", "results", "notes"], learners)
    return f"{HEAD}\n{table}\n\n{BESIDE_HEAD}\n{markdown_table(BESIDE, figures)}\n"


def beside_papers(name: str) -> list[list[str]]:
    """Lines of the results of a learner that have a published figure beside them."""
    return [
        [
            f"`{name}`",
            _link(path),
            task_name(row),
            str(row["query_shot"]),
            row["batch_norm"],
            f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}",
            f"{100 * row['published']['accuracy']:.1f}",
        ]
        for path, row in rows_of(name)
        if row["published"]
    ]


def rows_of(name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Result rows of a learner with their files; but not the pixel baseline beside other rows."""
    for path in sorted((ROOT / "results").glob("*/*.json")):
        if path.parent.name in ("benchmarks", "own_data", "optimizers", "verification"):
            continue
        rows = json.loads(path.read_text(encoding="utf-8"))
        for row in rows if isinstance(rows, list) else [rows]:
            beside = (row["learner"], row["backbone"]) == ("nearest_centroid", "flatten")
            if row["learner"] == name and not beside:
                yield path, row


def _paper(row: LearnerRow) -> str:
    if row.paper is None:
        return "-"
    where = f"{row.paper.venue} {row.paper.year}".strip()
    return f"[{row.paper.title}]({row.paper.url}), {where}"


def _results(name: str) -> str:
    found = dict.fromkeys(path for path, _ in rows_of(name))
    if found:
        return ", ".join(map(_link, found))
    for path in sorted((ROOT / "recipes").glob("*/*.toml")):
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        if recipe.get("learner", {}).get("name") == name and path.parent.name != "glyphs":
            return f"no row yet, `kshot train {path.parent.name}/{path.stem}`"
    return "no row yet"


def _link(path: Path) -> str:
    name = f"{path.parent.name}/{path.stem}"
    return f"[{name}](../results/{name}.json)"

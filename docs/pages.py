"""Pages of the site that are made from elsewhere: README, every learner's page, the API, results.

A hook of MkDocs (mkdocs.yml). Files outside docs/ that pages link to become files of the site, so
that every link works there as it does in the repository.
"""

import ast
import re
import sys
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from kshot.cli.tables import task_name  # noqa: E402
from kshot.learners.registry import LEARNERS, LearnerRow  # noqa: E402
from kshot.options import unwrapped  # noqa: E402
from kshot.report.markdown import markdown_table  # noqa: E402
from studies.papers import rows_of  # noqa: E402

__all__ = ["ExamplesAsCode", "learner_page", "on_config", "on_files", "on_page_markdown"]

ELSEWHERE = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Pages of the repository's root, and what they are called on the site."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
MOST_ROWS = 24
"""Result rows on a learner's page."""
FIGURES = {
    "maml": ("idea_regions.png", "regions of three classes in the plane, step by step"),
    "protonet": ("idea_embeddings.png", "embeddings of letters of an unseen script"),
    "fomaml": ("similarity.png", "how alike each layer is before and after its inner step"),
    "reptile": ("sinusoid_steps.png", "error on sine waves by inner steps at test"),
}
"""Figures of other pages that show a learner; the others are docs/figures/learners/NAME.png."""
REGIONS = (
    "the plane as it is given to three new classes, after training on others whose points, too, "
    "lie in one direction from the middle each, at any distance: python -m studies regions"
)
"""What docs/figures/regions/NAME.png shows."""


class ExamplesAsCode(griffe.Extension):
    """Doctests under "Example:" are code, as those under "Examples:" are to griffe."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename the heading of one docstring."""
        if obj.docstring is not None:
            found = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the learners' pages, family by family, into the navigation."""
    families: dict[str, list[dict[str, str]]] = {}
    for name, row in LEARNERS.items():
        families.setdefault(row.family, []).append({name: f"learners/{name}.md"})
    for part in config.nav or []:
        if "Learners" in part:
            part["Learners"] = [{family: pages} for family, pages in families.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made, and what pages link to."""
    made = {name: (ROOT / source).read_text(encoding="utf-8") for source, name in ELSEWHERE.items()}
    made |= {f"learners/{name}.md": learner_page(name, row) for name, row in LEARNERS.items()}
    made["api.md"] = api_page()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    for pattern in ("results/*/*.json", "recipes/*/*.toml", "examples/*.py", "LICENSE"):
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between the repository's folders into links of the site."""
    name = page.file.src_uri
    home = ROOT if name in ELSEWHERE.values() else (ROOT / "docs" / name).parent

    def rewritten(found: re.Match[str]) -> str:
        mark, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if "://" in target:
            return found[0]
        path = (home / target).resolve()
        if path.is_dir():
            return text  # a folder has no page
        if not path.is_relative_to(ROOT):
            return found[0]
        place = path.relative_to(ROOT).as_posix()
        place = ELSEWHERE.get(place, place.removeprefix("docs/"))
        up = "../" * name.count("/")
        return f"{mark}[{text}]({up}{place}{anchor})"

    return LINK.sub(rewritten, markdown)


def learner_page(name: str, row: LearnerRow) -> str:
    """A learner's page: its docstring, what differs from the paper, results, how to cite it."""
    constructor = unwrapped(row.constructor)
    summary = row.summary[0].upper() + row.summary[1:]
    traits = [
        ["meta-gradient", row.meta_gradient],
        ["queries", "transductive, as its paper runs it" if row.transductive else "each alone"],
        ["examples", "one by one (`observe`)" if row.online else "all at once"],
        ["tasks", ", ".join(row.kinds)],
        [
            "on the command line",
            f"`kshot train {name}`"
            if row.meta_trained
            else f"`kshot evaluate RUN --learner {name}`",
        ],
    ]
    parts = [f"# {name}", f"{summary}.", markdown_table(["", ""], traits)]
    parts += [
        "## Method",
        f"::: {constructor.__module__}.{constructor.__qualname__}\n"
        "    options:\n      members: false\n      heading_level: 3",
    ]
    seen = [
        f"![{name}: {told}](../figures/{place})\n\n{told[0].upper()}{told[1:]}."
        for place, told in (
            FIGURES.get(name, (f"learners/{name}.png", "drawn by kshot plot RUN")),
            (f"regions/{name}.png", REGIONS),
        )
        if (ROOT / "docs" / "figures" / place).exists()
    ]
    parts += ["## Seen", *seen] if seen else []
    if row.notes:
        # A row's links are those of a page in docs/.
        notes = re.sub(r"\]\((?!https?:)", "](../", row.notes)
        parts += ["## What differs from the paper" if row.paper else "## Notes", f"{notes}."]
    parts += ["## Results", _results(name)]
    if row.paper is not None:
        parts += ["## Reference", f"[{row.reference}]({row.paper.url})"]
        parts += [f"```bibtex\n{row.paper.bibtex()}\n```"]
    return "\n\n".join(parts) + "\n"


def api_page() -> str:
    """The public names, stage by stage as `__init__.pyi` has them; learners have pages."""
    stub = (ROOT / "src" / "kshot" / "__init__.pyi").read_text(encoding="utf-8")
    own_pages = {unwrapped(row.constructor).__name__ for row in LEARNERS.values()}
    heads = {
        node: line.removeprefix("# ")
        for node, line in enumerate(stub.splitlines(), 1)
        if line.startswith("# ")
    }
    parts = [
        "# API",
        "What `import kshot` gives, stage by stage. Learners have pages of their own.",
    ]
    for node in ast.parse(stub).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for line in [line for line in heads if line < node.lineno]:
            parts.append(f"## {heads.pop(line)}")
        for alias in node.names:
            if alias.name not in own_pages:
                parts.append(f"::: {node.module}.{alias.name}")
    return "\n\n".join(parts) + "\n"


def _results(name: str) -> str:
    rows = list(rows_of(name))
    if not rows:
        return "No row yet."
    first = min(row["seed"] for _, row in rows)
    lines = []
    for path, row in rows:
        if row["seed"] != first:
            continue
        score = f"MSE {row.get('mean_squared_error', 0):.2f} ± {row['ci95']:.2f}"
        if row["accuracy"] is not None:
            score = f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f} %"
        published = row["published"]
        lines.append(
            [
                f"[{path.parent.name}/{path.stem}](../results/{path.parent.name}/{path.name})",
                task_name(row),
                str(row["query_shot"]),
                row["batch_norm"],
                score,
                f"{100 * published['accuracy']:.1f} %" if published else "",
            ]
        )
    columns = ["file", "task", "queries", "BatchNorm", "score, 95 % interval", "published"]
    more = f"\n\nAnd {len(lines) - MOST_ROWS} more rows." if len(lines) > MOST_ROWS else ""
    return markdown_table(columns, lines[:MOST_ROWS]) + more

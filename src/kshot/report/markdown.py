"""A report as Markdown, with its pictures in a folder beside it."""

from collections.abc import Sequence

from kshot.report.content import Block, Code, Picture, Report, Table, Text

__all__ = ["markdown_table", "to_markdown"]


def to_markdown(report: Report, pictures: str) -> str:
    """The report as Markdown.

    Args:
        report: what to write.
        pictures: the folder that its pictures lie in, as NAME.png, seen from the Markdown file.
    """
    parts = [f"# {report.title}"]
    for section in report.sections:
        parts.append(f"## {section.title}")
        parts.extend(_block(block, pictures) for block in section.blocks)
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _block(block: Block, pictures: str) -> str:
    match block:
        case Text(text):
            return text
        case Code(text):
            return f"```\n{text}\n```"
        case Picture(name, _, title):
            return f"![{title}]({pictures}/{name}.png)"
        case Table(columns, rows, title):
            table = markdown_table(columns, rows)
            return f"{title}:\n\n{table}" if title else table


def _cell(text: str) -> str:
    """Text within one cell of one line."""
    return " ".join(text.replace("|", "\\|").split())

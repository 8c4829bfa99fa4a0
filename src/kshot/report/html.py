"""A report as one HTML file that asks for nothing else: styles and pictures are inside it."""

import base64
from html import escape

from kshot.report.content import Block, Code, Picture, Report, Table, Text

__all__ = ["to_html"]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2125; --soft: #5d6770; --paper: #ffffff;
  --line: #d9dee2; --shade: #f4f6f8; --accent: #1b6ca8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9ba6b0; --paper: #14181b; --line: #333b42;
    --shade: #1d2327; --accent: #74b6e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
nav { color: var(--soft); } nav a { margin-right: 1rem; } a { color: var(--accent); }
.wide { overflow-x: auto; margin: 0 0 1.25rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 0 0 .35rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th, td:not(:last-child) { white-space: nowrap; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem; overflow-x: auto; font-size: .9rem; }
summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
.figures { display: grid; gap: 1.25rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; }
img { display: block; width: 100%; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: .5rem; max-height: 36rem; object-fit: contain; }
"""


def to_html(report: Report) -> str:
    """The report as a page, in light or dark as the reader's system is."""
    links = "".join(
        f'<a href="#part{number}">{escape(section.title)}</a>'
        for number, section in enumerate(report.sections)
    )
    parts = []
    for number, section in enumerate(report.sections):
        parts.append(f'<h2 id="part{number}">{escape(section.title)}</h2>')
        in_grid = False
        for block in section.blocks:
            # Pictures that follow one another share a grid.
            if isinstance(block, Picture) != in_grid:
                parts.append("</div>" if in_grid else '<div class="figures">')
                in_grid = not in_grid
            parts.append(_block(block))
        if in_grid:
            parts.append("</div>")
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header><h1>{escape(report.title)}</h1><nav aria-label="Parts">{links}</nav></header>
<main>
{body}
</main>
</body>
</html>
"""


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Picture(_, png, title):
            data = base64.b64encode(png).decode()
            return (
                f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(title)}</figcaption></figure>"
            )
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    caption = (
        f"<caption>{escape(table.title)}</caption>" if table.title and not table.folded else ""
    )
    # A region that scrolls has to be reached by keyboard.
    label = escape(table.title or table.columns[0])
    html = (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )
    if table.folded:
        return f"<details><summary>{escape(table.title)}</summary>{html}</details>"
    return html

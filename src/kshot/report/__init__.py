"""Reports: what is to be said of some runs, written as one HTML file or as Markdown."""

from kshot.report.content import Code, Picture, Report, Section, Table, Text
from kshot.report.html import to_html
from kshot.report.markdown import to_markdown

__all__ = [
    "Code",
    "Picture",
    "Report",
    "Section",
    "Table",
    "Text",
    "to_html",
    "to_markdown",
]

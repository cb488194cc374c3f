"""Results for people: a dense model against its variants, in the terminal, in Markdown, and as a web page."""

from tenfold.report.html import as_html, write_html
from tenfold.report.rows import LayerLine, Row, Table, smallest_within
from tenfold.report.text import as_markdown, as_rich

__all__ = [
    "LayerLine",
    "Row",
    "Table",
    "as_html",
    "as_markdown",
    "as_rich",
    "smallest_within",
    "write_html",
]

"""A report for the terminal and for Markdown."""

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from tenfold.report.columns import columns_of, has_budgets
from tenfold.report.numbers import MISSING
from tenfold.report.rows import Row, Table


def as_rich(table: Table) -> RichTable:
    """The table for `rich.print`; names are text, not rich's markup.

    >>> as_rich(Table("digits", Row("dense", params=1000))).row_count
    1
    """
    columns = columns_of(table)
    caption = Text("\n".join(table.notes), justify="left") if table.notes else None
    printed = RichTable(
        title=Text(table.title), caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    printed.add_column("Method", no_wrap=True)
    for column in columns:
        printed.add_column(column.title.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in (table.dense, *table.rows):
        cells = (column.cell(row, table.dense) for column in columns)
        printed.add_row(
            _two_lines(row.method, row.keep), *(_two_lines(cell.text, cell.note) for cell in cells)
        )
        if row is table.dense and table.rows:
            printed.add_section()
    return printed


def _two_lines(text: str, note: str) -> Text:
    """A number above its relation to the dense model, so that a report fits into 80 characters."""
    return Text.assemble(text, (f"\n{note}", "dim")) if note else Text(text)


def as_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, with title and notes, ending in a new line.

    >>> print(as_markdown(Table("digits", Row("dense", "", 1000), (Row("tt", "", 250),))), end="")
    ### digits
    <BLANKLINE>
    | Method | Accuracy | Params |
    | :-- | --: | --: |
    | dense | – | 1.00 k |
    | tt | – | 250 (25.0 %) |
    """
    headings = _headings(table)
    rules = [":--" if heading in ("Method", "Keep") else "--:" for heading in headings]
    rows = [_texts(table, row) for row in (table.dense, *table.rows)]
    lines = [f"### {_one_line(table.title)}", "", *map(_markdown_row, [headings, rules, *rows])]
    notes = ["", *(f"- {_one_line(note)}" for note in table.notes)] if table.notes else []
    return "\n".join([*lines, *notes]) + "\n"


def _headings(table: Table) -> list[str]:
    return ["Method", "Keep"][: 1 + has_budgets(table)] + [column.title for column in columns_of(table)]


def _texts(table: Table, row: Row) -> list[str]:
    names = [_safe(row.method), _safe(row.keep) or MISSING][: 1 + has_budgets(table)]
    return names + [str(column.cell(row, table.dense)) for column in columns_of(table)]


def _markdown_row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _safe(text: str) -> str:
    """Text that neither ends a cell nor starts HTML."""
    return _one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")

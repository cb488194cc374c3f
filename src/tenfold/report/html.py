"""A report as one HTML file that needs nothing else: no network, no fonts, no libraries."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from tenfold.core.atomic import StrPath, write_text
from tenfold.report import numbers
from tenfold.report.columns import columns_of, has_budgets, params_kept, ranks_of
from tenfold.report.plot import SHAPES, methods_of, plot_of
from tenfold.report.rows import Row, Table, smallest_within


def write_html(table: Table, path: StrPath) -> None:
    """Write the report to `path`, whole or not at all.

    Raises:
        TargetError: if the folder of `path` is missing or cannot be written.
    """
    write_text(path, as_html(table))


def as_html(table: Table) -> str:
    """The report as a page: a plot of accuracy against size, a table to sort, and what each layer became.

    All names are escaped. The page follows the reader's choice of light or dark, and works without scripts,
    but for sorting, tooltips and the switches of the plot.

    >>> as_html(Table("<digits>", Row("dense"))).count("&lt;digits&gt;")
    2
    """
    return (
        _pages()
        .get_template("page.html.j2")
        .render(
            table=table,
            columns=columns_of(table),
            budgets=has_budgets(table),
            plot=plot_of(table),
            marks={name: (colour, shape) for name, colour, shape in methods_of(table)},
            dense_shape=SHAPES[0],
            pick=smallest_within(table),
            spread=_spread,
            ranks_of=ranks_of,
            params_kept=params_kept,
            numbers=numbers,
        )
    )


def _pages() -> Environment:
    return Environment(
        loader=PackageLoader("tenfold.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _spread(row: Row) -> str:
    """How the time of a row varied, and where it was taken."""
    if row.latency is None:
        return ""
    low, high = numbers.seconds(row.latency.low), numbers.seconds(row.latency.high)
    where = f"{row.latency.device}, threads: {row.latency.threads}"
    return f"{low} to {high} in 8 of 10 passes ({where}, {row.latency.repeats} repeats)"

"""Numbers as people write them, in the terminal and in Markdown."""

import io

import pytest
from report_tables import FULL, STRANGE, TABLES
from rich.console import Console

from tenfold.report import Row, Table, as_markdown, as_rich, numbers


def printed(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(as_rich(table))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("print_", "value", "text"),
    [
        (numbers.count, 1_234_567, "1.23 M"),
        (numbers.count, 0, "0"),
        (numbers.count, 999, "999"),
        (numbers.count, 1000, "1.00 k"),
        (numbers.count, 9_996, "10.0 k"),
        (numbers.count, 999_499, "999 k"),
        (numbers.count, 999_500, "1.00 M"),
        (numbers.count, 7_000_000_000, "7.00 G"),
        (numbers.nbytes, 4_300_000, "4.3 MB"),
        (numbers.nbytes, 999, "999 B"),
        (numbers.nbytes, 99_960, "100 kB"),
        (numbers.flops, 1_234_567_890, "1.2 G"),
        (numbers.flops, 3.6e15, "3.6 P"),
        (numbers.seconds, 0.0034, "3.4 ms"),
        (numbers.seconds, 2.5e-6, "2.5 µs"),
        (numbers.seconds, 0, "0 s"),
        (numbers.seconds, 1234.5, "1234 s"),
        (numbers.percent, 0.249, "24.9 %"),
        (numbers.percent, 0.972, "97.2 %"),
        (numbers.percent, 0, "0.0 %"),
        (numbers.times, 2.1, "2.1×"),
        (numbers.times, 0.997, "1.0×"),
        (numbers.times, 0.095, "0.10×"),
        (numbers.times, 0.0123, "0.012×"),
        (numbers.times, 1e-6, "1e-06×"),
        (numbers.points, -0.005, "−0.5"),
    ],
)
def test_numbers_have_few_digits_and_a_unit(print_, value: float, text: str) -> None:
    assert print_(value) == text


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["count", "nbytes", "flops", "seconds", "percent", "times", "points"])
def test_missing_numbers_are_a_dash(name: str, value: float | None) -> None:
    assert getattr(numbers, name)(value) == "–"


def test_markdown_has_each_number_and_its_relation() -> None:
    lines = as_markdown(FULL).splitlines()
    assert lines[0] == "### ResNet on digits"
    assert lines[2] == (
        "| Method | Keep | Accuracy | Before tuning | Params | Size | FLOPs | Latency | Peak memory |"
    )
    assert lines[5] == (
        "| tucker2 | params ≤ 25 % | 97.0 % (−0.5) | 90.3 % (−7.2) | 1.08 M (25.0 %) | 4.3 MB (25.0 %) "
        "| 406 M (32.9 %) | 3.4 ms (3.6×) | 7.0 MB (82.4 %) |"
    )
    assert lines[7] == "| svd | – | – | – | – | – | – | – | – |"
    assert lines[-1] == "- 10 000 images."


def test_names_in_markdown_neither_end_a_cell_nor_start_html() -> None:
    lines = as_markdown(STRANGE).splitlines()
    assert "<" not in "".join(lines)
    bars = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
    assert len(bars) == 1


def test_a_backslash_does_not_free_the_bar_behind_it() -> None:
    (line,) = as_markdown(Table("", Row("a\\|b"))).splitlines()[4:]
    assert line.startswith("| a\\\\\\|b |")


def test_the_terminal_shows_each_number_within_80_characters() -> None:
    text = printed(FULL)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for number in ("4.32 M", "1.08 M", "25.0 %", "3.4 ms", "3.6×", "−7.2", "params ≤ 25 %", "10 000 images."):
        assert number in text


def test_the_terminal_takes_names_as_they_are() -> None:
    assert '<b>café</b> | "q" {{ 7 * 7 }} [red]' in printed(STRANGE, 120)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_table_prints(table: Table) -> None:
    assert as_markdown(table).endswith("\n")
    assert "dense" in printed(table)


def test_columns_without_numbers_are_left_out() -> None:
    table = Table("", Row("dense", params=10), (Row("tt", params=5),))
    assert as_markdown(table).splitlines()[2] == "| Method | Accuracy | Params |"

"""The page is whole, needs nothing else, and takes names as text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_tables import EMPTY, FULL, NOTHING_KNOWN, STRANGE, TABLES

from tenfold.core.errors import TargetError
from tenfold.report import Table, as_html, write_html

VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and keeps texts, attributes and elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and attributes.items() <= found.items()]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_page_is_balanced_and_needs_nothing_else(table: Table) -> None:
    html = as_html(table)
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert "addEventListener" in page.scripts and len(page.all("script")) == 1
    assert not re.search(r"https?://|@import|url\(|//cdn", html)
    assert not any({"src", "href", "onclick", "onload"} & attributes.keys() for _, attributes in page.tags)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_identifiers_are_unique_and_references_lead_somewhere(table: Table) -> None:
    page = Page(as_html(table))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    used = " ".join(attributes.get("aria-labelledby") or "" for _, attributes in page.tags).split()
    assert len(names) == len(set(names))
    assert set(used) <= set(names)


def test_the_page_shows_each_number() -> None:
    text = Page(as_html(FULL)).text
    numbers = ["4.32 M", "17.3 MB", "1.2 G", "12.3 ms", "8.5 MB", "97.5 %"]
    numbers += [
        "1.08 M",
        "25.0 %",
        "4.3 MB",
        "406 M",
        "32.9 %",
        "3.4 ms",
        "3.6×",
        "82.4 %",
        "90.3 %",
        "97.0 %",
    ]
    numbers += ["216 k", "864 kB", "92.7 %", "−4.8", "10 000 images.", "2.8.0"]
    layers = ["conv1.weight", "64×32×3×3", "o i h w -> o i (h w)", "r0=12 r1=7", "18.4 k", "4.60 k", "11.3 %"]
    assert [number for number in (*numbers, *layers, "would not pay") if number not in text] == []


def test_exact_numbers_are_there_to_sort_by_and_to_read() -> None:
    cells = Page(as_html(FULL)).all("td", title="1,080,250")
    assert [cell["data-value"] for cell in cells] == ["1080250"]


def test_points_can_be_focused_and_name_their_numbers() -> None:
    page = Page(as_html(FULL))
    points = [point for point in page.all("g", role="img") if point["class"] == "point"]
    assert {point["tabindex"] for point in points} == {"0"}
    assert "tucker2, params ≤ 25 %: Latency 3.4 ms, accuracy 97.0 %" in {p["aria-label"] for p in points}
    tips = {attributes.get("id") for attributes in page.all("div")}
    assert {f"tip{point['data-row']}" for point in points} <= tips
    assert len(page.all("title")) == 2 and len(page.all("desc")) == 1


def test_one_view_is_shown_and_a_legend_switches_each_method() -> None:
    page = Page(as_html(FULL))
    assert sum("hidden" not in view for view in page.all("g", **{"class": "view"})) == 1
    switched = [button["data-series"] for button in page.all("button") if "data-series" in button]
    assert switched == ["0", "1", "2"]


def test_names_are_text_whatever_they_hold() -> None:
    html = as_html(STRANGE)
    page = Page(html)
    assert "<script>alert('é')</script>" in page.text
    assert '<b>café</b> | "q" {{ 7 * 7 }} [red]' in page.text
    assert "<em>note</em>" in page.text and "<img src=x>" in page.text
    assert not {"b>café", "em", "img", "u", "i", "key"} & {tag for tag, _ in page.tags}


def test_missing_numbers_are_dashes_and_there_is_no_plot_of_nothing() -> None:
    page = Page(as_html(NOTHING_KNOWN))
    assert page.text.count("–") >= 6 and not page.all("div", id="plot")
    assert "None" not in page.text.replace("None", "", 2)
    assert len(Page(as_html(EMPTY)).all("tbody")) == 2


def test_a_page_is_written_as_utf8_over_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    write_html(FULL, target)
    assert target.read_text(encoding="utf-8") == as_html(FULL)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(TargetError, match="there is no folder"):
        write_html(FULL, tmp_path / "nowhere" / "report.html")

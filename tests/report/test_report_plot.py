"""The plot puts every known number where it belongs."""

from dataclasses import replace

import pytest
from report_tables import DENSE, EMPTY, FULL, NOTHING_KNOWN, STRANGE

from tenfold.report import Row, Table
from tenfold.report.axis import Axis, accuracy_axis, sizes_axis
from tenfold.report.plot import methods_of, plot_of


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [[1.0], [5.0, 5.0], [1e-6, 3e-3], [1.0, 1e12], [4.3e6, 4.4e6]])
def test_values_and_ticks_lie_on_the_axis(values: list[float], log: bool) -> None:
    axis = sizes_axis(values, log)
    ticks = axis.ticks()
    assert all(0 <= axis.place(value) <= 100 for value in (*values, *(tick.value for tick in ticks)))
    assert 2 <= len(ticks) <= 13


@pytest.mark.parametrize("values", [[0.5], [0.0, 1.0], [0.9751, 0.9752], [1.0, 1.0]])
def test_accuracies_lie_inside_their_axis(values: list[float]) -> None:
    axis = accuracy_axis(values)
    assert all(0 < axis.place(value) < 100 for value in values)
    assert len(axis.ticks()) >= 3


def test_a_logarithmic_axis_gives_equal_ratios_equal_room() -> None:
    axis = Axis(1.0, 1e4, log=True)
    assert [axis.place(value) for value in (1.0, 10.0, 100.0, 1e4)] == [0, 25, 50, 100]


def test_there_is_a_view_for_each_size_that_a_variant_has_on_both_scales() -> None:
    plot = plot_of(FULL)
    assert plot is not None
    names = [(view.name, view.scale) for view in plot.views]
    assert names == [(n, s) for n in ("params", "bytes", "flops", "seconds") for s in ("log", "linear")]
    methods = [[s.method for s in view.series if s.points] for view in plot.views]
    assert methods == [["tucker2", "cp4"]] * 4 + [["tucker2"]] * 4


def test_smaller_is_left_and_better_is_up() -> None:
    plot = plot_of(FULL)
    assert plot is not None and plot.dense_y is not None
    for view in plot.views[:2]:
        (small,), (tiny,), _ = (series.points for series in view.series)
        assert view.dense is not None
        assert tiny.x < small.x < view.dense.x
        assert tiny.y > small.y > view.dense.y == pytest.approx(plot.dense_y, abs=0.01)
    assert plot.views[0].series[0].points[0].label == (
        "tucker2, params ≤ 25 %: Params 1.08 M, accuracy 97.0 %"
    )


def test_points_of_a_method_are_joined_from_small_to_large() -> None:
    rows = tuple(Row("tt", "", size, accuracy=0.9) for size in (300, 100, 200))
    plot = plot_of(Table("", DENSE, rows))
    assert plot is not None
    (series,) = plot.views[0].series
    assert [point.row for point in series.points] == [1, 2, 0]
    assert [(a.row, b.row) for a, b in series.segments] == [(1, 2), (2, 0)]


def test_nothing_to_draw_is_no_plot() -> None:
    assert plot_of(EMPTY) is None
    assert plot_of(NOTHING_KNOWN) is None


def test_numbers_that_are_not_finite_or_zero_are_not_drawn() -> None:
    plot = plot_of(STRANGE)
    assert plot is not None and plot.dense_y is None
    assert [[p.row for p in s.points] for s in plot.views[0].series] == [[], [1]]
    assert plot.views[0].dense is None


def test_sixty_four_methods_look_different() -> None:
    table = replace(FULL, rows=tuple(Row(f"m{n}") for n in range(64)))
    assert len({(colour, shape) for _, colour, shape in methods_of(table)}) == 64

"""Tables for the terminal that are not reports: sites, presets, plans."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from rich import box
from rich.table import Table
from rich.text import Text

from tenfold.cli.costs import Costs, PresetCost, SiteCost
from tenfold.compress import Plan
from tenfold.report import LayerLine, numbers


def inspected(model: str, budget: str, shape: Sequence[int], costs: Costs) -> Iterator[Table]:
    """The sites with what each preset makes of them, and the presets in sum."""
    yield _details(f"{model}, {budget}, input {numbers.shape(shape)}", costs)
    yield _sums(costs)


def _details(title: str, costs: Costs) -> Table:
    table = _table(title, ("Site", "Parameters", "FLOPs", "Steps"), numbers_at=(1, 2))
    for site in costs.sites:
        kept = [cost for cost in costs.presets if cost.site == site.name]
        head = f"{site.kind} {numbers.shape(site.shape)}"
        table.add_row(
            Text(site.name, "bold"), numbers.count(site.params), numbers.flops(site.flops), Text(head)
        )
        for cost in kept:
            table.add_row(Text(f"  {cost.preset}"), *_related(cost, site), _what(cost))
        table.add_section()
    return table


def _related(cost: PresetCost, site: SiteCost) -> tuple[str, str]:
    if not cost.steps:
        return numbers.MISSING, numbers.MISSING
    work = _fraction(cost.flops, site.flops)
    return f"{numbers.count(cost.params)} ({_fraction(cost.params, site.params)})", work


def _what(cost: PresetCost) -> Text:
    if cost.steps:
        return Text(", ".join(cost.steps))
    return Text("cannot serve" if "cannot serve" in cost.note else f"stays dense: {cost.note}", "dim")


def _sums(costs: Costs) -> Table:
    table = _table(
        "All sites together", ("Preset", "Served", "Parameters", "FLOPs", "Note"), numbers_at=(1, 2, 3)
    )
    params, work = sum(s.params for s in costs.sites), sum(s.flops or 0 for s in costs.sites)
    table.add_row(
        Text("dense", "bold"), str(len(costs.sites)), numbers.count(params), numbers.flops(work), ""
    )
    by_preset: dict[str, list[PresetCost]] = {}
    for cost in costs.presets:
        by_preset.setdefault(cost.preset, []).append(cost)
    for name, kept in by_preset.items():
        stored, done = sum(c.params for c in kept), sum(c.flops or 0 for c in kept)
        served = sum(bool(c.steps) for c in kept)
        table.add_row(Text(name), str(served), _both(stored, params), _fraction(done, work), "")
    for name, problem in costs.failed.items():
        table.add_row(Text(name), "0", numbers.MISSING, numbers.MISSING, Text(problem, "dim"))
    return table


def planned(title: str, plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> Table:
    """What a plan does at each site."""
    table = _table(title, ("Site", "Shape", "Format", "Ranks", "Parameters"), numbers_at=(4,))
    for module, parameters in plan.layers.items():
        for parameter, layer in parameters.items():
            name = f"{module}.{parameter}"
            shape = shapes[name]
            kept = _both(layer.numel(shape), prod(shape))
            table.add_row(Text(name), numbers.shape(shape), layer.format, _ranks(layer.ranks), kept)
    for name, reason in plan.dense.items():
        table.add_row(Text(name), numbers.shape(shapes[name]), "dense", Text(reason, "dim"), "")
    return table


def _ranks(ranks: Mapping[str, int]) -> str:
    return " ".join(f"{bond}={rank}" for bond, rank in ranks.items())


def _both(part: int, whole: int) -> str:
    return f"{numbers.count(part)} ({_fraction(part, whole)})"


def _fraction(part: int | None, whole: int | None) -> str:
    return numbers.percent(part / whole) if part is not None and whole else numbers.MISSING


def _table(title: str, headings: Sequence[str], numbers_at: Sequence[int]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for n, heading in enumerate(headings):
        right = n in numbers_at
        whole = right or heading == "Site"
        table.add_column(heading, justify="right" if right else "left", no_wrap=whole, overflow="fold")
    return table


def fitted(title: str, lines: Sequence[LayerLine]) -> Table:
    """What each site became, and how well it is approximated."""
    table = _table(title, ("Site", "Shape", "Format", "Ranks", "Parameters", "Error"), numbers_at=(4, 5))
    for line in lines:
        kept = _both(line.params_after or 0, line.params_before or 0)
        what = Text.assemble(_ranks(line.ranks), (f" {line.note}".rstrip(), "dim"))
        table.add_row(
            Text(line.site), numbers.shape(line.shape), line.format, what, kept, numbers.percent(line.error)
        )
    return table

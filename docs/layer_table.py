"""Write the tables of `layers.md`: run the laws, or with `--no-run` only say what there is to be run.

    python docs/layer_table.py --jobs 4

A law that is not obeyed ends the run, and nothing is written.
"""

import argparse
import functools
import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tenfold.formats import formats
from tenfold.testing.every_law import EVERY_LAW, TRACED, check_case, every_case, laws_of
from tenfold.testing.layer_cases import FAMILIES, cases
from tenfold.testing.layer_gaps import GAPS, INAPPLICABLE

PAGE = Path(__file__).parent / "layers.md"
Counts = Mapping[tuple[str, str], int]
"""Layer and format -> how many layers obeyed the laws."""


def planned(pair: tuple[str, str]) -> tuple[tuple[str, str], int]:
    """How many layers there are of a type and a format."""
    return pair, len(cases(*pair))


def measured(pair: tuple[str, str], laws: Iterable[str] = EVERY_LAW) -> tuple[tuple[str, str], int]:
    """The same, once all of them have obeyed the laws."""
    warnings.simplefilter("ignore")
    chosen = set(laws)
    for case in cases(*pair):
        check_case(case, [law for law in laws_of(case) if law in chosen])
    return planned(pair)


def tables(counts: Counts) -> dict[str, list[str]]:
    """The tables of the page by name, as lines."""
    return {"formats": list(formats_table(counts)), "laws": list(laws_table()), "gaps": list(gaps_table())}


def formats_table(counts: Counts) -> Iterator[str]:
    """Layers by formats."""
    names = list(formats)
    yield f"| | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for layer, family in FAMILIES.items():
        cells = [str(counts.get((layer, f), "")) for f in names]
        if not family.layouts:
            cells = [f"{counts[layer, '']}, without a format", *[""] * (len(names) - 1)]
        yield f"| {layer} | {' | '.join(cells)} |"


def laws_table() -> Iterator[str]:
    """The laws by name, with the first sentence of each."""
    yield "| law | |"
    yield "|---|---|"
    for name, law in EVERY_LAW.items():
        said = (law.__doc__ or "").partition("\n\n")[0].strip()
        star = " \\*" if name in TRACED else ""
        yield f"| `{name}`{star} | {said} |"


def gaps_table() -> Iterator[str]:
    """What layers cannot do, and why."""
    yield "| law | layers | why |"
    yield "|---|---|---|"
    for known in GAPS:
        options = "".join(f", `{k}={v!r}`" for k, v in known.options.items())
        yield f"| `{known.law}` | {', '.join(known.layers)}{options} | {known.reason} |"
    for what, _, why in INAPPLICABLE:
        yield f"| any | {what} | {why} |"


def written(page: str, parts: Mapping[str, list[str]]) -> str:
    """The page with the tables between their markers."""
    for name, lines in parts.items():
        before, start, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        page = "".join([before, start, *(f"{line}\n" for line in lines), end, after])
    return page


def main() -> None:
    """Run the laws and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument(
        "--no-run", action="store_true", help="only count; the tests of the project run the laws"
    )
    parser.add_argument(
        "--laws", nargs="+", default=list(EVERY_LAW), choices=list(EVERY_LAW), help="not all of them"
    )
    asked = parser.parse_args()
    run = planned if asked.no_run else functools.partial(measured, laws=asked.laws)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, mp_context=spawn) as pool:
        counts = dict(pool.map(run, every_case()))
    PAGE.write_text(written(PAGE.read_text(), tables(counts)))


if __name__ == "__main__":
    main()

"""Write the tables of README.md from a result of run.py: python benchmarks/data_aware/table.py result.json"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from variants import KEEPS, PRESETS, VARIANTS

Lost = Mapping[tuple[str, float, str], float]
SIXTH = 6


def table(lost: Lost) -> list[str]:
    """A row for each preset and budget, a column for each variant; last, plain over the last one measured.

    Variants that were measured nowhere have no column.
    """
    measured = [name for name in VARIANTS if any(name == variant for _, _, variant in lost)]
    head = ["preset", "keep", *measured, "plain / last"]
    rows = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(measured) + 1)}"]
    for preset in PRESETS:
        for keep in KEEPS:
            cells = [lost.get((preset, keep, name)) for name in measured]
            if all(cell is None for cell in cells):
                continue
            shown = ["–" if cell is None else f"{cell:.1f}" for cell in cells]
            last = next((cell for cell in reversed(cells[1:]) if cell is not None), None)
            rows.append(f"| {' | '.join([preset, str(keep), *shown, ratio(cells[0], last)])} |")
    return rows


def ratio(plain: float | None, best: float | None) -> str:
    """How many times less is lost; nothing or less is shown as such."""
    if plain is None or best is None:
        return "–"
    return "nothing lost" if best <= 0 else f"{plain / best:.1f}"


def document(result: Mapping[str, Any]) -> str:
    """The circumstances and the table."""
    lost = {(c["preset"], c["keep"], c["variant"]): c["lost"] for c in result["cells"]}
    e = result["environment"]
    circumstances = (
        f"{result['model']}, dense {result['dense']:.2f} % on {result['images']:,} images "
        f"({result['judged']}). {e['cores']} cores, {e['threads']} threads, {e['machine']}; "
        f"Python {e['python']}, torch {e['torch']}, tenfold {e['tenfold']}. Points lost, one seed."
    )
    return "\n".join([circumstances, "", *table(lost), ""])


def main(given: Sequence[str]) -> None:
    """Print the tables of the results named on the command line."""
    for path in given:
        sys.stdout.write(document(json.loads(Path(path).read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Write the tables of README.md from every result in this folder.

python benchmarks/layers/table.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "<!-- tables -->"


def table(result: dict[str, Any]) -> str:
    """The records as Markdown: medians in microseconds, ratios in the last column."""
    where = result["machine"]
    threads = f"{where['threads']} thread" + "s" * (where["threads"] > 1)
    head = (
        f"{where['cpu']}, {where['cores']} cores, {threads}; Python {where['python']}, "
        f"torch {where['torch']}, tenfold {where['tenfold']}. Medians in microseconds."
    )
    names = ["dense", "by hand", "by hand, channels-last", "ours"]
    lines = [
        head,
        "",
        f"| layer | input | mode | {' | '.join(names)} | ours / best by hand |",
        f"|---|---|---|{'---:|' * (len(names) + 1)}",
    ]
    for r in result["records"]:
        cells = [f"{r['median_us'][n]:,.0f}" if n in r["median_us"] else "–" for n in names]
        shape = "×".join(str(n) for n in r["input"])
        memory = "" if r["memory"] == "contiguous" else ", channels-last"
        ratio = f"{r['ours_to_best_by_hand']:.2f}"
        lines.append(f"| {' | '.join([r['layer'], shape + memory, r['mode'], *cells, ratio])} |")
    return "\n".join(lines)


def main() -> None:
    """Put the tables between the marks of the README."""
    readme = HERE / "README.md"
    before, _, after = readme.read_text().split(MARK)
    tables = [table(json.loads(path.read_text())) for path in sorted(HERE.glob("*.json"))]
    readme.write_text("\n\n".join([before + MARK, *tables, MARK + after]))


if __name__ == "__main__":
    main()

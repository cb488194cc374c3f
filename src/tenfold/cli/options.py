"""The arguments and options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = (
    "The architecture: package.module:callable or file.py:callable, called without arguments, "
    "such as tenfold.zoo:resnet20."
)
DATA_HELP = "Labelled images: a .parquet or .npz file, a folder with one folder a class, or 'digits'."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of the dense model: .safetensors, or a state dict of torch.save.")
]
Data = Annotated[str, typer.Option(help=DATA_HELP)]
TestData = Annotated[str | None, typer.Option(help="Images to measure the accuracy on, never trained on.")]
Keep = Annotated[
    str,
    typer.Option(
        help="What to keep of the weights: params=0.25 is a fraction, params=50000 a number; so flops=, "
        "bytes=, and latency= in nanoseconds, which is measured. Two with a comma both hold."
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="The decomposition; `tenfold inspect` lists them all. Of several, with commas, or of auto, "
        "--rule lagrangian takes the best at each layer."
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN=PRESET",
        help="Another preset, or none, for some layers: a name, re:EXPRESSION, or a type such as Conv2d. "
        "May be given several times.",
    ),
]
Rule = Annotated[
    str,
    typer.Option(help="How the budget is shared among the layers: uniform, energy, lagrangian, evbmf, alds."),
]
InputShape = Annotated[
    str | None, typer.Option(help="Shape of an input, the batch first, such as 1,3,32,32.", metavar="N,C,H,W")
]
Mean = Annotated[str | None, typer.Option(help="Mean of the inputs, such as 0.49,0.48,0.45.")]
Std = Annotated[str | None, typer.Option(help="Standard deviation of the inputs.")]
LearningRate = Annotated[float, typer.Option(help="Learning rate at the start; it falls as a cosine.")]
BatchSize = Annotated[int, typer.Option(help="Images in a batch.")]
Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, …")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is drawn at random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

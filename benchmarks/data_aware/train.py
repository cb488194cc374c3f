"""Train the ResNet-20 of this experiment: SGD, 20 epochs, about 20 minutes on two cores.

python benchmarks/data_aware/train.py --data train.parquet --out resnet20.safetensors
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from tenfold import tune
from tenfold.compress import Epoch
from tenfold.data import open_data
from tenfold.data.augment import Augmented
from tenfold.zoo import networks

BATCH, HELD_OUT = 128, 0.1


def main() -> None:
    """Train and write the weights; a killed run goes on from its last epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="resnet20", choices=list(networks))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--precision", default="bf16", choices=["no", "bf16"], help="no: float32, faster without tiles (AMX)"
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    model = networks[args.model]().to(memory_format=torch.channels_last)
    fitted, held_out = open_data(args.data).normalized().split(1 - HELD_OUT, seed=0)
    tune(
        model,
        Augmented(fitted.batches(BATCH, shuffle=True, generator=torch.Generator().manual_seed(0))),
        held_out.batches(BATCH),
        epochs=args.epochs,
        lr=0.1,
        weight_decay=5e-4,
        optimizer=partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        schedule="cosine",
        patience=None,
        label_smoothing=0.05,
        precision=args.precision,
        resume=args.out.with_suffix(".record"),
        progress=told,
    )
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, args.out)


def told(epoch: Epoch) -> None:
    """One line an epoch."""
    accuracy = 100 * (epoch.valid_accuracy or 0)
    print(f"epoch {epoch.number}: {accuracy:.1f} %, {epoch.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Tuning under a bar."""

import torch
from torch import nn

from tenfold.cli.bars import Bars, Batches
from tenfold.compress import Epoch, Tuned, tune
from tenfold.data import ImageData

PATIENCE = 3


def shuffled(data: ImageData, size: int, seed: int) -> Batches:
    """Batches in an order that the seed decides."""
    return data.batches(size, shuffle=True, generator=torch.Generator().manual_seed(seed))


def tuned(
    model: nn.Module,
    train: Batches,
    valid: Batches,
    *,
    epochs: int,
    lr: float,
    text: str,
    bars: Bars,
    patience: int | None = PATIENCE,
) -> Tuned:
    """Train with a cosine schedule; the epoch with the lowest validation loss is kept."""
    steps = len(train)
    with bars.bar(text, epochs * steps) as bar:

        def told(epoch: Epoch) -> None:
            accuracy = epoch.valid_accuracy or 0.0
            bar.at(epoch.number * steps, epochs * steps, f"{100 * accuracy:.1f} % in validation")

        return tune(
            model,
            bar.watching(train),
            valid,
            epochs=epochs,
            lr=lr,
            schedule="cosine",
            patience=patience,
            progress=told,
        )

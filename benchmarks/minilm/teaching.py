"""Tuning the small encoder on unlabelled sentences, taught by the dense one."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from embeddings import TOKENS, Batch, embed
from stepping import Directions
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from tenfold import tune
from tenfold.compress import Distillation, Epoch, pivot_, unpivot_

GENTLE = {0.8: 5e-4}
"""The rate where so much is kept; otherwise it is that of `Teaching`."""
LAYERS = tuple(f"encoder.layer.{k}" for k in range(6))


@dataclass(frozen=True)
class Teaching:
    """How long and how fast. An epoch is so many batches of so many tokens, drawn anew, of which each process
    takes its share; the rate falls after each epoch."""

    epochs: int = 16
    batches: int = 84
    tokens: int = TOKENS
    lr: float = 1e-3
    feature_weight: float = 4.0
    precision: str = "bf16"

    @property
    def distillation(self) -> Distillation:
        """The angle between embeddings, and the hidden states behind every layer."""
        return Distillation(
            label_weight=0.0,
            logit_weight=1.0,
            outputs="cosine",
            features=LAYERS,
            feature_weight=self.feature_weight,
        )


def taught(
    small: nn.Module,
    dense: nn.Module,
    train: Sequence[Batch],
    valid: Sequence[Batch],
    how: Teaching,
    progress: Callable[[Epoch], object] | None = None,
) -> nn.Module:
    """A tuned copy of the small encoder; the embedding table, which is not compressed, stays as it is.

    Plain factors learn; they are pivoted again in the end.
    """
    learner = deepcopy(small)
    unpivot_(learner)
    learner.get_submodule("embeddings").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    draws = RandomSampler(train, num_samples=min(how.batches, len(train)), generator=generator)
    tune(
        learner,
        DataLoader(train, batch_size=None, sampler=draws),  # type: ignore[arg-type]
        valid,
        epochs=how.epochs,
        lr=how.lr,
        optimizer=Directions,
        schedule="cosine",
        patience=None,
        teacher=dense,
        distillation=how.distillation,
        forward=embed,
        precision=how.precision,
        clip=1.0,
        progress=progress,
    )
    pivot_(learner)
    return learner

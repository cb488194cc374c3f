"""A model as the command line asks for it, and a plan that remembers the request."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tenfold.cli.models import build
from tenfold.cli.weights import Weights, fill_, read_weights
from tenfold.compress import Plan


def dense_model(text: str, path: Path | None, seed: int) -> tuple[nn.Module, Weights]:
    """The model of MODEL with the weights of a file; without a file, as it is built."""
    torch.manual_seed(seed)
    model = build(text)
    if path is None:
        return model, Weights({})
    weights = read_weights(path)
    fill_(model, weights, path, text)
    return model, weights


def recorded(plan: Plan, model: str, seed: int) -> Plan:
    """The plan, with MODEL and seed in its provenance."""
    request = {**plan.provenance.request, "model": model, "seed": seed}
    return replace(plan, provenance=replace(plan.provenance, request=request))

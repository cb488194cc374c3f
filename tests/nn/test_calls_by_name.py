"""Factorized layers are called as the dense ones are, also by the names of the arguments."""

import inspect

import pytest
import torch
from torch import nn

from tenfold.nn import (
    REPLACEMENTS,
    FactorizedBilinear,
    FactorizedGRU,
    FactorizedLSTM,
    FactorizedMultiheadAttention,
    FactorizedRNN,
    FactorizedTransformerDecoderLayer,
    FactorizedTransformerEncoderLayer,
)

MODULES = {
    nn.RNN: FactorizedRNN,
    nn.LSTM: FactorizedLSTM,
    nn.GRU: FactorizedGRU,
    nn.MultiheadAttention: FactorizedMultiheadAttention,
    nn.TransformerEncoderLayer: FactorizedTransformerEncoderLayer,
    nn.TransformerDecoderLayer: FactorizedTransformerDecoderLayer,
}
OWN = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag} | {
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
}


def arguments(kind: type[nn.Module]) -> dict[str, object]:
    """Names of the arguments of a call, in their order, with their defaults."""
    parameters = inspect.signature(kind.forward).parameters
    return {name: p.default for name, p in parameters.items() if name != "self"}


@pytest.mark.parametrize("dense", sorted(OWN | set(MODULES), key=lambda kind: kind.__name__))
def test_arguments_have_the_names_order_and_defaults_of_the_dense_layer(dense: type[nn.Module]) -> None:
    factorized = MODULES.get(dense) or REPLACEMENTS[dense]
    assert arguments(factorized) == arguments(dense)


def test_both_inputs_of_a_bilinear_layer_are_given_by_name() -> None:
    layer = FactorizedBilinear(3, 4, 5, rank=2, format="cp", layout="o i0 i1 -> o i0 i1")
    x, z = torch.randn(2, 3), torch.randn(2, 4)
    assert torch.equal(layer(input2=z, input1=x), layer(x, z))

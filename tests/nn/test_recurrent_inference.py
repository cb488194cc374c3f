"""Without gradients a recurrent layer lays its weights out anew for the loop, and computes the same."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tenfold.formats import formats
from tenfold.nn import FactorizedGRU, FactorizedLinear, FactorizedLSTM, FactorizedRNN
from tenfold.nn.recurrent.prepared import MANY, affine, transposed

OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
    (nn.GRU, {"bidirectional": True}),
    (nn.GRU, {"bias": False, "batch_first": True}),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    (nn.LSTM, {"proj_size": 3}),
]
LAYOUTS = {"lowrank": "o i -> o i", "kronecker": "(o0=4 o1) (i0=1 i1) -> o0 i0 o1 i1"}
OPENED = {nn.RNN: FactorizedRNN, nn.GRU: FactorizedGRU, nn.LSTM: FactorizedLSTM}


def inputs(batch_first: bool = False) -> list[Tensor | PackedSequence]:
    x = torch.randn(MANY + 4, 3, 5, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([MANY + 4, MANY, 2]))
    return [x.transpose(0, 1)] if batch_first else [x, x[:2], x[:, 0], packed]


@pytest.mark.parametrize("kind, options", OPTIONS, ids=str)
def test_outputs_without_gradients_are_those_with_them(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    dense = kind(5, 6, dtype=torch.float64, **options)
    layer = OPENED[kind].opened(dense)
    for x in inputs(options.get("batch_first", False)):
        wanted, last = layer(x)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), (wanted, last))
        torch.testing.assert_close(dense(x), (wanted, last))


@pytest.mark.parametrize("format", list(formats))
def test_factorized_hidden_weights_too(format: str) -> None:
    torch.manual_seed(0)
    layout = LAYOUTS.get(format, "(o0=4 o1) i -> o0 o1 i")
    layer = FactorizedLSTM(5, 6, rank=2, format=format, layout=layout, dtype=torch.float64)
    for x in inputs():
        wanted = layer(x)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), wanted)


def test_only_many_products_without_gradients_are_worth_a_copy() -> None:
    weight = nn.Parameter(torch.randn(6, 4))
    assert transposed(weight, 1000).data_ptr() == weight.data_ptr(), "gradients go back through the copy"
    with torch.no_grad():
        assert transposed(weight, MANY).data_ptr() != weight.data_ptr()
        assert transposed(weight, MANY).is_contiguous()
        assert transposed(weight, MANY - 1).data_ptr() == weight.data_ptr()
    weight.requires_grad_(False)
    assert transposed(weight, MANY).is_contiguous(), "frozen"
    assert transposed(weight.to("meta"), MANY).stride() == (1, 4), "other devices know how to read it"


def test_frozen_weights_pass_gradients_to_the_input() -> None:
    torch.manual_seed(0)
    dense = nn.GRU(5, 6, dtype=torch.float64).requires_grad_(False)
    layer, x = FactorizedGRU.opened(dense), inputs()[0].requires_grad_(True)
    found, wanted = (torch.autograd.grad(m(x)[0].square().sum(), x) for m in (layer, dense))
    torch.testing.assert_close(found, wanted)


def test_what_is_ready_adds_what_it_is_given() -> None:
    layer = FactorizedLinear(6, 4, rank=2, dtype=torch.float64)
    x, added = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        for calls in (1, MANY):
            ready = affine(layer, calls)
            torch.testing.assert_close(ready.linear(x, added), added + layer(x) - layer.bias)

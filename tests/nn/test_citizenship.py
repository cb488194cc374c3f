"""Layers under the rest of torch: memory formats, checkpointing, optimizers, pruning, names, older states."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tenfold.nn import (
    FactorizedConv,
    FactorizedEmbedding,
    FactorizedLinear,
    FactorizedLSTM,
    FactorizedMultiheadAttention,
    joint_random,
)
from tenfold.testing.calls import Call
from tenfold.testing.citizenship import CITIZENSHIP
from tenfold.testing.compare import assert_equal
from tenfold.testing.every_law import TRACED, check_case
from tenfold.testing.layer_cases import FAMILIES, cases, columns

STATES = Path(__file__).parent / "states"
LAWS = [law.__name__.removeprefix("check_") for law in CITIZENSHIP]


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("layer", FAMILIES)
def test_a_layer_of_every_type_is_a_citizen_of_torch(layer: str) -> None:
    choices = list(columns(layer))
    format = choices[list(FAMILIES).index(layer) % len(choices)]
    check_case(cases(layer, format)[0], [law for law in LAWS if law not in TRACED])


@pytest.mark.parametrize("layer", ["Linear", "Conv2d", "EmbeddingBag", "GRU"])
def test_an_axis_that_is_marked_as_dynamic_stays_so(layer: str) -> None:
    check_case(cases(layer, "cp")[0], ["mark_dynamic"])


# Memory -----------------------------------------------------------------------------------------------------


def convolution(format: str, order: int) -> FactorizedConv:
    axes = " ".join(("d", "h", "w")[-order:])
    return FactorizedConv(8, 12, (3,) * order, rank=4, format=format, layout=f"o i {axes} -> o i ({axes})")


@pytest.mark.parametrize("format", ["cp", "tucker", "tt"])
def test_channels_last_images_stay_so_through_a_convolution(format: str) -> None:
    layer, x = convolution(format, 2), torch.randn(2, 8, 6, 5)
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_equal(y, layer(x), "in another memory order")


@pytest.mark.parametrize("format", ["cp", "tucker", "tt"])
def test_volumes_keep_their_order_where_torchs_own_convolution_of_one_tap_does(format: str) -> None:
    layer, x = convolution(format, 3), torch.randn(2, 8, 6, 5, 7)
    last = {"memory_format": torch.channels_last_3d}
    y, dense = layer(x.to(**last)), nn.Conv3d(8, 12, 1)(x.to(**last))
    assert y.is_contiguous(**last) == dense.is_contiguous(**last)
    assert_equal(y, layer(x), "in another memory order")


# What stays what it is in a copy ----------------------------------------------------------------------------


class Unit(nn.Module):
    """Norm one."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm()

    def right_inverse(self, x: Tensor) -> Tensor:
        return x


def test_a_parametrized_factor_is_trained_and_its_state_is_loaded() -> None:
    def made() -> FactorizedLinear:
        layer = FactorizedLinear(12, 10, rank=4)
        parametrize.register_parametrization(layer.weight, "left", Unit())
        return layer

    layer, other = made(), made()
    assert_equal(layer.weight.value.left.norm(), torch.tensor(1.0), "the factor is parametrized")
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 12)
    assert_equal(other(x), layer(x), "a loaded parametrization")
    layer(x).sum().backward()
    assert layer.weight.parametrizations.left.original.grad is not None
    with pytest.raises(RuntimeError, match=r"Serialization of parametrized modules is only supported"):
        layer.weight.__reduce_ex__(2)


@pytest.mark.parametrize("shared", [True, False])
def test_parametrizations_of_joint_layers_act_on_what_they_are_put_on(shared: bool) -> None:
    layers = joint_random([nn.Linear(8, 6) for _ in range(3)], 2, "tucker", "o i -> o i")
    before = [layer.weight.dense().detach() for layer in layers]
    owner = layers[0].weight.shared if shared else layers[0].weight
    name = next(name for name, _ in owner.named_parameters(recurse=False))
    parametrize.register_parametrization(owner, name, Twice())
    for k, layer in enumerate(layers):
        factor = 2 if shared or k == 0 else 1
        assert_equal(layer.weight.dense(), factor * before[k], "who is concerned")


class Twice(nn.Module):
    """2 x."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


# Names, and states of older versions ------------------------------------------------------------------------


def linear() -> nn.Module:
    layout = "(o0=2 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"
    return FactorizedLinear(6, 8, rank=3, format="tt", layout=layout)


def conv() -> nn.Module:
    return FactorizedConv(8, 6, (3, 3), rank=(3, 4, None), format="tucker", layout="o i h w -> o i (h w)")


def embedding() -> nn.Module:
    return FactorizedEmbedding(12, 8, padding_idx=2, rank=3, format="cp", layout="(v0=3 v1) o -> v0 v1 o")


def lstm() -> nn.Module:
    return FactorizedLSTM(6, 4, rank=2, hidden_rank=None)


def attention() -> nn.Module:
    return FactorizedMultiheadAttention(8, 2, rank={"q": 2})


KEPT: dict[str, tuple[Any, list[str]]] = {
    "linear": (linear, ["bias", "weight.cores_0", "weight.cores_1"]),
    "conv": (conv, ["bias", "weight.core", "weight.matrices_0", "weight.matrices_1"]),
    "embedding": (embedding, ["weight.matrices_0", "weight.matrices_1", "weight.matrices_2"]),
    "lstm": (
        lstm,
        [
            "hiddens.0.bias",
            "hiddens.0.weight",
            "inputs.0.bias",
            "inputs.0.weight.left",
            "inputs.0.weight.right",
        ],
    ),
    "attention": (
        attention,
        [
            *(f"{part}_proj.{name}" for part in ("k", "out") for name in ("bias", "weight")),
            *(f"q_proj.{name}" for name in ("bias", "weight.left", "weight.right")),
            *(f"v_proj.{name}" for name in ("bias", "weight")),
        ],
    ),
}
"""Layers whose states are stored, and the names in them, as the documentation has them."""


def example(name: str) -> Call:
    if name == "embedding":
        return Call.of(torch.tensor([[2, 7, 11], [0, 2, 4]]))
    torch.manual_seed(0)
    x = torch.randn({"conv": (2, 8, 5, 5), "linear": (3, 6), "lstm": (3, 2, 6)}.get(name, (3, 2, 8)))
    return Call(lambda n: (x,) * (3 if name == "attention" else 1))


@pytest.mark.parametrize("name", KEPT)
def test_states_of_older_versions_are_loaded_and_give_what_they_gave(name: str) -> None:
    make, names = KEPT[name]
    stored = safetensors.torch.load_file(STATES / f"{name}.safetensors")
    expected = {key: stored.pop(key) for key in list(stored) if key.startswith("output.")}
    layer = make()
    assert sorted(layer.state_dict()) == names == sorted(stored)
    layer.load_state_dict(stored)
    y = example(name)(layer)
    y = y[0] if isinstance(y, tuple) else y
    assert_equal(y, expected["output.0"], f"the stored state of {name}")


@pytest.mark.parametrize("trace", ["compile", "export"])
def test_packed_sequences_cannot_be_traced(trace: str) -> None:
    """A gap of ours and not of torch's export: what happens at each moment depends on the lengths."""
    layer = FactorizedLSTM(6, 4, rank=2)
    rows, sizes = nn.utils.rnn.pack_sequence([torch.randn(3, 6), torch.randn(2, 6)])[:2]

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, rows: Tensor, sizes: Tensor) -> Tensor:
            return self.layer(nn.utils.rnn.PackedSequence(rows, sizes))[0].data

    assert Packed()(rows, sizes).shape == (5, 4)
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"[Uu]nsupported|data-dependent|tolist|symbolic|unbacked"):
        if trace == "compile":
            torch.compile(Packed(), fullgraph=True, backend="eager")(rows, sizes)
        else:
            torch.export.export(Packed(), (rows, sizes))


def test_safetensors_has_no_complex_numbers_of_two_doubles() -> None:
    """A gap of the file format."""
    layer = FactorizedLinear(6, 4, rank=2, bias=False, dtype=torch.complex128)
    with pytest.raises(Exception, match="complex128"):
        safetensors.torch.save(layer.state_dict())


@pytest.mark.parametrize("layer", ["TransformerEncoderLayer", "EmbeddingBag"])
def test_vmap_warns_where_torch_has_no_batched_kernel(layer: str) -> None:
    """A gap of torch, which does one after the other then."""
    sparse = next((c for c in cases(layer, "tt") if c.options.get("sparse")), cases(layer, "tt")[0])
    with pytest.warns(UserWarning, match="have not yet implemented the batching rule"):
        check_case(sparse, ["ensemble"])


def test_kernels_that_are_repeated_for_groups_go_through_vmap() -> None:
    (case,) = (c for c in cases("Conv3d", "cp") if c.options.get("groups") == 2)
    check_case(case, ["ensemble", "sample_gradients"])

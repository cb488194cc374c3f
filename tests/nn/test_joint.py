"""Layers of one tensor are its slices, store what they share once, and stay joined."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from bond_cases import ALL_LAWS
from torch import Tensor, nn

from tenfold.checkpoint.arrays import read_arrays, write_arrays
from tenfold.compress import insert_gates_
from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.decompose import HOOI, TTSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.nn import joint, joint_random, replacement, tensor_dropout
from tenfold.nn.tensor.shared_factors import SharingTensor
from tenfold.testing import check_layer

COUNT = 4
LAYOUTS = {
    "lowrank": ("o i -> (o i)", "o i h w -> (o i h w)", "v o -> (v o)"),
    "sliced_lowrank": ("o i -> o i", "o i h w -> o (i h w)", "v o -> v o"),
    "kronecker": ("(o0=3 o1) i -> o0 o1 i", "o i h w -> o i (h w)", "(v0=4 v1) o -> v0 v1 o"),
}
DEFAULT = ("(o0=3 o1) i -> o0 o1 i", "o i h w -> o i (h w)", "(v0=4 v1) o -> v0 v1 o")

DENSE: list[tuple[Any, tuple[int, ...]]] = [
    (lambda: nn.Linear(10, 12, dtype=torch.float64), (3, 10)),
    (lambda: nn.Conv2d(6, 8, 3, padding=1, dtype=torch.float64), (2, 6, 5, 5)),
    (lambda: nn.Embedding(20, 6, padding_idx=2, dtype=torch.float64), (3, 4)),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Every case compiles the same functions; torch stops after eight."""
    torch.compiler.reset()


def dense_layers(kind: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [DENSE[kind][0]() for _ in range(COUNT)]


def family(format: str, kind: int = 0, ranks: Any = 3) -> tuple[nn.ModuleList, Tensor]:
    layers = joint_random(dense_layers(kind), ranks, format, LAYOUTS.get(format, DEFAULT)[kind])
    torch.manual_seed(1)
    shape = DENSE[kind][1]
    return layers, torch.randint(20, shape) if kind == 2 else torch.randn(shape, dtype=torch.float64)


def joint_tensor(layers: nn.ModuleList) -> Tensor:
    return torch.stack([layer.weight.dense() for layer in layers])


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["linear", "conv", "embedding"])
@pytest.mark.parametrize("format", list(formats))
def test_the_layers_are_the_slices_of_one_tensor(format: str, kind: int) -> None:
    dense = dense_layers(kind)
    cls = replacement(dense[0])
    layout = cls.bound(dense[0], LAYOUTS.get(format, DEFAULT)[kind])
    torch.manual_seed(5)
    value = formats[format].random((COUNT, *layout.mode_shape), 3, like=torch.zeros((), dtype=torch.float64))
    torch.manual_seed(5)
    layers = joint_random(dense, 3, format, LAYOUTS.get(format, DEFAULT)[kind], std=1.0)
    for layer, part in zip(layers, value.dense(), strict=True):
        torch.testing.assert_close(layer.weight.dense().detach(), layout.to_weight(part))
    assert sum(p.numel() for p in layers.parameters()) == value.numel + sum(
        layer.bias.numel() for layer in layers if layer.bias is not None
    )


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["linear", "conv", "embedding"])
@pytest.mark.parametrize("format", ALL_LAWS)
def test_every_layer_obeys_the_laws(format: str, kind: int) -> None:
    layers, x = family(format, kind)
    check_layer(layers[1], x)


@pytest.mark.parametrize("format", list(formats))
def test_a_layer_holds_its_own_slice_and_what_all_share(format: str) -> None:
    layers, _ = family(format)
    shared = {id(p) for p in layers[0].weight.shared.parameters()}
    for layer in layers:
        own = [p for name, p in layer.named_parameters() if not name.startswith("weight.shared.")]
        assert not {id(p) for p in own} & shared
        assert layer.weight.shared is layers[0].weight.shared
        assert layer.weight.numel() == sum(p.numel() for p in layer.weight.parameters())
        assert str(COUNT) not in {str(n) for p in own for n in p.shape}, "no layer holds the others' slices"
    assert "slice of" in repr(layers[0])


METHODS: list[tuple[int, Any, Any, str]] = [
    (0, HOOI(), (4, 12, 10), "o i -> o i"),
    (0, TTSVD(), 1000, "(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"),
    (0, TruncatedSVD(), 4, "o i -> (o i)"),
    (1, HOOI(), (4, 8, 6, None), "o i h w -> o i (h w)"),
    (1, HOOI(), (None, 8, 6, None), "o i h w -> o i (h w)"),
    (2, HOOI(), (4, 20, 6), "v o -> v o"),
]


@pytest.mark.parametrize("kind, method, ranks, layout", METHODS, ids=str)
def test_at_full_rank_the_layers_compute_what_the_dense_ones_do(
    kind: int, method: Any, ranks: Any, layout: str
) -> None:
    dense = dense_layers(kind)
    layers = joint(dense, method, ranks, layout)
    _, x = family("tucker", kind)
    for layer, twin in zip(layers, dense, strict=True):
        torch.testing.assert_close(layer(x), twin(x))
        torch.testing.assert_close(layer.to_dense()(x), twin(x))
        if twin.bias is not None if hasattr(twin, "bias") else False:
            assert layer.bias.data_ptr() != twin.bias.data_ptr()


@pytest.mark.parametrize(
    "dense, layout, shapes",
    [
        (lambda: nn.ConvTranspose2d(6, 8, 3, stride=2), "i o h w -> i o (h w)", [(2, 6, 4, 4)]),
        (lambda: nn.Bilinear(5, 6, 7), "o i0 i1 -> o i0 i1", [(3, 5), (3, 6)]),
        (lambda: nn.Conv1d(6, 8, 3, groups=2), "(g=2 o) i w -> g o (i w)", [(2, 6, 9)]),
    ],
    ids=["transposed", "bilinear", "grouped"],
)
def test_every_layer_type_can_be_joined(dense: Any, layout: str, shapes: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape) for shape in shapes]
    layers = joint_random([dense() for _ in range(3)], 3, "tucker", layout)
    for layer in layers:
        torch.testing.assert_close(layer(*inputs), layer.to_dense()(*inputs), rtol=1e-4, atol=1e-5)


def test_layers_that_are_alike_take_few_parameters_together() -> None:
    torch.manual_seed(0)
    basis = torch.randn(2, 30, 30)
    dense = [nn.Linear(30, 30) for _ in range(8)]
    with torch.no_grad():
        for layer in dense:
            layer.weight.copy_(torch.tensordot(torch.randn(2), basis, 1))
    layers = joint(dense, HOOI(), (2, None, None), "o i -> o i")
    x = torch.randn(4, 30)
    for layer, twin in zip(layers, dense, strict=True):
        torch.testing.assert_close(layer(x), twin(x), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in layers.parameters()) == 2 * 900 + 8 * 2 + 8 * 30


def test_settings_and_biases_are_each_layers_own() -> None:
    dense = [nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.Conv2d(6, 8, 3, padding=1)]
    dense[0].eval()
    dense[1].weight.requires_grad_(True)
    layers = joint_random(dense, 3, "cp", "o i h w -> o i (h w)")
    assert layers[0].bias is None and layers[1].bias is not None
    assert not layers[0].training and layers[1].training
    strided = [nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1, stride=2)]
    layers = joint_random(strided, 3, "cp", "o i h w -> o i (h w)")
    assert layers[1](torch.zeros(1, 6, 6, 6)).shape == (1, 8, 3, 3)


@pytest.mark.parametrize("format", list(formats))
def test_copies_moves_and_loaded_states_stay_joined(format: str) -> None:
    layers, x = family(format)
    expected = [layer(x) for layer in layers]
    other, meta = family(format)[0], copy.deepcopy(layers).to("meta")
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(layers.state_dict())
    meta.load_state_dict({k: v.contiguous() for k, v in layers.state_dict().items()}, assign=True)
    for twin in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers)), other, meta):
        torch.testing.assert_close([layer(x) for layer in twin], expected)
        assert len({id(layer.weight.shared) for layer in twin}) == 1
        assert len(list(twin.parameters())) == len(list(layers.parameters()))
    assert {p.dtype for p in layers.bfloat16().parameters()} == {torch.bfloat16}
    assert layers[0].weight.shared is layers[1].weight.shared


@pytest.mark.parametrize("kind", [0, 1])
def test_a_file_has_shared_factors_once(kind: int, tmp_path: Path) -> None:
    layers, x = family("tt", kind)
    model = nn.ModuleDict({"a": nn.Sequential(*layers[:2]), "b": nn.Sequential(*layers[2:])})
    write_arrays(model, tmp_path / "m.safetensors")
    numel = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "m.safetensors").stat().st_size < 8 * numel + 6000
    twin = copy.deepcopy(model).to("meta")
    twin.load_state_dict(read_arrays(tmp_path / "m.safetensors", twin), assign=True)
    for old, new in zip(layers, [*twin["a"], *twin["b"]], strict=True):
        torch.testing.assert_close(new(x), old(x))
    assert sum(p.numel() for p in twin.parameters()) == numel


def test_training_one_layer_moves_what_is_shared_and_no_other_slice() -> None:
    layers, x = family("cp")
    before = joint_tensor(layers).detach()
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
    own = [layer.weight.get_parameter("arrays_0").detach().clone() for layer in layers]
    layers[0](x).square().sum().backward()
    optimizer.step()
    changed = [
        not torch.equal(a, b.weight.get_parameter("arrays_0")) for a, b in zip(own, layers, strict=True)
    ]
    assert changed == [True, False, False, False]
    assert all((joint_tensor(layers) - before).flatten(1).abs().amax(1) > 0)


def test_a_copy_of_one_layer_has_factors_of_its_own() -> None:
    layers, x = family("tucker")
    alone = copy.deepcopy(layers[2])
    expected = alone(x)
    with torch.no_grad():
        for p in layers[0].parameters():
            p.zero_()
    torch.testing.assert_close(alone(x), expected)


def test_dropout_acts_on_joint_layers_and_comes_off() -> None:
    layers, x = family("cp")
    before = layers[0](x)
    tensor_dropout(layers, 0.5)
    assert any(not torch.equal(layers[0](x), layers[0](x)) for _ in range(3))
    torch.testing.assert_close(layers.eval()[0](x), before)
    assert isinstance(pickle.loads(pickle.dumps(layers))[0].weight, SharingTensor)


@pytest.mark.slow
def test_the_whole_list_is_compiled_in_one_graph() -> None:
    layers, _ = family("tucker")

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            return sum(layer(x) for layer in self.layers) / len(self.layers)

    model = Mean()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (2, 5, 9):
        x = torch.randn(rows, 10, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), model(x))


def test_random_weights_have_the_deviation_of_torchs() -> None:
    torch.manual_seed(0)
    for dense, std in ((nn.Linear(40, 30), (3 * 40) ** -0.5), (nn.Embedding(30, 20), 1.0)):
        made = [
            joint_random([dense] * 3, 4, "tucker", layout)
            for layout in ["v o -> v o" if std == 1.0 else "o i -> o i"] * 60
        ]
        weights = torch.stack([layer.weight.dense().detach() for layers in made for layer in layers])
        assert weights.std().item() == pytest.approx(std, rel=0.15)


def test_layers_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(OptionError, match="no layers came"):
        joint([], HOOI(), 2, "o i -> o i")
    with pytest.raises(UnsupportedError, match="several types came: Conv1d, Linear"):
        joint([nn.Linear(4, 4), nn.Conv1d(4, 4, 1)], HOOI(), 2, "o i -> o i")
    with pytest.raises(ShapeError, match="weights of several shapes"):
        joint([nn.Linear(4, 4), nn.Linear(4, 5)], HOOI(), 2, "o i -> o i")
    with pytest.raises(UnsupportedError, match="no factorized layer for ReLU"):
        joint([nn.ReLU()], HOOI(), 2, "o i -> o i")
    with pytest.raises(UnsupportedError, match="sparse=True cannot be served"):
        joint([nn.Embedding(20, 6, sparse=True)] * 2, HOOI(), 2, "(v0=4 v1) o -> v0 v1 o")


def test_gates_of_whole_models_refuse_joint_layers_before_anything_is_changed() -> None:
    layers, _ = family("cp")
    with pytest.raises(UnsupportedError, match="layers of a joint factorization"):
        insert_gates_(layers)
    assert type(layers[0].weight) is SharingTensor

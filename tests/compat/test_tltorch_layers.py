"""Layers, tensor dropout and tensor lasso under TensorLy-Torch's names."""

import copy
import importlib
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import tenfold.compat.tltorch as tltorch
from tenfold.core.errors import ConvergenceWarning, OptionError, ShapeError, TenfoldError, UnsupportedError
from tenfold.nn import RowError
from tests.compat.run_upstream import upstream

KERNELS = ["cp", "tucker", "tt", "dense"]
MATRICES = ["cp", "tucker", "blocktt", "dense"]
DOUBLE = torch.float64


def linear(factorization: str = "cp", **options: Any) -> Any:
    return tltorch.FactorizedLinear(
        (4, 3), (5, 2), factorization=factorization, rank=3, dtype=DOUBLE, **options
    )


def conv(factorization: str = "cp", **options: Any) -> Any:
    options = {"kernel_size": 3, "order": 2, "rank": 3, "bias": True, "padding": 1} | options
    return tltorch.FactorizedConv(4, 6, factorization=factorization, dtype=DOUBLE, **options)


def embedding(factorization: str = "blocktt", **options: Any) -> Any:
    return tltorch.FactorizedEmbedding(24, 8, factorization=factorization, rank=3, dtype=DOUBLE, **options)


def regression(factorization: str = "tt", **options: Any) -> Any:
    return tltorch.TRL(
        (4, 3), (5, 2), factorization=factorization, rank=3, bias=True, dtype=DOUBLE, **options
    )


LAYERS = {
    **{f"linear {f}": (lambda f=f: linear(f), (2, 12)) for f in MATRICES},
    **{f"conv {f}": (lambda f=f: conv(f), (2, 4, 7, 6)) for f in KERNELS},
    **{f"embedding {f}": (lambda f=f: embedding(f), (5,)) for f in MATRICES},
    **{f"TRL {f}": (lambda f=f: regression(f), (2, 4, 3)) for f in KERNELS},
    "TCL": (lambda: tltorch.TCL((4, 3), (2, 5), bias=True, dtype=DOUBLE), (2, 4, 3)),
}


SHAPES: dict[Any, tuple[int, ...]] = {linear: (2, 12), conv: (2, 4, 7, 6), regression: (2, 4, 3)}


def made(name: str) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    x = torch.randint(24, shape) if name.startswith("embedding") else torch.randn(shape, dtype=DOUBLE)
    return build(), x


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_compiles_in_one_graph_with_any_batch(name: str) -> None:
    layer, x = made(name)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="eager")
    for batch in (x, torch.cat([x, x, x])):
        torch.testing.assert_close(compiled(batch), layer(batch))


@pytest.mark.parametrize("build", [linear, conv, embedding, regression])
def test_one_of_several_layers_compiles_with_dropout_on_the_weight(build: Any) -> None:
    layer = build("tucker", n_layers=2)
    x = torch.randint(24, (5,)) if build is embedding else torch.randn(*SHAPES[build], dtype=DOUBLE)
    tltorch.tensor_dropout(layer.weight, p=0.5, min_dim=1)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert not torch.equal(compiled(x, 1), compiled(x, 1))
    layer.eval()
    torch.testing.assert_close(compiled(x, 1), layer(x, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_exports_with_a_dynamic_batch(name: str) -> None:
    layer, x = made(name)
    program = torch.export.export(layer, (torch.cat([x, x]),), dynamic_shapes=({0: Dim.DYNAMIC},))
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_copies_of_a_layer_share_nothing_and_states_go_round(name: str) -> None:
    layer, x = made(name)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x))
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in layer.parameters()}
    other = copy.deepcopy(layer).to("meta")
    other.load_state_dict(layer.state_dict(), assign=True)
    torch.testing.assert_close(other(x), layer(x))


@pytest.mark.parametrize("factorization", MATRICES)
@pytest.mark.parametrize("how", ["factorized", "reconstructed"])
@pytest.mark.parametrize("n_layers", [1, 3, (2, 2)])
def test_linear_layers_equal_their_dense_matrices(factorization: str, how: str, n_layers: Any) -> None:
    layer = linear(factorization, implementation=how, n_layers=n_layers, checkpointing=True)
    x = torch.randn(2, 7, 12, dtype=DOUBLE, requires_grad=True)
    indices = {1: [0], 3: [0, 2]}.get(n_layers, [(1, 0)])
    for i in indices:
        weight, bias = (layer.weight.to_matrix(), layer.bias)
        weight, bias = (weight, bias) if n_layers == 1 else (weight[i], bias[i])
        wanted = nn.functional.linear(x, weight, bias)
        torch.testing.assert_close(layer(x, i), wanted)
        if n_layers != 1:
            torch.testing.assert_close(layer[i](x), wanted)
        found = torch.autograd.grad(layer(x, i).sum(), [x, *layer.parameters()], allow_unused=True)
        expected = torch.autograd.grad(wanted.sum(), [x, *layer.parameters()], allow_unused=True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("factorization", KERNELS)
@pytest.mark.parametrize("how", ["factorized", "reconstructed"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    "dense",
    [
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), dtype=DOUBLE),
        nn.Conv2d(4, 6, 3, padding="same", bias=False, dtype=DOUBLE),
        nn.Conv2d(4, 6, (4, 3), padding="same", dtype=DOUBLE),
        nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular", dtype=DOUBLE),
        nn.Conv2d(6, 6, 3, groups=6, padding=1, padding_mode="reflect", dtype=DOUBLE),
        nn.Conv1d(4, 6, 5, stride=2, padding="valid", dtype=DOUBLE),
        nn.Conv3d(4, 4, 2, padding=1, dtype=DOUBLE),
    ],
    ids=str,
)
def test_a_convolution_takes_over_all_settings(dense: Any, factorization: str, how: str) -> None:
    torch.manual_seed(0)
    layer = tltorch.FactorizedConv.from_conv(dense, 0.9, how, factorization, decompose_weights=False)
    x = torch.randn(2, dense.in_channels, *(9, 8, 7)[: len(dense.kernel_size)], dtype=DOUBLE)
    kernels = importlib.import_module("tenfold.compat.tltorch.factorized_layers.kernel_shapes")
    kernel = kernels.tensor_to_kernel(factorization, layer.weight.to_tensor())
    twin = copy.deepcopy(dense)
    twin.weight = nn.Parameter(kernel.detach())
    torch.testing.assert_close(layer(x), twin(x))
    torch.testing.assert_close(layer(x[0]), twin(x[0]))
    if dense.bias is not None:
        assert layer.bias is not None and layer.bias.data_ptr() != dense.bias.data_ptr()


@pytest.mark.parametrize("factorization", ["tucker", "tt"])
def test_fits_at_full_rank_compute_what_the_dense_layers_do(factorization: str) -> None:
    convs = [nn.Conv2d(3, 4, 3, padding=k, stride=k + 1, bias=k == 1, dtype=DOUBLE) for k in range(2)]
    joint = tltorch.FactorizedConv.from_conv_list(convs, 100, factorization=factorization)
    x = torch.randn(2, 3, 8, 8, dtype=DOUBLE)
    for k, dense in enumerate(convs):
        torch.testing.assert_close(joint[k](x), dense(x))
    train = "blocktt" if factorization == "tt" else factorization
    lines = [nn.Linear(12, 10, bias=k > 0, dtype=DOUBLE) for k in range(2)]
    stack = tltorch.FactorizedLinear.from_linear_list(lines, (4, 3), (5, 2), 100, factorization=train)
    y = torch.randn(7, 12, dtype=DOUBLE)
    for k, line in enumerate(lines):
        torch.testing.assert_close(stack[k](y), line(y))
        alone = tltorch.FactorizedLinear.from_linear(line, 100, n_tensorized_modes=2, factorization=train)
        torch.testing.assert_close(alone(y), line(y))
    tables = [nn.Embedding(12, 10, dtype=DOUBLE) for _ in range(2)]
    tables_joint = tltorch.FactorizedEmbedding.from_embedding_list(tables, 100, train)
    for k, table in enumerate(tables):
        torch.testing.assert_close(tables_joint(torch.arange(12), k), table(torch.arange(12)))


def test_an_embedding_keeps_the_settings_of_the_dense_one() -> None:
    dense = nn.Embedding(24, 8, padding_idx=3, max_norm=1.0, dtype=DOUBLE)
    layer = tltorch.FactorizedEmbedding.from_embedding(dense, 100)
    indices = torch.tensor([[3, 0], [23, 3]])
    torch.testing.assert_close(layer(indices), dense(indices))
    layer(indices).sum().backward()
    with pytest.raises(RowError):
        layer(torch.tensor([24]))


@pytest.mark.parametrize("factorization", ["cp", "tucker", "tt"])
@pytest.mark.filterwarnings("ignore::tenfold.core.errors.ConvergenceWarning")
def test_a_regression_layer_takes_over_pooling_and_linear_layer(factorization: str) -> None:
    head = nn.Linear(6, 5, dtype=DOUBLE)
    layer = tltorch.TRL((6, 3, 2), 5, bias=True, factorization=factorization, rank=6, dtype=DOUBLE)
    layer.init_from_linear(
        head, unsqueezed_modes=[1, 2], **({"n_iter_max": 500} if factorization == "cp" else {})
    )
    x = torch.randn(4, 6, 3, 2, dtype=DOUBLE)
    torch.testing.assert_close(layer(x), head(x.mean((2, 3))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factorization", ["cp", "tucker", "tt"])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_a_transduced_convolution_convolves_frame_by_frame(factorization: str, mode: int) -> None:
    layer = conv(factorization)
    x = torch.randn(2, 4, 7, 6, dtype=DOUBLE)
    wanted = layer(x)
    layer.transduct(3, mode, padding=1)
    video = x.unsqueeze(2 + mode).repeat_interleave(5, 2 + mode)
    for k in range(5):
        torch.testing.assert_close(layer(video).select(2 + mode, k), wanted)
    assert sum(p.requires_grad for p in layer.parameters()) == 1
    assert layer.kernel_size == (3, 3, 3) and layer(video).requires_grad


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "TCL" and "dense" not in n])
def test_dropout_on_the_weight_of_a_layer_acts_in_training_and_keeps_the_mean(name: str) -> None:
    layer, x = made(name)
    wanted = layer(x)
    tltorch.tensor_dropout(layer.weight, p=0.3, min_dim=1)
    draws = torch.stack([layer(x) for _ in range(200)]).detach()
    assert float(draws.std(0).max()) > 0
    error = (draws.mean(0) - wanted).abs().max() / draws.std(0).max()
    assert error < 0.45, "within the noise of 200 draws, and of the draws in which a bond would be empty"
    torch.testing.assert_close(layer.eval()(x), wanted)
    tltorch.remove_tensor_dropout(layer.weight)
    torch.testing.assert_close(layer.train()(x), wanted)
    assert not layer.weight._forward_hooks


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "TCL" and "dense" not in n])
def test_lasso_on_the_weight_of_a_layer_acts_and_is_penalised_once(name: str) -> None:
    layer, x = made(name)
    kind = layer.weight.name
    lasso = tltorch.tensor_lasso(kind, penalty=0.1, clamp_weights=False, normalize_loss=False)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    wanted = layer(x).detach()
    lasso.apply(layer.weight)
    with pytest.raises(OptionError):
        _ = lasso.loss
    torch.testing.assert_close(layer(x), wanted)
    layer(x)
    count = sum(layer.weight.network.ranks.values())
    torch.testing.assert_close(lasso.loss.item(), 0.1 * count)
    lasso.loss.backward()
    lasso.reset()
    lasso.set_weights(layer.weight, -0.5)
    bonds = len(layer.weight.network.ranks)
    torch.testing.assert_close(layer(x), wanted * (-0.5) ** bonds)
    lasso.set_weights(layer.weight, 0.0)
    torch.testing.assert_close(layer(x), torch.zeros_like(wanted))
    tltorch.remove_tensor_lasso(layer.weight)
    torch.testing.assert_close(layer(x), wanted)


def test_new_layers_have_the_deviation_of_torch_s() -> None:
    torch.manual_seed(0)
    draws = [tltorch.FactorizedLinear((8, 8), (8, 8), factorization="blocktt", rank=8) for _ in range(30)]
    deviation = torch.stack([x.weight.to_matrix() for x in draws]).std()
    assert deviation.item() == pytest.approx(1 / (3 * 64) ** 0.5, rel=0.1)
    kernels = [tltorch.FactorizedConv(16, 16, 3, order=2, rank=16) for _ in range(30)]
    deviation = torch.stack([x.weight.to_tensor() for x in kernels]).std()
    assert deviation.item() == pytest.approx(1 / (3 * 144) ** 0.5, rel=0.15)


def test_half_precision_layers_are_fitted_and_stay_half() -> None:
    line = nn.Linear(12, 10, dtype=torch.bfloat16)
    layer = tltorch.FactorizedLinear.from_linear(line, 100, n_tensorized_modes=2, factorization="blocktt")
    x = torch.randn(3, 12, dtype=torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
    torch.testing.assert_close(layer(x), line(x), rtol=0.05, atol=0.05)


def test_a_hook_of_the_user_on_the_weight_is_heard() -> None:
    layer, x = made("linear cp")
    layer.weight.register_forward_hook(lambda module, args, output: 2 * output.to_matrix())
    plain = layer.bias
    torch.testing.assert_close(layer(x), nn.functional.linear(x, 2 * layer.weight.to_matrix(), plain))


BAD: list[tuple[Any, type[TenfoldError]]] = [
    (lambda: linear(implementation="fast"), OptionError),
    (lambda: linear(n_layers=0), OptionError),
    (lambda: linear()(torch.ones(2, 11, dtype=DOUBLE)), ShapeError),
    (lambda: linear()(torch.ones(2, 12, dtype=DOUBLE), 1), OptionError),
    (lambda: linear()[0], OptionError),
    (lambda: tltorch.FactorizedLinear.from_linear(nn.Linear(4, 4), bias=False), OptionError),
    (lambda: tltorch.FactorizedLinear.from_linear(nn.Conv2d(4, 4, 1)), UnsupportedError),
    (lambda: tltorch.FactorizedConv.from_conv(nn.ConvTranspose2d(4, 4, 3)), UnsupportedError),
    (lambda: tltorch.FactorizedConv(4, 4, 3), OptionError),
    (lambda: tltorch.FactorizedConv(4, 4, 3, order=4), UnsupportedError),
    (lambda: conv(has_bias=True, bias=False), OptionError),
    (lambda: conv("cp", fixed_rank_modes="spatial"), OptionError),
    (lambda: conv("dense").transduct(3), UnsupportedError),
    (lambda: embedding(tensorized_num_embeddings=(4, 6)), OptionError),
    (lambda: tltorch.FactorizedEmbedding.from_embedding(nn.Embedding(8, 8, sparse=True)), OptionError),
    (lambda: regression(verbose=1), OptionError),
    (lambda: regression().init_from_linear(nn.Linear(12, 10, bias=False)), OptionError),
    (lambda: tltorch.TCL((4, 3), (2,)), OptionError),
    (lambda: tltorch.tensor_dropout(linear().weight, 1), OptionError),
    (lambda: tltorch.tensor_dropout(linear(), 0.5), OptionError),
    (lambda: tltorch.remove_tensor_dropout(linear().weight), OptionError),
    (lambda: tltorch.tensor_lasso("cp").apply(conv("tt").weight), OptionError),
    (lambda: tltorch.tensor_lasso("ring"), OptionError),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_a_layer_cannot_serve_is_refused_by_name(number: int) -> None:
    call, error = BAD[number]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value)


def test_settings_cannot_be_changed_where_that_would_have_no_effect() -> None:
    layer = conv()
    with pytest.raises(ValueError, match="read-only"):
        layer.stride[0] = 2
    layer.set(0, stride=2, padding=1)
    assert layer(torch.zeros(1, 4, 8, 8, dtype=DOUBLE)).shape == (1, 6, 4, 4)


@pytest.mark.skipif(upstream() is None, reason="TensorLy-Torch and TensorLy are not installed")
@pytest.mark.filterwarnings("ignore")
def test_states_of_tensorly_torch_load_and_compute_the_same() -> None:
    theirs = importlib.import_module("tltorch")
    x, image = torch.randn(2, 12), torch.randn(2, 4, 7, 7)
    for name in ("cp", "tucker", "blocktt"):
        args = ((4, 3), (5, 2), True, name, 2)
        a, b = theirs.FactorizedLinear(*args), tltorch.FactorizedLinear(*args)
        b.load_state_dict(a.state_dict())
        torch.testing.assert_close(b(x), a(x))
        a.load_state_dict(b.state_dict())
    for name in ("cp", "tucker", "tt"):
        args = (4, 6, 3, 2, 1, 1, 1, True)
        a, b = (k.FactorizedConv(*args, factorization=name, rank=3) for k in (theirs, tltorch))
        a.reset_parameters(0.1)
        b.load_state_dict(a.state_dict())
        torch.testing.assert_close(b(image), a(image), rtol=1e-4, atol=1e-5)


def test_an_unconverged_fit_warns() -> None:
    with pytest.warns(ConvergenceWarning):
        tltorch.CPTensor.from_tensor(torch.randn(6, 6, 6), 5, n_iter_max=2)


def test_numbers_of_layers_may_be_numpys() -> None:
    assert tltorch.FactorizedLinear((2, 2), (2, 2), n_layers=np.int64(2)).n_layers == 2
    with pytest.raises(OptionError, match=r"n_layers=1\.5 came"):
        tltorch.FactorizedLinear((2, 2), (2, 2), n_layers=1.5)

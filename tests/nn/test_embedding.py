"""Factorized embeddings equal their dense twins in every format, layout and option."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, OptionError, RankError, ShapeError
from tenfold.decompose import TTSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.nn import FactorizedEmbedding, FactorizedEmbeddingBag, RowError
from tenfold.nn.embedding.table import FactorizedTable
from tenfold.nn.embedding.vocabulary import digits_above, table_layout
from tenfold.testing import check_layer
from tenfold.testing.compare import assert_equal
from tenfold.testing.layers import check_dense_twin

ROWS, DIM = 20, 12
TRAIN = "(v0=4 v1) (o0=3 o1) -> (v0 o0) (v1 o1)"
LAYOUTS = [
    "v o -> v o",
    "v o -> o v",
    TRAIN,
    "v (o0=3 o1) -> v o0 o1",
    "(v0=4 v1) o -> v1 o v0",
    "(v0=4 v1) (o0=3 o1) -> v0 v1 o0 o1",
    "(v0=2 v1=2 v2) (o0=2 o1=2 o2) -> (v0 o0) (v1 o1) (v2 o2)",
    "(v0=4 v1=6) (o0=3 o1) -> o0 (v1 o1) v0",
]
"""The last one has rows that pad it."""


def holds(format: str, layout: str) -> bool:
    """Whether the format has tensors of this order."""
    try:
        formats[format].skeleton(table_layout(layout, ROWS, DIM).mode_shape, 2)
    except ShapeError:
        return False
    return True


TABLES = [(format, layout) for format in formats for layout in LAYOUTS if holds(format, layout)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"padding_idx": 3},
    {"padding_idx": -1, "max_norm": 1.0},
    {"max_norm": 2.0, "norm_type": 1.0},
    {"scale_grad_by_freq": True},
    {"padding_idx": 0, "scale_grad_by_freq": True, "max_norm": 0.5},
]
BAGS: list[dict[str, Any]] = [
    {"mode": mode, **o}
    for mode in ("sum", "mean", "max")
    for o in OPTIONS
    if "scale_grad_by_freq" not in o  # which has a test of its own
]
COUNTS = [1, 10**6]
"""Planned numbers of indices: with few rows are looked up factor by factor, with many the table is made."""


def embedding(format: str, layout: str, rows: int = 12, **options: Any) -> FactorizedEmbedding:
    torch.manual_seed(0)
    return FactorizedEmbedding(
        ROWS, DIM, rank=2, format=format, layout=layout, example=(rows,), dtype=torch.float64, **options
    )


def embedding_bag(
    format: str, layout: str, shape: tuple[int, int] = (3, 4), **options: Any
) -> FactorizedEmbeddingBag:
    torch.manual_seed(0)
    return FactorizedEmbeddingBag(
        ROWS, DIM, rank=2, format=format, layout=layout, example=shape, dtype=torch.float64, **options
    )


def indices(*shape: int) -> Tensor:
    """Indices with repetitions, the padding of the options among them."""
    x = torch.randint(ROWS, shape, generator=torch.Generator().manual_seed(1))
    return x.flatten().index_copy(0, torch.arange(4), torch.tensor([3, 19, 0, 3])).reshape(shape)


@pytest.mark.parametrize("rows", COUNTS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("format, layout", TABLES)
def test_embedding_equals_its_dense_twin(
    format: str, layout: str, options: dict[str, Any], rows: int
) -> None:
    layer = embedding(format, layout, rows, **options)
    check_dense_twin(layer, indices(3, 5))


@pytest.mark.parametrize("bags", COUNTS)
@pytest.mark.parametrize("options", BAGS, ids=str)
@pytest.mark.parametrize("format, layout", TABLES)
def test_bag_equals_its_dense_twin(format: str, layout: str, options: dict[str, Any], bags: int) -> None:
    layer = embedding_bag(format, layout, (bags, 4), **options)
    check_dense_twin(layer, indices(3, 4))
    x = torch.tensor([[3, 3, 19, 3]])  # a bag with nothing but padding, for two of the options
    with torch.no_grad():
        assert_equal(layer(x), layer.to_dense()(x), "bags of padding equal the dense ones")


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("format, layout", TABLES)
def test_bags_scale_gradients_by_frequency(format: str, layout: str, mode: str) -> None:
    """As torch documents it; its bag divides by counts of other indices on a CPU."""
    layer, x = embedding_bag(format, layout, mode=mode, scale_grad_by_freq=True, padding_idx=0), indices(3, 4)
    rows = F.embedding(x, layer.dense_weight(), padding_idx=0, scale_grad_by_freq=True)
    kept = (x != 0).unsqueeze(-1)
    expected = (rows * kept).sum(1) / (kept.sum(1) if mode == "mean" else 1)
    found, factors = layer(x), layer.weight.factors()
    assert_equal(found, expected, "bags that scale gradients")
    upstream = torch.randn_like(found)
    for own, wanted in zip(
        torch.autograd.grad(found, factors, upstream),
        torch.autograd.grad(expected, factors, upstream),
        strict=True,
    ):
        assert_equal(own, wanted, "gradients are divided by frequencies")


@pytest.mark.slow
@pytest.mark.parametrize("make", [embedding, embedding_bag])
@pytest.mark.parametrize("format, layout", TABLES)
def test_every_format_obeys_every_law(format: str, layout: str, make: Any) -> None:
    torch.compiler.reset()  # torch compiles one method for a few layers only
    check_layer(make(format, layout, padding_idx=3), indices(3, 4))


@pytest.mark.parametrize("options", [OPTIONS[5], {"padding_idx": 3, "sparse": True}], ids=str)
def test_options_obey_every_law(options: dict[str, Any]) -> None:
    x = indices(3, 4)
    if options.get("sparse"):
        check_dense_twin(embedding("lowrank", "v o -> v o", **options), x)
        check_dense_twin(embedding_bag("cp", "v (o0=3 o1) -> v o0 o1", **options), x)
        return
    check_layer(embedding("tt", TRAIN, **options), x)
    check_layer(embedding_bag("tt", LAYOUTS[-1], padding_idx=0, max_norm=0.5, mode="max"), x)


# Inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [LAYOUTS[0], TRAIN, LAYOUTS[-1]])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_indices_come_in_any_shape(layout: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer = embedding("tt", layout, padding_idx=3)
    x = torch.randint(ROWS, shape, dtype=dtype)
    assert_equal(layer(x), layer.to_dense()(x), "an embedding of indices of any shape")
    y = torch.randint(ROWS, (*shape, 6), dtype=dtype).movedim(-1, 0)[::2]
    assert_equal(layer(y), layer.to_dense()(y), "an embedding of indices that are not contiguous")


@pytest.mark.parametrize("layout", [LAYOUTS[0], TRAIN, LAYOUTS[-1]])
@pytest.mark.parametrize("index", [-1, ROWS, 10**6])
def test_an_index_out_of_range_is_an_index_error(layout: str, index: int) -> None:
    with pytest.raises(RowError, match=r"has 20 rows.\nGive indices from 0 to 19"):
        embedding("tt", layout)(torch.tensor([0, index]))
    with pytest.raises(IndexError):
        embedding_bag("tt", layout)(torch.tensor([[0, index]]))


BAG_INPUTS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 2, 2, 7]),
    ({"include_last_offset": True}, [0, 2, 2, 7, 11]),
    ({"padding_idx": 3}, [0, 1, 4]),
    ({"include_last_offset": True, "padding_idx": 3}, [0, 1, 1, 11]),
]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("layout", [LAYOUTS[0], TRAIN, LAYOUTS[-1]])
@pytest.mark.parametrize("options, offsets", BAG_INPUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_bags_of_different_lengths_equal_the_dense_ones(
    options: dict[str, Any], offsets: list[int], layout: str, mode: str, dtype: torch.dtype
) -> None:
    layer = embedding_bag("tt", layout, mode=mode, **options)
    x, starts = indices(11).to(dtype), torch.tensor(offsets, dtype=dtype)
    weights = torch.randn(11, dtype=torch.float64, requires_grad=True) if mode == "sum" else None
    table = layer.dense_weight()
    expected = torch.func.functional_call(layer.to_dense(), {"weight": table}, (x, starts, weights))
    found = layer(x, starts, weights)
    assert_equal(found, expected, "bags with offsets equal the dense ones")
    leaves = [*layer.weight.factors(), *([] if weights is None else [weights])]
    upstream = torch.randn_like(found)
    for own, wanted in zip(
        torch.autograd.grad(found, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        assert_equal(own, wanted, "bags with offsets have the dense gradients")
    with torch.no_grad():
        assert_equal(layer(x, starts, weights), expected, "bags without gradients equal those with")


def test_weights_of_indices_come_in_the_shape_of_the_indices() -> None:
    layer, x, weights = embedding_bag("cp", TRAIN, mode="sum"), indices(3, 4), torch.randn(3, 4).double()
    assert_equal(layer(x, None, weights), layer.to_dense()(x, None, weights), "weighted bags")
    with pytest.raises(ShapeError, match="Give a weight for each index"):
        layer(x, None, weights[0])
    with pytest.raises(OptionError, match=r"per_sample_weights came in mode 'mean'"):
        embedding_bag("cp", TRAIN)(x, None, weights)
    for wrong in [(indices(4), None), (x, torch.tensor([0]))]:
        with pytest.raises(ShapeError, match="Give \\(bags, length\\) without"):
            layer(*wrong)


@pytest.mark.parametrize("offsets", [[1, 2], [0, 5], [0, 3, 2], [-1, 1]], ids=str)
@pytest.mark.parametrize("learns", [True, False])
def test_offsets_that_are_no_bags_are_refused(offsets: list[int], learns: bool) -> None:
    layer = embedding_bag("cp", TRAIN, mode="sum")
    with torch.set_grad_enabled(learns), pytest.raises(ShapeError, match="Let them begin with 0"):
        layer(indices(4), torch.tensor(offsets))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_bags_are_zero(shape: tuple[int, int]) -> None:
    for mode in ("sum", "mean", "max"):
        y = embedding_bag("tt", TRAIN, mode=mode)(torch.zeros(shape, dtype=torch.int64))
        assert y.shape == (shape[0], DIM) and not y.any()


# Options -------------------------------------------------------------------------------------------------


def test_a_padding_row_is_exactly_that_of_the_dense_layer_and_stays_it() -> None:
    dense = nn.Embedding.from_pretrained(torch.randn(ROWS, DIM), freeze=False, padding_idx=3)
    layer = FactorizedEmbedding.from_embedding(dense, TruncatedSVD(), 2)
    x = indices(3, 5)
    assert torch.equal(layer(x)[x == 3], dense(x)[x == 3])
    torch.optim.SGD(layer.parameters(), 0.1).zero_grad()
    layer(x).square().sum().backward()
    torch.optim.SGD(layer.parameters(), 0.1).step()
    assert torch.equal(layer(x)[x == 3], dense(x)[x == 3])
    assert torch.equal(layer.to_dense().weight[3], dense.weight[3])


def test_states_with_and_without_a_padding_row_go_into_one_another() -> None:
    table = torch.randn(ROWS, DIM)
    with_row = FactorizedEmbedding.from_embedding(
        nn.Embedding.from_pretrained(table, padding_idx=3), TruncatedSVD(), 2
    )
    without = FactorizedEmbedding(ROWS, DIM, padding_idx=3, rank=2)
    states = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in (with_row, without)]
    outputs = [layer(indices(3, 5)).detach() for layer in (with_row, without)]
    without.load_state_dict(states[0])
    with_row.load_state_dict(states[1])
    assert torch.equal(without(indices(3, 5)), outputs[0])
    assert torch.equal(with_row(indices(3, 5)), outputs[1])
    made = FactorizedEmbedding(ROWS, DIM, padding_idx=3, rank=2, device="meta")
    made.load_state_dict(states[0], assign=True)
    assert torch.equal(made(indices(3, 5)), outputs[0])


def test_only_factors_with_the_vocabulary_have_sparse_gradients() -> None:
    for make in (embedding, embedding_bag):
        layer = make("tt", "v (o0=3 o1) -> o0 v o1", sparse=True)
        layer(indices(3, 4)).sum().backward()
        assert [f.grad.is_sparse for f in layer.weight.factors()] == [False, True, False]


def test_what_cannot_be_served_is_refused_by_name() -> None:
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (OptionError, "sparse=True cannot be served", {"sparse": True, "layout": TRAIN, "format": "tt"}),
        (OptionError, "padding_idx came as 20", {"padding_idx": 20}),
        (OptionError, "padding_idx came as -21", {"padding_idx": -21}),
        (OptionError, "max_norm came as -1", {"max_norm": -1.0}),
        (OptionError, "norm_type came as 0", {"norm_type": 0}),
        (OptionError, "rank=2 and params=30 came", {"params": 30}),
        (OptionError, "padded_to came as 32", {"padded_to": 32}),
        (OptionError, "padded_to came as 16", {"padded_to": 16, "layout": TRAIN}),
        (RankError, "a fraction of the parameters came as 1.5", {"rank": 1.5}),
        (LayoutError, "4 \\* 4 = 16 rows, but the table has 20", {"layout": "(v0=4 v1=4) o -> v0 (v1 o)"}),
        (LayoutError, "does not say its role", {"layout": "i o -> i o"}),
        (LayoutError, "describes 3", {"layout": "v o w -> v (o w)"}),
    ]
    for error, message, options in refused:
        for kind in (FactorizedEmbedding, FactorizedEmbeddingBag):
            with pytest.raises(error, match=message):
                kind(ROWS, DIM, **{"rank": 2, **options})
    with pytest.raises(OptionError, match="Give one of the two"):
        FactorizedEmbedding(ROWS, DIM)
    for options in ({"sparse": True}, {"scale_grad_by_freq": True}):
        with pytest.raises(OptionError, match="=True came with mode='max'"):
            FactorizedEmbeddingBag(ROWS, DIM, rank=2, mode="max", **options)
    with pytest.raises(OptionError, match="mode came as 'min'"):
        FactorizedEmbeddingBag(ROWS, DIM, rank=2, mode="min")


# From scratch and from a dense layer ---------------------------------------------------------------------


@pytest.mark.parametrize("format, layout", TABLES)
def test_entries_of_a_new_table_have_the_deviation_asked_for(format: str, layout: str) -> None:
    torch.manual_seed(0)
    drawn = (FactorizedEmbedding(ROWS, DIM, rank=4, format=format, layout=layout, std=0.5) for _ in range(60))
    stds = [layer.dense_weight().detach().std() for layer in drawn]
    assert abs(float(torch.stack(stds).square().mean().sqrt()) - 0.5) < 0.1


@pytest.mark.parametrize("size", [{"rank": 0.1}, {"params": 2000}])
def test_a_table_stays_within_the_fraction_or_number_of_parameters(size: dict[str, Any]) -> None:
    layer = FactorizedEmbedding(1009, 20, format="tt", layout="(v0 v1) (o0 o1) -> (v0 o0) (v1 o1)", **size)
    allowed = size.get("params", 0.1 * 1009 * 20)
    assert 0.8 * allowed < layer.weight.numel() <= allowed


def test_a_table_at_full_rank_is_the_dense_one() -> None:
    for dense in (nn.Embedding(23, 12, padding_idx=2), nn.EmbeddingBag(23, 12, mode="sum", padding_idx=2)):
        dense = dense.double().eval()
        x = torch.randint(23, (5, 4))
        for method, ranks, layout in [
            (TruncatedSVD(), 12, "v o -> v o"),
            (TTSVD(), 99, "(v0 v1) (o0 o1) -> (v0 o0) (v1 o1)"),
        ]:
            kind = FactorizedEmbedding if isinstance(dense, nn.Embedding) else FactorizedEmbeddingBag
            layer = kind.from_embedding(dense, method, ranks, layout)
            assert not layer.training and layer.num_embeddings == 23
            assert_equal(layer(x), dense(x), "a table at full rank")
            assert_equal(layer.to_dense().weight, dense.weight, "the way back")
            assert repr(layer.to_dense()) == repr(dense)


def test_vocabularies_that_do_not_split_are_padded_a_little() -> None:
    for rows, parts in [(30522, 2), (30522, 3), (50257, 3), (151936, 4), (1009, 3), (2, 2), (7, 3)]:
        digits = digits_above(rows, parts)
        product = int(torch.tensor(digits).prod())
        assert len(digits) == parts and rows <= product and (product <= 1.08 * rows or rows < 1010)
    layer = FactorizedEmbedding(
        30522, 16, rank=2, format="tt", layout="(v0=32 v1=32 v2) o -> v0 v1 (v2 o)", padded_to=30720
    )
    assert layer.stored_rows == 30720 and layer.dense_weight().shape == (30522, 16)


def test_a_table_larger_than_any_memory_is_looked_up() -> None:
    layer = FactorizedEmbedding(
        10**12,
        64,
        rank=2,
        format="tt",
        layout="(v0 v1 v2 v3) (o0 o1 o2 o3) -> (v0 o0) (v1 o1) (v2 o2) (v3 o3)",
    )
    y = layer(torch.tensor([0, 1, 10**12 - 1]))
    y.sum().backward()
    assert y.shape == (3, 64) and y.isfinite().all() and not torch.equal(y[0], y[1])
    assert layer.weight.numel() < 10**5


# Steps ---------------------------------------------------------------------------------------------------


def test_golden_programs() -> None:
    few, many = (8, 512), (10**6, 1)
    programs = {
        ("lowrank", "v o -> v o", few): ("gather", "merge"),
        ("lowrank", "v o -> v o", many): ("merge", "gather"),
        ("cp", "(v0 v1) (o0 o1) -> v0 v1 o0 o1", few): ("merge", "gather", "gather", "merge", "merge"),
        ("tt", "(v0 v1) (o0 o1) -> (v0 o0) (v1 o1)", few): ("gather", "gather", "merge"),
    }
    for (format, layout, example), kinds in programs.items():
        rows = 100_000 if example == few else 100
        layer = FactorizedEmbedding(rows, 256, rank=32, format=format, layout=layout, example=example)
        assert layer.program.kinds == kinds, f"{format}: {layer.explain()}"


def test_bags_are_added_up_before_the_columns_come_in() -> None:
    layer = FactorizedEmbeddingBag(10_000, 256, rank=16, example=(64, 50))
    assert layer.program.kinds == ("gather and bag", "merge")
    late = FactorizedEmbeddingBag(10_000, 256, rank=16, example=(64, 50), max_norm=1.0)
    assert late.program.kinds == ("gather", "merge")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_and_autocast_are_near_to_float64(dtype: torch.dtype) -> None:
    x = indices(3, 4)
    for make in (embedding, embedding_bag):
        layer: FactorizedTable = make("tt", TRAIN, padding_idx=3)
        exact = layer(x)
        assert_equal(layer.to(dtype)(x), exact, f"a layer in {dtype}")
        if dtype is torch.float32:
            with torch.autocast("cpu", torch.bfloat16):
                assert_equal(layer(x).float(), exact, "a layer under autocast", tol=3e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own compiler
def test_inductor_compiles_a_layer_in_one_graph() -> None:
    layer, x = embedding("tt", LAYOUTS[-1], padding_idx=3), indices(3, 4)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for batch in (x, torch.cat([x, x])):
        assert_equal(compiled(batch), layer(batch), "inductor")


def test_functional_transforms_go_through_a_layer() -> None:
    layer, x = embedding("tt", TRAIN), indices(3, 4)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    whole = torch.func.grad(loss)(parameters, x)
    for name, gradient in each.items():
        assert_equal(gradient.sum(0), whole[name], "gradients for each sample add up")


def test_a_weight_that_is_read_is_the_dense_table() -> None:
    layer, x = embedding("lowrank", "v o -> v o"), torch.randn(3, DIM).double()
    y = F.linear(x, layer.weight)  # type: ignore[arg-type]
    assert_equal(y, F.linear(x, layer.dense_weight()), "a weight tied to a head")

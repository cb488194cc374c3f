"""A convolution with one more axis gives what the old one gave: on single frames, and on constant video."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tenfold.core.errors import LayoutError, OptionError
from tenfold.formats import formats
from tenfold.nn import FactorizedConv, FactorizedConvTranspose, transduct
from tenfold.nn.convolution.kernel import SPATIAL
from tenfold.nn.convolution.new_mode import enlarged, with_mode
from tenfold.testing import check_layer

LAYOUTS = {
    "lowrank": ["o i h w -> (i h) (o w)", "o i h w -> o (i h w)"],
    "sliced_lowrank": ["o (i0=2 i1) h w -> o i0 (i1 h w)", "o (i0=2 i1) h w -> (o w) i0 (i1 h)"],
    "kronecker": ["o i h w -> o h i w"],
    "tt": ["o i h w -> i h w o", "(o0=2 o1) (i0=2 i1) h w -> (h w) (o0 i0) (o1 i1)"],
    "tucker": ["o i h w -> o i (h w)", "o i h w -> o i h w"],
}
CASES = [
    (f, text) for f in formats for text in LAYOUTS.get(f, ["o i h w -> o i (h w)", "o i h w -> i h w o"])
]
OWN = {"cp", "tucker", "tt", "tr", "ht", "block_term"}


@pytest.fixture(autouse=True)
def _compile_anew() -> None:
    """Torch counts how often one function is compiled, over all tests."""
    torch._dynamo.reset()


def layer_of(format: str, layout: str, **options: Any) -> FactorizedConv:
    torch.manual_seed(0)
    settings = {"padding": 1, "stride": (1, 2), "dtype": torch.float64} | options
    return FactorizedConv(8, 6, (3, 2), rank=2, format=format, layout=layout, **settings)


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 8, 5, 6, dtype=torch.float64)


@pytest.mark.parametrize("beside", [None, "h", "w"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_on_a_single_frame_the_new_layer_gives_what_the_old_one_gave(
    format: str, layout: str, axis: int, beside: str | None
) -> None:
    layer, x = layer_of(format, layout), images()
    video = transduct(layer, 3, axis, padding=1, beside=beside)
    assert type(video.weight.format) is type(layer.weight.format)
    assert video.kernel_size == (*layer.kernel_size[:axis], 3, *layer.kernel_size[axis:])
    found = video(x.unsqueeze(2 + axis))
    torch.testing.assert_close(found.squeeze(2 + axis), layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("init", ["mean", "centre", (0.5, 0.25, 0.25)], ids=str)
@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_on_a_video_that_does_not_change_it_gives_what_the_old_one_gave(
    format: str, layout: str, init: Any
) -> None:
    layer, x = layer_of(format, layout), images()
    video = transduct(layer, 3, dilation=2, stride=2, init=init)
    found = video(x.unsqueeze(2).expand(-1, -1, 9, -1, -1))
    torch.testing.assert_close(found, layer(x).unsqueeze(2).expand_as(found), rtol=0, atol=1e-12)


@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_frame_by_frame_it_computes_what_the_old_layer_does(format: str, layout: str) -> None:
    layer, frames = layer_of(format, layout), images(7)
    found = transduct(layer, 3, padding=1)(frames.movedim(0, 1).unsqueeze(0))
    torch.testing.assert_close(found[0].movedim(1, 0), layer(frames), rtol=0, atol=1e-12)


@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_the_kernel_is_the_old_one_times_the_numbers(format: str, layout: str) -> None:
    layer, c = layer_of(format, layout), torch.tensor([0.2, -1.0, 3.0, 0.0], dtype=torch.float64)
    kernel = layer.weight.dense()
    for axis in (0, 1, 2):
        found = transduct(layer, 4, axis, init=c).weight.dense()
        shape = [-1 if d == 2 + axis else 1 for d in range(5)]
        torch.testing.assert_close(found, kernel.unsqueeze(2 + axis) * c.view(shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_a_format_with_room_gives_the_new_axis_a_mode_and_keeps_its_ranks(format: str, layout: str) -> None:
    layer = layer_of(format, layout)
    video, inside = transduct(layer, 3), transduct(layer, 3, beside="h")
    assert len(video.layout.modes) == len(layer.layout.modes) + (format in OWN)
    assert len(inside.layout.modes) == len(layer.layout.modes)
    assert inside.weight.ranks == layer.weight.ranks
    assert set(layer.weight.ranks.values()) == set(video.weight.ranks.values())


def test_the_published_factors() -> None:
    cp = transduct(layer_of("cp", "o i h w -> o i h w"), 3)
    train = transduct(layer_of("tt", "o i h w -> i h w o"), 3)
    tucker = transduct(layer_of("tucker", "o i h w -> o i (h w)"), 3)
    assert str(cp.layout) == "o i d h w -> o i d h w"
    assert cp.weight.value.matrices[2].shape == (3, 2)
    assert str(train.layout) == "o i d h w -> i d h w o"
    assert train.weight.value.cores[1].shape == (2, 3, 2)
    assert str(tucker.layout) == "o i d h w -> o i d (h w)"
    assert tucker.weight.value.core.shape == (2, 2, 3, 2)


@pytest.mark.parametrize("format", list(formats))
def test_a_video_layer_obeys_every_law(format: str) -> None:
    layout = next(text for f, text in CASES if f == format)
    x = torch.randn(2, 8, 4, 5, 6, dtype=torch.float64)
    check_layer(transduct(layer_of(format, layout), 3, padding=1), x)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_transposed_convolution_gets_one_more_axis_too(order: int, axis: int) -> None:
    torch.manual_seed(0)
    axes = " ".join(SPATIAL[order])
    layer = FactorizedConvTranspose(
        8, 6, (3, 2)[:order], rank=2, format="cp", layout=f"i o {axes} -> i o {axes}", stride=2,
        output_padding=1, dtype=torch.float64,
    )  # fmt: skip
    x = torch.randn(2, 8, *(4, 5)[:order], dtype=torch.float64)
    video = transduct(layer, 3, axis, padding=1)
    torch.testing.assert_close(video(x.unsqueeze(2 + axis)).squeeze(2 + axis), layer(x), rtol=0, atol=1e-12)


def test_groups_and_biases_stay_and_nothing_is_shared() -> None:
    layer = layer_of("cp", "(g=2 o) i h w -> g o i h w", groups=2)
    video, x = transduct(layer, 3, padding=1), images()
    torch.testing.assert_close(video(x.unsqueeze(2)).squeeze(2), layer(x), rtol=0, atol=1e-12)
    before = layer(x)
    with torch.no_grad():
        for p in video.parameters():
            p.add_(1)
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize(
    "kept, padding, expected",
    [("same", "same", "same"), ("valid", "valid", "valid"), ("same", 1, (1, 1, 1)), ("valid", 2, (2, 0, 0))],
)
def test_padding_in_words_goes_on_along_all_axes_or_becomes_numbers(
    kept: str, padding: Any, expected: Any
) -> None:
    torch.manual_seed(0)
    layer = FactorizedConv(
        8, 6, (3, 3), rank=2, format="cp", layout="o i h w -> o i h w", padding=kept, dtype=torch.float64
    )
    x, video = images(), transduct(layer, 3, padding=padding)
    assert video.padding == expected
    if kept == "same":
        torch.testing.assert_close(video(x.unsqueeze(2)).squeeze(2), layer(x), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_an_even_kernel_with_padding_same_has_its_middle_where_the_frame_is() -> None:
    layer = layer_of("cp", "o i h w -> o i h w", padding="same", stride=1)
    x, video = images(), transduct(layer, 4, padding="same")
    torch.testing.assert_close(video(x.unsqueeze(2)).squeeze(2), layer(x), rtol=0, atol=1e-12)


def test_a_frozen_layer_trains_its_new_factor_alone() -> None:
    layer = layer_of("tt", "o i h w -> i h w o")
    video = transduct(layer, 3, padding=1, freeze=True)
    trained = [p for p in video.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in trained] == [tuple(video.weight.factors()[1].shape)]
    assert all(p.requires_grad for p in transduct(layer, 3).parameters())
    video(images().unsqueeze(2)).sum().backward()
    assert trained[0].grad is not None and float(trained[0].grad.abs().sum()) > 0


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"axis": 3}, OptionError, "axis came as 3"),
        ({"kernel_size": 0}, OptionError, "kernel_size=0"),
        ({"stride": 0}, OptionError, "stride came as"),
        ({"init": "middle"}, OptionError, "init came as 'middle'"),
        ({"init": (1.0, 2.0)}, OptionError, "for 3 taps"),
        ({"init": torch.zeros(3, dtype=torch.complex64)}, OptionError, "init is complex"),
        ({"padding": "same"}, OptionError, "padding came as 'same' for a layer with padding"),
        ({"beside": "o"}, LayoutError, "Name one of h, w, or None"),
        ({"beside": "h", "freeze": True}, OptionError, "freeze=True has nothing to train"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    layer = layer_of("cp", "o i h w -> o i h w")
    with pytest.raises(error, match=said):
        transduct(layer, **({"kernel_size": 3} | options))


def test_a_layer_with_three_axes_is_refused() -> None:
    layer = FactorizedConv(4, 4, (3, 3, 3), rank=2, format="cp", layout="o i d h w -> o i d h w")
    with pytest.raises(OptionError, match="3 spatial axes"):
        transduct(layer, 3)


@pytest.mark.parametrize("format", sorted(OWN))
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (4, 5, 6, 3)])
def test_a_new_mode_of_a_format_is_an_outer_product(format: str, shape: tuple[int, ...]) -> None:
    like, c = torch.zeros((), dtype=torch.float64), torch.tensor([0.3, 1.0, -2.0], dtype=torch.float64)
    x = formats[format].random(shape, 2, like=like, generator=0)
    for near in range(len(shape)):
        grown = with_mode(x, near, c)
        assert grown is not None and type(grown.value) is type(x)
        outer = x.dense().unsqueeze(grown.mode) * c.view(
            [-1 if d == grown.mode else 1 for d in range(x.dense().ndim + 1)]
        )
        torch.testing.assert_close(grown.value.dense(), outer)
        wide = enlarged(x, near, 1, c).dense()
        split = x.dense().unsqueeze(near + 1) * c.view(
            [-1 if d == near + 1 else 1 for d in range(len(shape) + 1)]
        )
        torch.testing.assert_close(wide, split.flatten(near, near + 1))

"""Running statistics from data: exact for what a layer sees, and a repair for compressed networks."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.core.errors import DataError, OptionError


def data(*shape: int) -> Tensor:
    scale, shift = torch.tensor([1.0, 2.0, 0.1]), torch.tensor([0.0, -3.0, 5.0])
    values = torch.randn(37, 3, *shape, generator=torch.Generator().manual_seed(0))
    ends = (1, 3, *(1 for _ in shape))
    return values * scale.view(ends) + shift.view(ends)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d, ()),
        (nn.BatchNorm1d, (5,)),
        (nn.BatchNorm2d, (4, 5)),
        (nn.BatchNorm3d, (2, 3, 4)),
        (nn.SyncBatchNorm, (4, 5)),
    ],
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_layer_gets_the_exact_statistics_of_the_data_whatever_the_batches(
    layer: Callable[..., nn.Module], shape: tuple[int, ...], momentum: float | None
) -> None:
    model, inputs = layer(3, momentum=momentum).eval(), data(*shape)
    assert reestimate_batchnorm_(model, inputs.split([16, 2, 19])) == 37
    channels = inputs.transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.running_mean, channels.mean(1))
    torch.testing.assert_close(model.running_var, channels.var(1))
    assert model.momentum == momentum and not model.training and model.num_batches_tracked == 0


def test_only_statistics_change() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.9), nn.BatchNorm1d(3).eval())
    model[3].momentum = 0.3
    before = deepcopy(model)
    batches = [(inputs, torch.zeros(len(inputs))) for inputs in data().split(16)]
    reestimate_batchnorm_(model, batches)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]) != name.endswith(("mean", "var")), name
    assert [module.training for module in model.modules()] == [True] * 4 + [False]
    assert [model[1].momentum, model[3].momentum] == [0.1, 0.3]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model[1]._forward_hooks


def test_dropout_is_off_and_deeper_layers_see_normalized_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    reestimate_batchnorm_(model, [data()])
    torch.testing.assert_close(model[2].running_mean, torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(model[2].running_var, torch.full((3,), 37 / 36), rtol=1e-2, atol=0)


def test_a_layer_that_runs_twice_counts_both() -> None:
    layer = nn.BatchNorm1d(3)
    reestimate_batchnorm_(nn.Sequential(layer, nn.Hardtanh(0, 1), layer), [data()])
    assert layer.running_mean is not None and 0 < layer.running_mean[2] < 5


def test_the_pass_ends_with_the_batch_that_completes_the_samples() -> None:
    model, inputs = nn.BatchNorm1d(3), data()
    assert reestimate_batchnorm_(model, inputs.split(16), samples=17) == 32
    torch.testing.assert_close(model.running_mean, inputs[:32].mean(0))


def test_batches_of_any_kind_go_through_forward() -> None:
    model, inputs = nn.BatchNorm1d(3), data()
    batches = [{"x": part, "scale": 2.0} for part in inputs.split(20)]
    seen = reestimate_batchnorm_(model, batches, forward=lambda net, b: net(b["x"] * b["scale"]))
    assert seen == 37
    torch.testing.assert_close(model.running_mean, 2 * inputs.mean(0))


def test_layers_without_statistics_and_those_that_do_not_run_stay() -> None:
    idle = nn.BatchNorm1d(3)
    bare = nn.BatchNorm1d(3, track_running_stats=False)
    model = nn.ModuleDict({"used": nn.BatchNorm1d(3), "idle": idle, "bare": bare})
    reestimate_batchnorm_(model, [data()], forward=lambda net, batch: net["bare"](net["used"](batch)))
    assert torch.equal(idle.running_var, torch.ones(3)) and bare.running_mean is None  # type: ignore[arg-type]


def test_without_batch_norm_nothing_is_read() -> None:
    def never() -> Tensor:
        raise AssertionError

    assert reestimate_batchnorm_(nn.Linear(2, 2), (never() for _ in range(1))) == 0


def test_after_an_error_everything_is_as_before() -> None:
    model = nn.BatchNorm1d(3)
    for batches in ([data(), data()[:, :2]], []):
        with pytest.raises((RuntimeError, DataError)):
            reestimate_batchnorm_(model, batches)
        assert torch.equal(model.running_var, torch.ones(3)) and model.momentum == 0.1  # type: ignore[arg-type]
        assert not model._forward_hooks


def test_no_batches_and_no_samples_are_errors() -> None:
    with pytest.raises(DataError, match=r"no batches to take statistics from\.\nPass a list or DataLoader"):
        reestimate_batchnorm_(nn.BatchNorm1d(3), [])
    with pytest.raises(OptionError, match="samples >= 1, got 0"):
        reestimate_batchnorm_(nn.BatchNorm1d(3), [data()], samples=0)

"""The networks have the sizes of the published study, and train."""

import doctest

import pytest
import torch
from torch import nn

from tenfold.core.errors import UnknownNameError
from tenfold.zoo import __main__ as listing
from tenfold.zoo import networks, resnet18, resnet20, vgg11
from tenfold.zoo.__main__ import lines
from tenfold.zoo.resnet import ZeroPadding

PARAMETERS = {
    "digits_cnn": 260_682,
    "resnet18": 11_173_962,
    "resnet20": 269_722,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "vgg11": 9_231_114,
    "vgg16": 14_728_266,
    "vgg19": 20_040_522,
}
CONVOLUTIONS = {
    "digits_cnn": 4,
    "resnet18": 20,
    "resnet20": 19,
    "resnet34": 36,
    "resnet50": 53,
    "vgg11": 8,
    "vgg16": 13,
    "vgg19": 16,
}


def on_meta(name: str, num_classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return networks[name](num_classes)


def image(name: str, count: int = 2) -> torch.Tensor:
    return torch.randn(count, *((1, 8, 8) if name == "digits_cnn" else (3, 32, 32)))


def test_every_registered_network_is_in_the_table() -> None:
    assert set(networks) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_study(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_as_many_as_the_name_says(name: str) -> None:
    assert sum(isinstance(module, nn.Conv2d) for module in on_meta(name).modules()) == CONVOLUTIONS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_outputs_are_one_number_a_class(name: str) -> None:
    assert on_meta(name, num_classes=7)(image(name).to("meta")).shape == (2, 7)


@pytest.mark.parametrize("name", ["digits_cnn", "resnet20", "resnet18", "vgg11"])
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    model = networks[name](10)
    model(image(name)).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("name", PARAMETERS)
def test_state_dict_loads_into_a_second_network(name: str) -> None:
    one, two = on_meta(name), on_meta(name)
    assert not any(one.load_state_dict(two.state_dict(), strict=False))
    assert [p.shape for p in one.parameters()] == [p.shape for p in two.parameters()]


def test_modules_of_resnet_have_the_names_of_torchvision() -> None:
    names = dict(on_meta("resnet18").named_modules())
    assert {"conv1", "layer1.0.conv1", "layer4.1.conv2", "layer2.0.shortcut.0", "fc"} <= set(names)


def test_stem_of_resnet_keeps_32_pixels() -> None:
    shapes = []
    model = on_meta("resnet18")
    for stage in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(stage).register_forward_hook(lambda _, __, y: shapes.append(tuple(y.shape[1:])))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert shapes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_zero_padding_keeps_the_channels_it_has_and_adds_zeros() -> None:
    x = torch.randn(2, 3, 8, 8)
    y = ZeroPadding(2, stride=2)(x)
    assert y.shape == (2, 5, 4, 4)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_convolutions_of_resnet_have_no_bias_and_those_of_vgg_have_one() -> None:
    for network, biased in ((resnet18, False), (resnet20, False), (vgg11, True)):
        with torch.device("meta"):
            kernels = [module for module in network().modules() if isinstance(module, nn.Conv2d)]
        assert all((kernel.bias is not None) == biased for kernel in kernels)


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown network 'resnet19'; did you mean 'resnet18'"):
        networks["resnet19"]


def test_the_table_of_networks_is_aligned() -> None:
    table = lines()
    assert len({len(line) for line in table}) == 1
    assert [line.split()[0] for line in table] == sorted(PARAMETERS)
    assert "resnet50    23 520 842" in table


def test_the_example_of_the_listing_is_true() -> None:
    """pytest itself leaves out files of this name."""
    found = doctest.testmod(listing)
    assert found.attempted and not found.failed

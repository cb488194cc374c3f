"""In which order kernels lie in memory: it decides in which order the activation runs through the steps."""

import pytest
import torch

from tenfold.nn import FactorizedConv

DOWN, UP = ((8, 64, 1, 1), (64, 1, 64, 64)), ((64, 8, 1, 1), (8, 1, 8, 8))
CORE = ((8, 8, 3, 3), (72, 1, 24, 8))


def tucker2() -> FactorizedConv:
    return FactorizedConv(64, 64, (3, 3), rank=(8, 8, None), format="tucker", layout="o i h w -> o i (h w)")


def assert_in_memory_order(layer: FactorizedConv) -> None:
    assert {(tuple(f.shape), f.stride()) for f in layer.weight.factors()} == {DOWN, CORE, UP}


def test_kernels_are_channels_last_those_of_one_tap_too() -> None:
    assert_in_memory_order(tucker2())


@pytest.mark.parametrize("assign", [False, True])
def test_loading_contiguous_kernels_brings_them_into_memory_order(assign: bool) -> None:
    layer, state = tucker2(), tucker2().state_dict()
    layer.load_state_dict({name: p.contiguous() for name, p in state.items()}, assign=assign)
    assert_in_memory_order(layer)


def test_setting_factors_keeps_the_memory_order() -> None:
    layer = tucker2()
    layer.weight.set_(tucker2().weight.value)
    assert_in_memory_order(layer)


def test_the_output_of_a_layer_is_channels_last_for_either_input() -> None:
    layer, x = tucker2(), torch.zeros(2, 64, 9, 9)
    for inputs in (x, x.to(memory_format=torch.channels_last)):
        assert layer(inputs).is_contiguous(memory_format=torch.channels_last)

"""The 3-D networks of the examples: what they are made of, and what they are trained on."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

EXAMPLE = Path(__file__).parent.parent / "examples" / "train_a_3d_network.py"
KINDS = ("cp", "tucker", "tt")


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def numel(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_factorized_network_has_a_quarter_of_the_parameters(example: dict[str, Any], kind: str) -> None:
    assert 4 * numel(example["network"](kind)) <= numel(example["network"]("dense"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_a_factorized_network_is_held_as_factors(example: dict[str, Any], kind: str) -> None:
    model = example["network"](kind)
    assert not {type(m) for m in model.modules()} & {nn.Conv3d, nn.Linear}
    weights = [name for name, p in model.named_parameters() if p.ndim > 1]
    assert weights and all("weight." in name for name in weights)


@pytest.mark.parametrize("forth", [0, 2, 4])
def test_a_motion_and_its_opposite_show_the_same_frames_in_the_opposite_order(
    example: dict[str, Any], forth: int
) -> None:
    images = torch.rand(5, 1, 8, 8)
    there, back = (
        example["films"](images, torch.full((5,), motion), torch.Generator().manual_seed(0))
        for motion in (forth, forth + 1)
    )
    torch.testing.assert_close(there, back.flip(2))
    assert not torch.allclose(there, back, atol=0.1)

"""Every test, those in docstrings included, draws the same random numbers whichever ran before it."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)

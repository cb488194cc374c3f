"""What all tests share: the array libraries, one at a time."""

from dataclasses import dataclass
from typing import Any

import array_api_compat as api
import numpy as np
import pytest

from tenfold.testing.libraries import LIBRARIES


@dataclass(frozen=True)
class Library:
    """Makes arrays of one library; the same numbers in each."""

    name: str

    @property
    def xp(self) -> Any:
        return api.array_namespace(self.array([0.0]))

    def array(self, values: Any, dtype: str = "float64") -> Any:
        return LIBRARIES.array(self.name, np.asarray(values).astype(dtype))

    def normal(self, *shape: int, seed: int = 0, dtype: str = "float64") -> Any:
        draw = np.random.default_rng(seed).standard_normal
        imaginary = 1j * draw(shape) if dtype.startswith("complex") else 0.0
        return self.array(draw(shape) + imaginary, dtype)


@pytest.fixture(params=["numpy", "torch"])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(request.param)

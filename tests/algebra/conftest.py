"""The algebra is tested on every array library that is installed."""

import pytest
from tests.conftest import Library

from tenfold.testing.libraries import LIBRARIES


@pytest.fixture(params=[*LIBRARIES])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(request.param)

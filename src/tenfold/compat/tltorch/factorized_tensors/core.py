"""The two base classes, where TensorLy-Torch has them."""

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.tensorized import TensorizedTensor

__all__ = ["FactorizedTensor", "TensorizedTensor"]

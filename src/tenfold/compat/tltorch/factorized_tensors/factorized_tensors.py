"""The factorizations of a tensor: none, CP, Tucker, tensor train."""

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.cp import CPTensor
from tenfold.compat.tltorch.factorized_tensors.dense import DenseTensor
from tenfold.compat.tltorch.factorized_tensors.tt import TTTensor
from tenfold.compat.tltorch.factorized_tensors.tucker import TuckerTensor

__all__ = ["CPTensor", "DenseTensor", "FactorizedTensor", "TTTensor", "TuckerTensor"]

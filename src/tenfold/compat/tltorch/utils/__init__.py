"""Lists of factors, and sizes to split a matrix into."""

from tenfold.compat.tltorch.utils.parameter_list import ComplexFactorList, FactorList, ParameterList
from tenfold.compat.tltorch.utils.tensorize_shape import get_tensorized_shape

__all__ = ["ComplexFactorList", "FactorList", "ParameterList", "get_tensorized_shape"]

"""The names and signatures of TensorLy-Torch 0.5 over our own formats, methods and programs.

`import tenfold.compat.tltorch as tltorch` in the place of `import tltorch`; what differs, and why, is said in
`docs/migrating_from_tltorch.md`. Parameters have the same names and shapes, so states go both ways.

>>> import torch
>>> import tenfold.compat.tltorch as tltorch
>>> conv = torch.nn.Conv2d(8, 8, 3, padding=1)
>>> layer = tltorch.FactorizedConv.from_conv(conv, rank=0.5, factorization="tucker")
>>> layer(torch.zeros(1, 8, 6, 6)).shape
torch.Size([1, 8, 6, 6])
"""

from tenfold.compat.tltorch import factorized_layers, factorized_tensors, functional, tensor_hooks, utils
from tenfold.compat.tltorch.factorized_layers import (
    TCL,
    TRL,
    FactorizedConv,
    FactorizedEmbedding,
    FactorizedLinear,
)
from tenfold.compat.tltorch.factorized_tensors import (
    BlockTT,
    ComplexBlockTT,
    ComplexCPTensor,
    ComplexCPTensorized,
    ComplexDenseTensor,
    ComplexDenseTensorized,
    ComplexTTTensor,
    ComplexTuckerTensor,
    ComplexTuckerTensorized,
    CPTensor,
    CPTensorized,
    DenseTensor,
    DenseTensorized,
    FactorizedTensor,
    TensorizedTensor,
    TTTensor,
    TuckerTensor,
    TuckerTensorized,
    init,
    tensor_init,
)
from tenfold.compat.tltorch.tensor_hooks import (
    TensorDropout,
    TensorLasso,
    remove_tensor_dropout,
    remove_tensor_lasso,
    tensor_dropout,
    tensor_lasso,
)

__version__ = "0.5.0"
"""The version of TensorLy-Torch whose names these are."""

__all__ = [
    "TCL",
    "TRL",
    "BlockTT",
    "CPTensor",
    "CPTensorized",
    "ComplexBlockTT",
    "ComplexCPTensor",
    "ComplexCPTensorized",
    "ComplexDenseTensor",
    "ComplexDenseTensorized",
    "ComplexTTTensor",
    "ComplexTuckerTensor",
    "ComplexTuckerTensorized",
    "DenseTensor",
    "DenseTensorized",
    "FactorizedConv",
    "FactorizedEmbedding",
    "FactorizedLinear",
    "FactorizedTensor",
    "TTTensor",
    "TensorDropout",
    "TensorLasso",
    "TensorizedTensor",
    "TuckerTensor",
    "TuckerTensorized",
    "factorized_layers",
    "factorized_tensors",
    "functional",
    "init",
    "remove_tensor_dropout",
    "remove_tensor_lasso",
    "tensor_dropout",
    "tensor_hooks",
    "tensor_init",
    "tensor_lasso",
    "utils",
]

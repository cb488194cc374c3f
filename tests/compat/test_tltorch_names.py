"""Every public name of TensorLy-Torch is here, with its parameters; needs no TensorLy-Torch.

The table was written down from version 0.5.0; where that is installed, the two are compared.
"""

import importlib
import inspect
from typing import Any

import pytest

import tenfold.compat.tltorch as tltorch
from tests.compat.run_upstream import OURS, THEIRS, upstream

SUBMODULES = [
    "factorized_layers",
    "factorized_layers.factorized_convolution",
    "factorized_layers.factorized_embedding",
    "factorized_layers.factorized_linear",
    "factorized_layers.tensor_contraction_layers",
    "factorized_layers.tensor_regression_layers",
    "factorized_tensors",
    "factorized_tensors.complex_factorized_tensors",
    "factorized_tensors.complex_tensorized_matrices",
    "factorized_tensors.core",
    "factorized_tensors.factorized_tensors",
    "factorized_tensors.init",
    "factorized_tensors.tensorized_matrices",
    "functional",
    "functional.convolution",
    "functional.factorized_linear",
    "functional.factorized_tensordot",
    "functional.linear",
    "functional.tensor_regression",
    "tensor_hooks",
    "tensor_hooks._tensor_dropout",
    "tensor_hooks._tensor_lasso",
    "utils",
    "utils.parameter_list",
    "utils.tensorize_shape",
]

SIGNATURES = {
    "FactorizedTensor.new": "shape rank factorization",
    "FactorizedTensor.from_tensor": "tensor rank factorization",
    "FactorizedTensor.normal_": "mean std",
    "FactorizedTensor.forward": "indices",
    "FactorizedTensor.size": "index",
    "TensorizedTensor.new": "tensorized_shape rank factorization",
    "TensorizedTensor.from_tensor": "tensor shape rank factorization",
    "TensorizedTensor.from_matrix": "matrix tensorized_row_shape tensorized_column_shape rank factorization",
    "TensorizedTensor.init_from_matrix": "matrix",
    "DenseTensor": "tensor shape rank",
    "CPTensor": "weights factors shape rank",
    "CPTensor.new": "shape rank device dtype",
    "CPTensor.transduct": "new_dim mode new_factor",
    "TuckerTensor": "core factors shape rank",
    "TuckerTensor.new": "shape rank fixed_rank_modes device dtype",
    "TuckerTensor.init_from_tensor": "tensor unsqueezed_modes unsqueezed_init",
    "TTTensor": "factors shape rank",
    "TTTensor.transduct": "new_dim mode new_factor",
    "DenseTensorized": "tensor tensorized_shape rank",
    "CPTensorized": "weights factors tensorized_shape rank",
    "TuckerTensorized": "core factors tensorized_shape rank",
    "BlockTT": "factors tensorized_shape rank",
    "tensor_init": "tensor std",
    "FactorizedLinear": "in_tensorized_features out_tensorized_features bias factorization rank "
    "implementation n_layers checkpointing device dtype",
    "FactorizedLinear.forward": "x indices",
    "FactorizedLinear.from_linear": "linear rank auto_tensorize n_tensorized_modes in_tensorized_features "
    "out_tensorized_features bias factorization implementation checkpointing decomposition_kwargs verbose",
    "FactorizedLinear.from_linear_list": "linear_list in_tensorized_features out_tensorized_features rank "
    "bias factorization implementation checkpointing decomposition_kwargs",
    "FactorizedLinear.get_linear": "indices",
    "FactorizedConv": "in_channels out_channels kernel_size order stride padding dilation bias has_bias "
    "n_layers factorization rank implementation fixed_rank_modes device dtype",
    "FactorizedConv.from_factorization": "factorization implementation stride padding dilation bias n_layers",
    "FactorizedConv.from_conv": "conv_layer rank implementation factorization decompose_weights "
    "decomposition_kwargs fixed_rank_modes",
    "FactorizedConv.from_conv_list": "conv_list rank implementation factorization decompose_weights "
    "decomposition_kwargs",
    "FactorizedConv.set": "indices stride padding dilation bias",
    "FactorizedConv.get_conv": "indices",
    "FactorizedConv.transduct": "kernel_size mode padding stride dilation fine_tune_transduction_only",
    "FactorizedEmbedding": "num_embeddings embedding_dim auto_tensorize n_tensorized_modes "
    "tensorized_num_embeddings tensorized_embedding_dim factorization rank n_layers device dtype",
    "FactorizedEmbedding.from_embedding": "embedding_layer rank factorization n_tensorized_modes "
    "decompose_weights auto_tensorize decomposition_kwargs",
    "FactorizedEmbedding.from_embedding_list": "embedding_layer_list rank factorization n_tensorized_modes "
    "decompose_weights auto_tensorize decomposition_kwargs",
    "FactorizedEmbedding.get_embedding": "indices",
    "TRL": "input_shape output_shape bias verbose factorization rank n_layers device dtype",
    "TRL.init_from_random": "decompose_full_weight",
    "TRL.init_from_linear": "linear unsqueezed_modes",
    "TCL": "input_shape rank verbose bias device dtype",
    "tensor_dropout": "factorized_tensor p min_dim min_values drop_test",
    "remove_tensor_dropout": "factorized_tensor",
    "tensor_lasso": "factorization penalty clamp_weights threshold normalize_loss",
    "remove_tensor_lasso": "factorized_tensor",
    "TensorLasso": "penalty clamp_weights threshold normalize_loss",
    "TensorDropout": "proba min_dim min_values drop_test",
    "utils.get_tensorized_shape": "in_features out_features order min_dim verbose",
    "utils.FactorList": "parameters",
    "utils.ComplexFactorList": "parameters",
    "utils.ParameterList": "parameters",
    "functional.convolve": "x weight bias stride padding dilation groups",
    "functional.tucker_conv": "x tucker_tensor bias stride padding dilation",
    "functional.factorized_linear": "x weight bias in_features implementation",
    "init.cp_init": "cp_tensor std",
    "init.tucker_init": "tucker_tensor std",
    "init.tt_init": "tt_tensor std",
    "init.block_tt_init": "block_tt std",
}
"""Name -> its parameters, in TensorLy-Torch's order."""

RENAMED = {"TensorizedTensor.new": {"shape": "tensorized_shape"}}
KEYWORD_ONLY = {"fixed_rank_modes", "device", "dtype"}
NOT_OURS = {
    "factorize": "a step of get_tensorized_shape, which does it otherwise",
    "merge_ints": "a step of get_tensorized_shape, which does it otherwise",
    "is_tensorized_shape": "a step of their constructors",
    "tensorized_shape_to_shape": "a step of their constructors",
    "validate_block_tt_rank": "a step of their constructors",
    "MetaFactorizedTensor": "their way to make FactorizedTensor(factorization=...) work; use .new",
    "ComplexHandler": "",
}
"""Public names in their modules, but not in their documentation, that have no counterpart."""


def found(name: str) -> Any:
    thing: Any = tltorch
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def parameters(thing: Any) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in inspect.signature(thing).parameters.values() if p.kind not in kinds]


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_name_has_the_parameters_that_it_has_in_tensorly_torch(name: str) -> None:
    wanted = SIGNATURES[name].split()
    named = {RENAMED.get(name, {}).get(p, p) for p in parameters(found(name))} - {"self"}
    assert set(wanted) <= named
    ours = [RENAMED.get(name, {}).get(p, p) for p in parameters(found(name)) if p != "self"]
    positional = [p for p in wanted if p not in KEYWORD_ONLY]
    assert [p for p in ours if p in positional] == positional, "in the same order"


@pytest.mark.parametrize("module", SUBMODULES)
def test_a_module_can_be_imported_from_where_it_is_in_tensorly_torch(module: str) -> None:
    importlib.import_module(f"{OURS}.{module}")


@pytest.mark.skipif(upstream() is None, reason="TensorLy-Torch and TensorLy are not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ["", *SUBMODULES])
def test_no_public_name_of_a_module_is_missing(module: str) -> None:
    theirs = importlib.import_module(f"{THEIRS}.{module}".rstrip("."))
    ours = importlib.import_module(f"{OURS}.{module}".rstrip("."))
    listed = getattr(theirs, "__path__", None) is not None
    own = {n for n, x in vars(theirs).items() if not n.startswith("_") and _belongs(x, theirs, listed)}
    assert {n for n in own if not hasattr(ours, n)} <= set(NOT_OURS)


def _belongs(thing: Any, module: Any, listed: bool) -> bool:
    """Whether a module has made a name, or, a package, offers it."""
    home = getattr(thing, "__module__", "") or ""
    return home.startswith(THEIRS) if listed else home == module.__name__

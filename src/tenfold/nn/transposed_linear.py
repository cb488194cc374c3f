"""Linear layers that other libraries hold with inputs first."""

from torch import nn

from tenfold.nn.composite import OPENINGS


def linear_of_conv1d(dense: nn.Module) -> nn.Linear:
    """Hugging Face's `Conv1D`, x W + b with W (inputs, outputs), as an `nn.Linear` in the same memory."""
    weight, bias = dense.get_parameter("weight"), dense.get_parameter("bias")
    inputs, outputs = weight.shape
    linear = nn.Linear(inputs, outputs, device="meta", dtype=weight.dtype)
    linear.weight = nn.Parameter(weight.detach().T, requires_grad=weight.requires_grad)
    linear.bias = bias
    return linear.train(dense.training)


OPENINGS["transformers.pytorch_utils.Conv1D"] = linear_of_conv1d

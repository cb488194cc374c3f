"""Plain numbers of a model: parameters, bytes, FLOPs, seconds, peak memory, accuracy."""

from tenfold.measure.accuracy import accuracy
from tenfold.measure.compare import Comparison, Measurement, compare, measure
from tenfold.measure.flops import flops
from tenfold.measure.latency import Latency, interleaved, latency
from tenfold.measure.memory import peak_memory
from tenfold.measure.size import nbytes, parameters

__all__ = [
    "Comparison",
    "Latency",
    "Measurement",
    "accuracy",
    "compare",
    "flops",
    "interleaved",
    "latency",
    "measure",
    "nbytes",
    "parameters",
    "peak_memory",
]

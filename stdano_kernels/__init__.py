"""Spiking neurons for PyTorch whose whole time loop, forward and backward, is one kernel."""

__version__ = "0.1.0"

from .backends import BackendStatus, backends
from .functional import LIFState, LLIFState, SLIFState, function, lif, llif, slif
from .surrogate import SURROGATES

__all__ = [
    "SURROGATES",
    "BackendStatus",
    "LIFState",
    "LLIFState",
    "SLIFState",
    "backends",
    "bn_neuron",
    "lif",
    "llif",
    "slif",
    "super_neuron",
]

"""Spiking neurons for PyTorch whose whole time loop, forward and backward, is one kernel."""

__version__ = "0.1.0"

from .backends import BackendStatus, backends
from .batch_norm import bn_neuron
from .functional import LIFState, LLIFState, SLIFState, lif, llif, slif
from .mixture import super_neuron
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

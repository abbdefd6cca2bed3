"""Spiking neurons for PyTorch whose whole time loop, forward and backward, is one kernel."""

__version__ = "0.2.0"

from .backends import BackendStatus, backends
from .batch_norm import bn_neuron
from .checking import CheckReport, check
from .define import Constant, DeclarationError, Neuron, Option, State
from .functional import LIFState, LLIFState, SLIFState, function, lif, llif, slif
from .mixture import super_neuron
from .packed import packed_spikes
from .surrogate import SURROGATES
from .two_levels import two_level_checkpoints

__all__ = [
    "SURROGATES",
    "BackendStatus",
    "CheckReport",
    "Constant",
    "DeclarationError",
    "LIFState",
    "LLIFState",
    "Neuron",
    "Option",
    "SLIFState",
    "State",
    "backends",
    "bn_neuron",
    "check",
    "function",
    "lif",
    "llif",
    "packed_spikes",
    "slif",
    "super_neuron",
    "two_level_checkpoints",
]

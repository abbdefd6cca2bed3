"""Drop-in spiking-neuron modules, and what is built on them."""

from stdano_kernels import __version__

from .base import BaseNode
from .convert import convert
from .folding import fuse_conv_bn
from .fusion import FusionReport, fuse, unfuse
from .memory import keep_freed_memory
from .neurons import LIFNode, LLIFNode, ParametricLIFNode, SLIFNode, reset_net
from .normalised import BatchNormNeuron
from .norms import SynchronisedBatchNorm2d
from .super_neuron import SuperNeuron

__all__ = [
    "BaseNode",
    "BatchNormNeuron",
    "FusionReport",
    "LIFNode",
    "LLIFNode",
    "ParametricLIFNode",
    "SLIFNode",
    "SuperNeuron",
    "SynchronisedBatchNorm2d",
    "__version__",
    "convert",
    "fuse",
    "fuse_conv_bn",
    "keep_freed_memory",
    "reset_net",
    "unfuse",
]

"""Drop-in spiking-neuron modules, and what is built on them."""

from stdano_kernels import __version__

from .base import BaseNode
from .convert import convert
from .neurons import LIFNode, LLIFNode, SLIFNode, reset_net

__all__ = ["BaseNode", "LIFNode", "LLIFNode", "SLIFNode", "__version__", "convert", "reset_net"]

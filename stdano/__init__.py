"""Drop-in spiking-neuron modules, and what is built on them."""

from stdano_kernels import __version__

from .neurons import LIFNode, LLIFNode, SLIFNode

__all__ = ["LIFNode", "LLIFNode", "SLIFNode", "__version__"]

"""Drop-in spiking-neuron modules, and what is built on them."""

import sys

from stdano_kernels import __version__, packed_spikes, two_level_checkpoints

from .bridges.nir import from_nir, to_nir
from .bridges.onnx import to_onnx
from .bridges.sinabs import from_sinabs
from .bridges.snntorch import from_snntorch
from .bridges.spikingjelly import from_spikingjelly, to_spikingjelly
from .memory import keep_freed_memory
from .nodes import link, neurons, normalised, norms, recomputation, super_neuron
from .nodes.base import BaseNode
from .nodes.neurons import (
    ALIFNode,
    CubaLIFNode,
    IFNode,
    IntegerLIFNode,
    LIFNode,
    LLIFNode,
    ParametricLIFNode,
    SLIFNode,
    detach_net,
    node,
    reset_net,
    stateless,
)
from .nodes.normalised import BatchNormNeuron
from .nodes.norms import SynchronisedBatchNorm2d
from .nodes.packing import PackedSpikes, pack_spikes
from .nodes.super_neuron import SuperNeuron
from .rewrite.convert import convert
from .rewrite.folding import fuse_conv_bn
from .rewrite.fusion import FusionReport, fuse, unfuse

__all__ = [
    "ALIFNode",
    "BaseNode",
    "BatchNormNeuron",
    "CubaLIFNode",
    "FusionReport",
    "IFNode",
    "IntegerLIFNode",
    "LIFNode",
    "LLIFNode",
    "PackedSpikes",
    "ParametricLIFNode",
    "SLIFNode",
    "SuperNeuron",
    "SynchronisedBatchNorm2d",
    "__version__",
    "convert",
    "detach_net",
    "from_nir",
    "from_sinabs",
    "from_snntorch",
    "from_spikingjelly",
    "fuse",
    "fuse_conv_bn",
    "keep_freed_memory",
    "node",
    "pack_spikes",
    "packed_spikes",
    "reset_net",
    "stateless",
    "to_nir",
    "to_onnx",
    "to_spikingjelly",
    "two_level_checkpoints",
    "unfuse",
]

# Modules that lay here before there was stdano.nodes: pickles of whole networks know their classes by these names.
for _module in (link, neurons, normalised, norms, recomputation, super_neuron):
    sys.modules[_module.__name__.replace(".nodes.", ".")] = _module

"""What one update of a neuron computes, counted in its declaration; what one call of a layer with weights does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stdano_kernels.define.graph import COMPARISONS, EXPENSIVE
from stdano_kernels.define.plan import forward_order
from stdano_kernels.spec import spec_of, traced

from ..models.blocks import InputConv2d
from ..nodes.base import BaseNode
from ..nodes.neurons import IFNode, LIFNode
from ..nodes.super_neuron import SuperNeuron
from ..rewrite.inherit import inherited, kind_of, lost

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ADDS = ("add", "sub", "fma", *COMPARISONS)
_MULTIPLIES = ("mul", "fma")


@dataclass(frozen=True)
class Update:
    """One update of one neuron: a time step.

    Attributes:
        adds: additions, subtractions and comparisons.
        multiplies: multiplications.
        functions: divisions, exp, tanh and the like.
        states: numbers that are carried from step to step.
        levels: spikes that it can fire.
    """

    adds: int
    multiplies: int
    functions: int
    states: int
    levels: int


def update_of(layer: nn.Module) -> Update | None:
    """Of a spiking layer; the sum over its candidates for a super neuron; None for SpikingJelly's neurons that have
    no counterpart in stdano.

    What depends on constants alone is not counted, since it is computed once. Selecting, signs and logic are free.
    """
    if isinstance(layer, SuperNeuron):
        parts = [_counted(layer.node(name)) for name in layer.neurons]
        columns = zip(*((p.adds, p.multiplies, p.functions, p.states) for p in parts), strict=True)
        adds, multiplies, functions, states = map(sum, columns)
        return Update(adds, multiplies, functions, states, levels=1)
    if isinstance(layer, BaseNode):
        return _counted(layer)
    if lost(layer) is not None:
        return None
    kind = LIFNode if "LIF" in kind_of(layer) else IFNode
    settings = inherited(layer, kind)
    return _counted(kind(**{name: settings[name] for name in ("decay_input", "v_reset", "decay") if name in settings}))


def _counted(node: BaseNode) -> Update:
    step = traced(node.neuron, spec_of(node.neuron).settle(node._settings()).variant)
    operations = [a.op for a in forward_order(step.outputs)]
    return Update(
        adds=sum(op in _ADDS for op in operations),
        multiplies=sum(op in _MULTIPLIES for op in operations),
        functions=sum(op in EXPENSIVE for op in operations),
        states=len(node.neuron.states),
        levels=sum(op in ("spike", "soft") for op in operations),
    )


class Synapses:
    """The sums of a layer with weights over its calls. They stay on its device until the end.

    Args:
        layer: the layer.
        levels: the largest number of spikes that a neuron of the model fires in a step.
    """

    layer: Weighted
    levels: int
    inputs: int
    dense: int

    def __init__(self, layer: Weighted, levels: int) -> None:
        self.layer, self.levels = layer, levels
        self.inputs = self.dense = 0
        self.nonzero: Tensor | float = 0.0
        self.operations: Tensor | float = 0.0  # where the input is real: pairs of a weight and an input that is not 0
        self.accumulates: Tensor | float = 0.0  # where it is spikes: a spike and a weight
        self.spiking: Tensor | bool = True

    def add(self, x: Tensor) -> None:
        """A call with an input ``[..., channels, *positions]``."""
        layer = self.layer
        if isinstance(layer, InputConv2d) and x.shape[0] > 1 and x.stride(0) == 0:
            x = x[0]  # repeated images, which it convolves once
        if isinstance(layer, nn.Linear):
            reaches, fan_out, channels = [], layer.out_features, 1
        else:
            reaches, fan_out, channels = _reaches(layer, x), layer.out_channels // layer.groups, layer.in_channels
        images = x.numel() // (channels * math.prod(len(reach) for reach in reaches))
        values = x.reshape(images * channels, *[len(reach) for reach in reaches])
        nonzero = values != 0
        self.inputs += x.numel()
        self.nonzero += nonzero.sum(dtype=torch.float64)
        self.operations += fan_out * _reached(nonzero.sum(0, dtype=torch.float64), reaches)
        self.accumulates += fan_out * _reached(values.sum(0, dtype=torch.float64), reaches)
        self.dense += fan_out * channels * images * math.prod(int(reach.sum()) for reach in reaches)
        self.spiking &= ((values >= 0) & (values <= self.levels) & (values == values.round())).all()


def _reaches(layer: Any, x: Tensor) -> list[Tensor]:
    """How many outputs of one output channel an input at each position reaches, a factor for each dimension."""
    kernel, positions = layer.kernel_size, x.shape[-len(layer.kernel_size) :]
    out = []
    for dimension, size in enumerate(positions):
        reach, dilation = kernel[dimension], layer.dilation[dimension]
        if layer.padding == "same":
            total = dilation * (reach - 1)
            padding = total // 2, total - total // 2
        else:
            padding = (0, 0) if layer.padding == "valid" else 2 * (layer.padding[dimension],)
        place = torch.arange(1.0, size + 1)[None, None]  # 0 for zeros that are padding
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        place = F.pad(place, padding, mode=mode).flatten().long()
        windows = place.unfold(0, dilation * (reach - 1) + 1, layer.stride[dimension])[:, ::dilation]
        out.append(torch.bincount(windows.flatten(), minlength=size + 1)[1:].double().to(x.device))
    return out


def _reached(total: Tensor, reaches: Sequence[Tensor]) -> Tensor:
    for reach in reversed(reaches):
        total = total @ reach
    return total

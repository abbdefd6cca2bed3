"""From SpikingJelly and to it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..nodes.base import BaseNode
from ..nodes.neurons import (
    SPIKINGJELLY_NEURONS,
    IFNode,
    LearnedTau,
    LIFNode,
    ParametricLIFNode,
    is_spikingjellys,
)
from ..nodes.super_neuron import SuperNeuron
from ..nodes.surrogates import SPIKINGJELLY_SURROGATES
from ..rewrite.inherit import is_integrator, lost, successor
from .foreign import refuse, replace_layers


def from_spikingjelly(model: nn.Module) -> nn.Module:
    """Replaces SpikingJelly's ``IFNode``, ``LIFNode`` and ``ParametricLIFNode`` layers by stdano's of the same names,
    in place, with their settings.

    Unlike :func:`stdano.convert` it puts each kind's own counterpart in, and leaves neurons of stdano as they are.
    Spikes and gradients are SpikingJelly's but for rounding: an fma rounds once where SpikingJelly rounds twice.
    IFNode's potentials are the same in all bits. Parameters stay the same, and checkpoints of either model load into
    the other. Hooks move to the new layers; the state does not.

    Returns:
        The model; the new layer if the model is itself one.

    Raises:
        ValueError: there is no neuron of SpikingJelly, or one without counterpart, which is named with the reason.
            Nothing has changed then.
    """

    def counterpart(name: str, layer: Any) -> nn.Module:
        reason = lost(layer)
        if reason is not None:
            refuse(name, layer, reason)
        try:
            return successor(name, layer, IFNode if is_integrator(layer) else LIFNode, {})
        except (TypeError, ValueError) as error:  # a surrogate that stdano lacks
            refuse(name, layer, str(error))

    return replace_layers(
        model, "SpikingJelly", lambda module: is_spikingjellys(module, *SPIKINGJELLY_NEURONS), counterpart
    )


def to_spikingjelly(model: nn.Module) -> nn.Module:
    """Replaces stdano's ``LIFNode``, ``IFNode`` and ``ParametricLIFNode`` layers by SpikingJelly's (2.0), in place.
    Spikes and gradients stay the same but for rounding; IFNode's potentials in all bits.

    A LIFNode with ``decay="exp"`` becomes one with the time constant ``1/(1 - exp(-1/tau))``, whose linear decay is the
    same map; with ``tau=inf`` it becomes an IFNode. Parameters stay the same, and checkpoints of either model load into
    the other. Hooks move to the new layers; the state does not.

    Returns:
        The model; the new layer if the model is itself one.

    Raises:
        ImportError: SpikingJelly is not installed.
        ValueError: there is no neuron of stdano, or one without counterpart, which is named with the reason: another
            neuron; constants that differ between neurons or are learned; ``decay="exp"`` with a learned tau or with
            ``decay_input``; soft spikes; "fast_sigmoid" with another alpha than 1; one that is fused with its norm.
            Nothing has changed then.
    """
    try:
        from spikingjelly.activation_based import neuron, surrogate
    except ImportError as error:
        raise ImportError("to_spikingjelly needs SpikingJelly: pip install spikingjelly==2.0.0") from error
    return replace_layers(
        model,
        "stdano",
        lambda module: isinstance(module, (BaseNode, SuperNeuron)),
        lambda name, layer: _theirs(name, layer, neuron, surrogate),
    )


def _theirs(name: str, layer: Any, neuron: Any, surrogate: Any) -> nn.Module:
    if type(layer) not in (LIFNode, IFNode, ParametricLIFNode) or "forward" in vars(layer):
        refuse(name, layer, "of stdano's neurons LIFNode, IFNode and ParametricLIFNode alone are SpikingJelly's too")
    if layer._link is not None:
        refuse(name, layer, "it is fused with its norm: call unfuse() first")
    if layer.spike != "hard":
        refuse(name, layer, 'spike must be "hard"')
    if layer.surrogate_function == "fast_sigmoid" and layer.alpha != 1.0:
        refuse(name, layer, "alpha of fast_sigmoid must be 1: SpikingJelly's SuperSpike scales by it, not sharpens")
    kinds = {ours: theirs for theirs, ours in SPIKINGJELLY_SURROGATES.items()}
    settings = {
        "v_threshold": _number(name, layer, "v_threshold"),
        "v_reset": None if layer.v_reset is None else _number(name, layer, "v_reset"),
        "surrogate_function": getattr(surrogate, kinds[layer.surrogate_function])(alpha=layer.alpha),
        "detach_reset": layer.detach_reset,
        "step_mode": layer.step_mode,
        "store_v_seq": layer.store_v_seq,
    }
    if isinstance(layer, LearnedTau):
        if layer.decay != "linear":
            refuse(name, layer, 'decay must be "linear" where tau is learned, as in SpikingJelly')
        learned = neuron.ParametricLIFNode(decay_input=layer.decay_input, **settings)
        learned.w = layer.w
        return learned
    if isinstance(layer, IFNode) or (tau := _linear_tau(name, layer)) == math.inf:
        return neuron.IFNode(**settings)
    return neuron.LIFNode(tau=tau, decay_input=layer.decay_input, **settings)


def _number(name: str, layer: Any, constant: str) -> float:
    value = getattr(layer, constant)
    if isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and value.dim() > 0):
        kind = "learned" if isinstance(value, nn.Parameter) else f"a tensor of shape {list(value.shape)}"
        refuse(name, layer, f"{constant} must be a number in SpikingJelly, and is {kind}")
    return float(value)


def _linear_tau(name: str, layer: Any) -> float:
    """The time constant whose linear decay is the layer's decay."""
    tau = _number(name, layer, "tau")
    if layer.decay == "linear" or tau == math.inf:
        return tau
    if layer.decay_input:
        refuse(name, layer, 'with decay="exp" decay_input multiplies by another number than SpikingJelly does')
    linear = -1 / math.expm1(-1 / tau)
    if linear <= 1.0:
        refuse(name, layer, f"tau = {tau:g} leaves nothing of a potential, for which SpikingJelly has no tau")
    return linear

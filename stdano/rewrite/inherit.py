"""What a new spiking layer takes over from the one that it replaces, stdano's or SpikingJelly's."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import nn

from ..nodes.base import BaseNode
from ..nodes.neurons import (
    SPIKINGJELLY_NEURONS,
    IFNode,
    LearnedTau,
    is_own,
    is_spikingjellys,
    parametric,
    resets_softly,
    shared,
)
from ..nodes.super_neuron import SuperNeuron

_INHERITED = (
    "tau",
    "decay_input",
    "v_threshold",
    "v_reset",
    "surrogate_function",
    "detach_reset",
    "store_v_seq",
)
# SpikingJelly's neurons that do what an LIF of stdano does with the same settings; IF is one that does not leak.
_IF = ("IFNode", "SimpleIFNode", "MultiStepIFNode")
_PARAMETRIC = ("ParametricLIFNode", "MultiStepParametricLIFNode")
_EXPRESSED = (*_IF, *_PARAMETRIC, "LIFNode", "SimpleLIFNode", "MultiStepLIFNode")
# What users attach to a layer to see or change what passes through it.
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)


def is_spiking(module: nn.Module) -> bool:
    """Whether a module is a spiking neuron of stdano, super neurons included, or of SpikingJelly."""
    return isinstance(module, (BaseNode, SuperNeuron)) or is_spikingjellys(module, *SPIKINGJELLY_NEURONS)


def spiking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The spiking layers by name, in order of definition; one that is used twice appears once."""
    return {name: module for name, module in model.named_modules() if is_spiking(module)}


def require_layers(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Raises ValueError where :func:`spiking_layers` has found none."""
    if not layers:
        raise ValueError(f"model must have spiking layers of stdano or SpikingJelly, {type(model).__name__} has none")


def kind_of(layer: nn.Module) -> str:
    """``"LIF"`` for LIFNode."""
    return type(layer).__name__.removesuffix("Node")


def step_mode_of(layer: nn.Module) -> str:
    """``"m"`` or ``"s"``. The neurons of SpikingJelly's clock_driven have it in their class, not as an attribute."""
    return getattr(layer, "step_mode", "m" if type(layer).__name__.startswith("MultiStep") else "s")


def called(name: str, layer: nn.Module) -> str:
    """A layer, for people."""
    return f"layer {name!r} ({type(layer).__name__})" if name else type(layer).__name__


def lost(layer: nn.Module) -> str | None:
    """Why a neuron of stdano with a layer's settings would do something else than the layer; None if it would not."""
    kind = type(layer)
    if "forward" in vars(layer):
        return "it has a forward of its own, which would be lost"
    if (
        is_own(kind)
        or kind is SuperNeuron
        or (kind.__module__.startswith("spikingjelly.") and kind.__name__ in _EXPRESSED)
    ):
        return None
    if kind.__module__.startswith("spikingjelly."):
        known = "LIFNode, IFNode and ParametricLIFNode"
        return f"its dynamics would be lost: of SpikingJelly's neurons {known} alone have a counterpart"
    return "it is a class of its own, and what it does besides its base class would be lost"


def inherited(old: nn.Module, new: type[BaseNode]) -> dict[str, Any]:
    """The settings that a class of neurons takes over from the layer that it replaces, as far as both have them. A tau
    that the old layer learns is not among them."""
    if isinstance(old, SuperNeuron):
        return old.settings_of(new)
    if isinstance(old, BaseNode):
        values = {name: getattr(old, name) for name in old._arguments.defaults if shared(name, type(old), new)}
    else:
        values = {name: getattr(old, name) for name in _INHERITED if hasattr(old, name)} | {"decay": "linear"}
        values["step_mode"] = step_mode_of(old)
        if resets_softly(new):
            values.pop("v_reset", None)
    if learns_tau(old):
        values.pop("tau", None)
    if is_integrator(old):
        values["tau"] = math.inf  # with which both kinds of decay are none
        values.pop("decay", None)
    return {name: value for name, value in values.items() if name in new._arguments.defaults}


def is_integrator(layer: nn.Module) -> bool:
    """Whether a layer is an integrate-and-fire neuron, stdano's or SpikingJelly's."""
    return is_spikingjellys(layer, *_IF) or isinstance(layer, IFNode)


def learns_tau(layer: nn.Module) -> bool:
    """Whether a layer learns w with 1/tau = sigmoid(w)."""
    return isinstance(layer, LearnedTau) or is_spikingjellys(layer, *_PARAMETRIC)


def successor(name: str, old: nn.Module, new: type[BaseNode], settings: dict[str, Any]) -> BaseNode:
    """The neuron of a class that takes the place of a layer.

    Raises:
        ValueError, TypeError: the settings do not fit, or tau is unknown.
    """
    values = {**inherited(old, new), **settings}
    has_tau = "tau" in new._arguments.defaults
    if has_tau and "tau" not in values and learns_tau(old):
        learned = (new if issubclass(new, LearnedTau) else parametric(new))(**values)
        learned.register_parameter("w", old.get_parameter("w"))  # itself, which optimisers may know already
        return learned.train(old.training)
    if has_tau and "tau" not in settings:
        require_tau(name, old, new, values)
    return new(**values).train(old.training)


def require_tau(name: str, old: nn.Module, new: type[BaseNode], values: dict[str, Any]) -> None:
    """Raises ValueError where a layer has no tau to hand on, or none that a neuron of that class can do with."""
    if "tau" not in values:
        raise ValueError(f"tau must be given: {called(name, old)} has none to inherit")
    no_leak = isinstance(values["tau"], float) and math.isinf(values["tau"])
    if no_leak and "tau_min" in new._arguments.defaults and not hasattr(old, "tau_min"):
        raise ValueError(
            f"tau must be given: {called(name, old)} has none to inherit, since it does not leak, and "
            f"{new.neuron.__name__} shortens a finite one"
        )


def check_known(layers: dict[str, nn.Module], explicitly: bool) -> None:
    """Raises ValueError for layers that a neuron of stdano does not express, unless they are named explicitly; then
    what is lost is a warning."""
    for name, layer in layers.items():
        reason = lost(layer)
        if reason is None:
            continue
        if not explicitly:
            raise ValueError(
                f"{called(name, layer)} cannot be converted: {reason}. To have it replaced all the same, name it in a "
                f'mapping, {{"{type(layer).__name__}": ...}}, with a neuron or a function of the layer'
            )
        warnings.warn(f"{called(name, layer)} is replaced, but {reason}", RuntimeWarning, stacklevel=3)


def move_hooks(old: nn.Module, new: nn.Module) -> None:
    """What was attached to the old layer is attached to the new one, and its handles go on to work."""
    if old in new.modules():
        return
    for name in _HOOKS:
        hooks = getattr(old, name)
        hooks.update(getattr(new, name))
        setattr(new, name, hooks)
    if old._is_full_backward_hook is not None:
        new._is_full_backward_hook = old._is_full_backward_hook

"""Turns the spiking layers of any model into super neurons."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import Neuron

from ..nodes.candidates import check_candidates
from ..nodes.neurons import CANDIDATES, class_of
from ..nodes.super_neuron import SuperNeuron, name_here
from ..rewrite.convert import convert, run_layers
from ..rewrite.inherit import (
    called,
    inherited,
    learns_tau,
    lost,
    require_layers,
    require_tau,
    spiking_layers,
    step_mode_of,
)

Candidates = Sequence[str | type[Neuron] | Neuron]


def to_super(
    model: nn.Module, example_input: Tensor, candidates: Candidates = ("LIF", "LLIF", "SLIF"), **settings: Any
) -> nn.Module:
    """Replaces the spiking layers of a model by super neurons, in place; super neurons that it has stay.

    ``stdano.convert(model, {"SuperNeuron": lambda neuron: neuron.node()})`` turns it into the network that was found.

    Args:
        model: any module with spiking layers of stdano or SpikingJelly in ``step_mode="m"``, each of which forward
            runs once, with an input ``[T, B, C, ...]``.
        example_input: an input for one forward call (without gradients, in eval mode), which tells the number of
            channels of each layer, its device and the order of execution.
        candidates: as for :class:`stdano.SuperNeuron`; what they have settings of their own for is not inherited.
        settings: arguments of :class:`stdano.SuperNeuron`, which override what is inherited.

    Settings are inherited as by :func:`stdano.convert`, hooks too. A reset of an LIF or LLIF becomes that of both, one
    of an SLIF becomes ``slif_v_reset``. Candidates for the place of an IFNode do not leak either; SLIF is none of them
    unless ``tau`` is given.

    Returns:
        The model; a super neuron if the model is itself a spiking layer.

    Raises:
        ValueError, TypeError: there are no spiking layers, or one of them cannot become a super neuron: it sees one
            time step at a time (``step_mode="s"``), is run never, more than once or without channels, keeps its
            potentials (``store_v_seq``), is fused with its norm, is of a class that no neuron of stdano expresses (see
            :func:`stdano.convert`), is held in a plain list, tuple or dict as well, or has no ``tau`` that is a number
            (it may learn one) and none is given. Nothing has changed then.
    """
    layers = spiking_layers(model)
    require_layers(model, layers)
    for name, layer in layers.items():
        _check(name, layer, candidates, settings)
    new: dict[str, nn.Module] = {}

    def build(name: str, x: Tensor) -> None:
        if name in new:
            raise ValueError(
                f"{called(name, layers[name])} must run once in a forward call, it runs twice: a super neuron keeps "
                "the statistics of one place"
            )
        new[name] = _super_neuron(name, layers[name], x, candidates, settings)

    run_layers(model, layers, example_input, build)
    idle = [name for name in layers if name not in new]
    if idle:
        raise ValueError(f"example_input must run all spiking layers of the model, it does not run {idle}")
    for position, (name, neuron) in enumerate(new.items()):
        neuron.position = position  # type: ignore[assignment]
        neuron.train(layers[name].training)
    names = {id(layer): name for name, layer in layers.items()}
    return convert(model, lambda old: new[names[id(old)]])


def _check(name: str, layer: nn.Module, candidates: Candidates, settings: dict[str, Any]) -> None:
    if isinstance(layer, SuperNeuron):
        return
    reason = lost(layer)
    if reason is not None:
        raise ValueError(f"{called(name, layer)} cannot become a super neuron: {reason}; convert() it first")
    step_mode = step_mode_of(layer)
    if step_mode != "m":
        raise ValueError(
            f'{called(name, layer)} must have step_mode "m", since a super neuron needs all time steps at once; got '
            f"{step_mode!r}"
        )
    if getattr(layer, "store_v_seq", False):
        raise ValueError(f"{called(name, layer)} must have store_v_seq=False: a super neuron gives no potentials")
    if "tau" in settings:
        return
    if learns_tau(layer):
        raise ValueError(f"tau must be given: {called(name, layer)} learns its own, which a super neuron does not")
    for one in check_candidates("candidates", candidates):
        cls = class_of(type(one))
        if "tau" not in one.own and "tau" in cls._arguments.defaults:
            require_tau(name, layer, cls, inherited(layer, cls))


def _super_neuron(name: str, old: nn.Module, x: Tensor, candidates: Candidates, settings: dict[str, Any]) -> nn.Module:
    if isinstance(old, SuperNeuron):
        return old
    if x.dim() < 3:
        raise ValueError(
            f"{called(name, old)} must have an input [T, B, C, ...], got a tensor of shape {list(x.shape)}"
        )
    values: dict[str, Any] = {}
    known = inspect.signature(SuperNeuron).parameters
    for cls in CANDIDATES.values():
        for setting, value in inherited(old, cls).items():
            here = name_here(setting, cls)
            if here in known:
                values[here] = value
            elif setting not in ("step_mode", "store_v_seq") and value != cls._arguments.defaults[setting]:
                raise ValueError(f"{called(name, old)} has {setting}={value!r}, which a super neuron cannot have")
    try:
        new = SuperNeuron(x.shape[2], candidates, **{**values, **settings})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{called(name, old)}: {error}") from error
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32  # half precision has float32 weights
    return new.to(x.device, dtype)

"""What is analysed: a declared neuron with its settings, or the layers of a network while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import Neuron
from stdano_kernels.neurons import NEURONS
from stdano_kernels.spec import spec_of

from ..nodes.base import BaseNode
from ..nodes.neurons import class_of, reset_net
from ..rewrite.inherit import require_layers, spiking_layers, step_mode_of
from .running import as_before

AnyNeuron = str | type[Neuron] | type[BaseNode] | BaseNode


def resolved(neuron: AnyNeuron, settings: dict[str, Any]) -> tuple[type[Neuron], dict[str, Any]]:
    """The declaration of a neuron and the arguments of its function: a layer's own, with others in their place.

    Raises:
        ValueError, TypeError: there is no such neuron, or it has no such setting.
    """
    if isinstance(neuron, BaseNode):
        declaration = neuron.neuron
        own = {k: v.detach() if isinstance(v, Tensor) else v for k, v in neuron._settings().items()}
        settings = {**own, "backend": neuron.backend, **settings}
    else:
        known = isinstance(neuron, str) and neuron in NEURONS
        declaration = NEURONS[neuron] if known else class_of(neuron).neuron  # type: ignore[index]
    spec_of(declaration).settings({k: v for k, v in settings.items() if k != "backend"})
    return declaration, settings


def check_input(x: Tensor) -> None:
    """Raises where x is no input of a neuron with at least one step and one neuron."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a tensor of floating-point numbers, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.dim() == 0 or not x.numel():
        raise ValueError(f"x must be [T, ...] with at least one step and one neuron, got shape {list(x.shape)}")


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """A network in eval mode and at rest, whose spiking layers note their inputs, by name: one ``[T, B, ...]`` a call,
    or, in step mode "s", one ``[B, ...]`` a call. An input without history gets one, so that every one has a gradient.
    Afterwards the network is as it was.

    Raises:
        ValueError: there are no spiking layers.
    """
    layers = spiking_layers(model)
    require_layers(model, layers)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]:
        def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
            x = inputs[0] if inputs else named.pop("x")
            if torch.is_grad_enabled() and not x.requires_grad:
                x = x.detach().requires_grad_()
            seen[name].append(x)
            return (x, *inputs[1:]), named

        return note

    handles = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with as_before(model):
            reset_net(model)
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def over_time(layer: nn.Module, calls: list[Tensor]) -> list[Tensor]:
    """What a layer noted, a tensor ``[T, B, ...]`` a call; the calls of a layer in step mode "s" are the steps."""
    return [torch.stack(calls)] if step_mode_of(layer) == "s" else calls


@torch.no_grad()
def layer_inputs(model: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """What each spiking layer of a network gets, in eval mode and from rest: by name, a tensor ``[T, B, ...]`` for each
    call; of a layer in step mode "s" all calls together, one a step. Layers that do not run have none.

    Args:
        model: with spiking layers of stdano or SpikingJelly.
        x: what the model takes.

    Raises:
        ValueError: there are no spiking layers.
    """
    with watched(model) as seen:
        model(x)
    layers = spiking_layers(model)
    return {name: over_time(layers[name], calls) if calls else [] for name, calls in seen.items()}

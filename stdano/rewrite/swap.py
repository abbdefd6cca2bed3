"""Puts new layers in the places of old ones, everywhere in a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Mapping

from torch import nn

from .containers import held_aside
from .inherit import called, move_hooks


def swap(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Replaces the keys by their values, in place, hooks included; returns the model, or what takes its place."""
    for old, layer in new.items():
        move_hooks(old, layer)
    _invalidate_spikingjelly_cache(model)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children() hides the second use of a layer
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return new.get(model, model)


def require_reachable(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    chosen: Container[nn.Module],
    is_layer: Callable[[nn.Module], bool],
) -> None:
    """Raises ValueError for layers that forward may run by a list of its own, which would go on to run the old ones.

    Args:
        model: the model.
        layers: all of its layers that count, by name.
        chosen: those that are to be replaced.
        is_layer: whether a module is one that counts.
    """
    names = {layer: name for name, layer in layers.items()}
    for where, held in held_aside(model):
        if is_layer(held) and (held in chosen or held not in names):
            raise ValueError(
                f"{called(names.get(held, ''), held)} must not be held in {where}, since it would stay there: use "
                "nn.ModuleList or nn.ModuleDict, or take it out first"
            )


def _invalidate_spikingjelly_cache(model: nn.Module) -> None:
    """SpikingJelly remembers which modules reset_net visits; it would go on to reset the replaced ones."""
    functional = sys.modules.get("spikingjelly.activation_based.functional")
    invalidate = getattr(functional, "invalidate_reset_cache", None)
    if invalidate is not None:
        invalidate(model)

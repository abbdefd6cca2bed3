"""What the bridges from other libraries share: they find the layers of a library and put stdano's in their places."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..rewrite.inherit import called
from ..rewrite.swap import require_reachable, swap


def is_from(module: object, package: str, bases: Collection[str]) -> bool:
    """Whether a module's class, or one that it is made from, has one of these names in a package. Nothing is imported
    for it."""
    return any(base.__name__ in bases and base.__module__.partition(".")[0] == package for base in type(module).__mro__)


def is_snntorchs(module: object) -> bool:
    """Whether a module is a neuron of snnTorch."""
    return is_from(module, "snntorch", ("SpikingNeuron",)) or type(module).__module__.startswith("snntorch._neurons.")


def is_sinabs(module: object) -> bool:
    """Whether a module is a layer of sinabs that keeps a state."""
    return is_from(module, "sinabs", ("StatefulLayer",))


def is_plain(module: nn.Module, package: str, names: Collection[str]) -> bool:
    """Whether a module is an instance of one of these classes of a package, with that class's forward."""
    kind = type(module)
    return kind.__module__.partition(".")[0] == package and kind.__name__ in names and "forward" not in vars(module)


def refuse(name: str, layer: nn.Module, reason: str) -> NoReturn:
    """Raises the ValueError that says why a layer has no counterpart."""
    raise ValueError(f"{called(name, layer)} cannot be converted: {reason}")


def replace_layers(
    model: nn.Module, library: str, is_layer: Callable[[Any], bool], make: Callable[[str, Any], nn.Module]
) -> nn.Module:
    """Puts ``make(name, layer)`` in the place of each layer, in place; hooks and training mode are kept. All new layers
    are made before the first old one is replaced.

    Returns:
        The model; the new layer if the model is itself one.

    Raises:
        TypeError: model is no module.
        ValueError: it has no layer of the library, holds one where torch does not look, or ``make`` raises it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    layers = {name: module for name, module in model.named_modules() if is_layer(module)}
    if not layers:
        raise ValueError(f"model must have spiking layers of {library}, {type(model).__name__} has none")
    require_reachable(model, layers, set(layers.values()), is_layer)
    return swap(model, {layer: make(name, layer).train(layer.training) for name, layer in layers.items()})


def as_constant(value: Any) -> Any:
    """A constant in a shape that a neuron takes: one value as ``[]``, one a channel, ``[C, 1, 1]``, as ``[C]``."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if value.numel() == 1:
        return value.reshape([])
    return value.flatten() if value.dim() > 1 and value.shape[0] == value.numel() else value


def require_same_places(layer: nn.Module, name: str, value: Any, x: Tensor, leading: int) -> None:
    """Raises ValueError where a constant that is one a channel for stdano lies along other dimensions in a library that
    lays constants along the last ones, as torch does. ``leading`` dimensions of x stand before those of the neurons."""
    own = x.dim() - leading
    by_channel = isinstance(value, Tensor) and value.numel() > 1 and as_constant(value).dim() == 1
    if by_channel and (value.dim() < own or 1 < value.dim() != own):
        raise ValueError(
            f"{name} of {type(layer).__name__} has the shape {list(value.shape)}, which lies along the last "
            f"dimensions of an input of shape {list(x.shape)}. One a channel has the shape "
            f"{[value.numel(), *[1] * (own - 1)]}"
        )


def floating(value: Any) -> Tensor:
    """A number, or a tensor of whole numbers, as a tensor of floating-point numbers; what is one already, as it is."""
    tensor = torch.as_tensor(value)
    return tensor if tensor.is_floating_point() else tensor.float()

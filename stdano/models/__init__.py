"""Spiking networks: :func:`create_model`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from torch import nn

from ..nodes.neurons import names_neuron
from .blocks import merged
from .factory import Factory, Neurons
from .resnet import PreActResNet18, scaled
from .strings import MODELS, ablations, check_model, layer_neurons, neuron_string, num_spiking_layers
from .vgg import VGG, VGGS

WIDEST = 1000  # beyond it sizes of tensors overflow

__all__ = ["MODELS", "ablations", "create_model", "layer_neurons", "merged", "neuron_string", "num_spiking_layers"]


def create_model(
    name: str,
    neurons: Neurons = "LIF",
    *,
    T: int = 4,
    in_channels: int = 3,
    num_classes: int = 10,
    size: int = 32,
    width: float = 1.0,
    dropout: float = 0.0,
    sync_statistics: bool = False,
    **settings: Any,
) -> nn.Module:
    """A network with random weights.

    Args:
        name: ``"vgg-small"`` (4 spiking layers, for CPUs), ``"vgg11"`` (8), ``"vgg13"`` (10), ``"vgg16"`` (13), or
            ``"resnet18"`` (pre-activation, 17).
        neurons: ``"LIF"`` (default), ``"LLIF"``, ``"SLIF"``, ``"ALIF"`` and so on, also with settings of its own
            (``"LIF(tau=4.0)"``) or of one's own (``"mypackage.mymodule:MyNeuron"``), a declared neuron
            (:class:`stdano_kernels.Neuron`) or a class of neurons, in all layers; a digit a layer in order of execution
            (0 LIF, 1 LLIF, 2 SLIF), such as ``"20002000000001001"``; such names between commas, one a layer; a method
            of the ablation study such as ``"LLIF-4"`` (see :func:`ablations`); ``"super"``, super neurons for a search;
            or a function from the number of channels to a spiking layer that takes ``[T, B, C, H, W]``.
        T: time steps for images, 1 or more; default 4. Frames bring their own.
        in_channels: channels of images or frames; default 3.
        num_classes: default 10.
        size: height and width in pixels; default 32. Any other size works too: the argument is there to be checked.
            vgg-small takes 4 or more, the others 32 or more (vgg11, 13, 16) and 8 or more (resnet18).
        width: factor on the channels of every layer; default 1.
        dropout: at least 0 and below 1; default 0. See the classes for where.
        sync_statistics: in training, norms and super neurons take statistics over all processes.
        settings: of the neurons: ``tau``, ``decay``, ``v_threshold``, ``surrogate_function``, ``alpha`` (the
            surrogate's sharpness), ``gamma``, ``beta``, ``tau_min``, ``backend`` and so on; each kind of neuron takes
            those that it has and has no own value for. A neuron that is named takes ``gamma``, ``beta`` and
            ``tau_min`` only if they are those of LLIF or SLIF. With ``"super"`` also ``candidates``, the neurons to
            choose from.

    Returns:
        A module from images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]`` to logits ``[T, B, classes]``.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """
    check_model(name)
    smallest = {"vgg-small": 4, "resnet18": 8}.get(name, 32)
    numbers = {"T": (T, 1), "in_channels": (in_channels, 1), "num_classes": (num_classes, 1), "size": (size, smallest)}
    for argument, (value, lowest) in numbers.items():
        if not isinstance(value, Integral) or value < lowest:
            raise ValueError(f"{argument} must be {lowest} or more for {name}, got {value!r}")
    T, in_channels, num_classes, size = (int(value) for value, _ in numbers.values())
    for argument, share in (("width", width), ("dropout", dropout)):
        if not isinstance(share, Real):
            raise TypeError(f"{argument} must be a number, got {share!r}")
    width, dropout = float(width), float(dropout)
    if not 0 < width <= WIDEST:
        raise ValueError(f"width must be a finite number above 0 and at most {WIDEST}, got {width!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    if isinstance(neurons, str) and neurons != "super":
        neurons = neuron_string(name, neurons)
    elif not isinstance(neurons, str) and not callable(neurons) and not names_neuron(neurons):
        raise TypeError(f"neurons must be a string or a function of the number of channels, got {neurons!r}")
    make = Factory(neurons, sync_statistics, settings)
    shape: dict[str, Any] = dict(T=T, in_channels=in_channels, num_classes=num_classes, dropout=dropout)
    if name == "resnet18":
        return PreActResNet18(width, make, **shape)
    blocks = [[scaled(channels, width) for channels in block] for block in VGGS[name].blocks]
    return VGG(blocks, make, head_size=VGGS[name].head_size, **shape)

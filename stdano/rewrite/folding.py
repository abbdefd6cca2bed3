"""For inference: BatchNorm becomes part of the convolution or linear layer in front of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..nodes.link import has_hooks, is_patched, link_of
from ..nodes.normalised import BatchNormNeuron, unlink
from .containers import held_aside
from .dataflow import traced
from .fusion import described, is_norm
from .inherit import is_spiking

# Layers that use their weight as it is. SpikingJelly's of the same names do so too, its WSConv2d and others do not.
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """A copy of a model in eval mode, for inference, in which convolutions and linear layers do the work of the
    BatchNorms behind them.

    A norm that is folded, fused with a neuron or not, becomes an ``nn.Identity``; its scale and shift by the running
    statistics move into weight and bias. Folded are norms (those that :func:`stdano.fuse` takes) whose whole input is
    the output of one convolution or linear layer that is used for nothing else, merging and splitting of T and B in
    between allowed; ``torch.fx`` tells. Others stay as they are, fused or not; so do layers and norms with hooks (those
    of pruning, old ``weight_norm`` and ``spectral_norm`` included), with parametrizations or a ``forward`` of their
    own, subclasses of torch's layers, and norms that the model also holds in a plain list, tuple or dict. Results
    differ by rounding, which flips a spike where the potential meets the threshold.

    Raises:
        ValueError: the model, or a part of it, is in training mode.
    """
    training = [name or "itself" for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f"model must be in eval mode, but in training mode are {', '.join(training[:5])}")
    folded = copy.deepcopy(model)
    names = {module: name for name, module in folded.named_modules()}
    aside = {module for _, module in held_aside(folded)}
    flow = traced(folded, _of_interest, _moves_time)
    replaced: dict[nn.Module, nn.Module] = {}
    for layer, calls in flow.takers.items():
        places = {takers[0] if len(takers) == 1 else "" for takers in calls}
        if not _is_layer(layer) or len(places) != 1:
            continue
        (place,) = places
        if isinstance(place, str) or any(maker is not layer for maker in flow.makers[place]):
            continue
        time_first = isinstance(place, BatchNormNeuron) or getattr(place, "step_mode", "s") == "m"
        norm = place[0] if isinstance(place, BatchNormNeuron) else place
        if not is_norm(norm) or norm in replaced or norm in aside or not _fits(layer, norm, time_first):
            continue
        _fold(layer, norm)
        connection = link_of(norm)
        if connection is not None:
            unlink(connection)
        replaced[norm] = Folded(described(norm, names), _dimensions(layer) + time_first).eval()
    for parent in list(folded.modules()):
        for name, child in list(parent._modules.items()):
            if child in replaced:
                setattr(parent, name, replaced[child])
    return folded


class Folded(nn.Identity):
    """In place of a norm. The number of dimensions tells whether the norm's channels were the layer's: a BatchNorm1d
    behind a linear layer, say, normalises dimension 1, while the layer's outputs are the last."""

    def __init__(self, name: str, dimensions: int) -> None:
        super().__init__()
        self.name = name
        self.dimensions = dimensions

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != self.dimensions:
            raise ValueError(
                f"{self.name} was folded into the layer in front of it, which is right for inputs of "
                f"{self.dimensions} dimensions alone; got {list(input.shape)}"
            )
        return input


_Folded = Folded  # pickles of whole networks know it by this name


def _is_layer(module: nn.Module) -> bool:
    kind = type(module)
    spikingjelly = kind.__module__.startswith("spikingjelly.") and kind.__name__ in [
        layer.__name__ for layer in _LAYERS
    ]
    return kind in _LAYERS or (spikingjelly and isinstance(module, _LAYERS))


def _of_interest(module: nn.Module) -> bool:
    return _is_layer(module) or is_norm(module) or is_spiking(module) or isinstance(module, BatchNormNeuron)


def _moves_time(name: str, arguments: tuple[Any, ...]) -> bool:
    """Reshaping that leaves dimensions behind the first, or behind T and B, alone."""
    if name == "flatten":
        return arguments[1:] == (0, 1)
    return name in ("contiguous", "Identity") or (name == "unflatten" and arguments[1:2] == (0,))


def _fits(layer: Any, norm: Any, time_first: bool) -> bool:
    """Whether the norm's channels are the layer's and its statistics fixed."""
    if norm.running_mean is None or any(has_hooks(m) or is_patched(m) for m in (layer, norm)):
        return False
    if isinstance(layer, nn.Linear):
        return layer.out_features == norm.num_features and (time_first or isinstance(norm, nn.BatchNorm1d))
    return layer.out_channels == norm.num_features and not (isinstance(layer, _ConvTransposeNd) and layer.groups > 1)


def _dimensions(layer: Any) -> int:
    """Of the layer's output, without T."""
    return 2 if isinstance(layer, nn.Linear) else layer.weight.dim()


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        isinstance(layer, _ConvTransposeNd),
    )

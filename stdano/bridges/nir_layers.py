"""Between torch's layers and the nodes of NIR; neurons are in nir_neurons.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..models.blocks import SharedDropout, TimeFirst
from ..models.vgg import Halve
from ..nodes.neurons import is_spikingjellys
from ..rewrite.folding import Folded
from ..rewrite.fusion import is_norm
from .foreign import refuse

# In eval mode they hand on what they get.
_DROPOUT = (_DropoutNd, SharedDropout)
_IDENTITIES = (nn.Identity, *_DROPOUT, TimeFirst, Folded)
#: Layers that know no time: they take [T*B, ...].
TIMELESS = (nn.Conv1d, nn.Conv2d, nn.AvgPool2d)


def node_of(nir: Any, name: str, layer: Any, into: tuple[int, ...], out: tuple[int, ...]) -> Any:
    """The node of a layer that is no neuron, None if it hands on what it gets.

    Args:
        nir: the package.
        name, layer: the layer and how the model calls it.
        into, out: shapes of its input and output without T and B.

    Raises:
        ValueError: NIR has none.
    """
    if (
        isinstance(layer, _IDENTITIES)
        or _is_spikingjellys_dropout(layer)
        or (isinstance(layer, (nn.Flatten, Halve)) and into == out)
    ):
        return None
    for cls, write in _WRITERS.items():
        if isinstance(layer, cls) and type(layer).__name__ in (cls.__name__, "InputConv2d"):  # others may do otherwise
            return write(nir, name, layer, into, out)
    if is_norm(layer):
        return _norm(nir, layer, into)
    refuse(name, layer, "NIR has no node for it")


def differs_in_training(layer: nn.Module) -> bool:
    """Whether a layer does something else in training."""
    return is_norm(layer) or isinstance(layer, _DROPOUT) or _is_spikingjellys_dropout(layer)


def _is_spikingjellys_dropout(layer: nn.Module) -> bool:
    return is_spikingjellys(layer, "Dropout", "Dropout2d")


def _linear(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    if len(into) != 1:
        refuse(name, layer, f"a linear layer of NIR takes vectors, got {list(into)}")
    weight = _numpy(layer.weight)
    return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _numpy(layer.bias))


def _convolution(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    if layer.groups != 1:
        refuse(name, layer, "groups must be 1: the package nir takes the channels of a group for all of the input")
    if layer.padding_mode != "zeros":
        refuse(name, layer, f'padding_mode must be "zeros", got {layer.padding_mode!r}')
    if len({*layer.kernel_size}) > 1:
        refuse(name, layer, f"the package nir takes kernels to be square, got {list(layer.kernel_size)}")
    weight = _numpy(layer.weight)
    bias = np.zeros(len(weight), weight.dtype) if layer.bias is None else _numpy(layer.bias)
    settings = {k: getattr(layer, k) for k in ("stride", "padding", "dilation", "groups")}
    if isinstance(layer, nn.Conv1d):
        one = {k: v[0] if isinstance(v, tuple) else v for k, v in settings.items()}
        return nir.Conv1d(input_shape=into[-1], weight=weight, bias=bias, **one)
    return nir.Conv2d(input_shape=into[-2:], weight=weight, bias=bias, **settings)


def _average(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    padding = _pair(layer.padding)
    if layer.ceil_mode or (padding.any() and not layer.count_include_pad) or layer.divisor_override not in (None, 1):
        refuse(name, layer, "ceil_mode, count_include_pad=False and a divisor are not in NIR")
    kind = nir.SumPool2d if layer.divisor_override == 1 else nir.AvgPool2d
    return kind(kernel_size=_pair(layer.kernel_size), stride=_pair(layer.stride), padding=padding)


def _sum(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    if layer.norm_type != 1 or layer.ceil_mode:
        refuse(name, layer, "norm_type must be 1 and ceil_mode False")
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return nir.SumPool2d(kernel_size=_pair(layer.kernel_size), stride=_pair(stride), padding=_pair(0))


def _adaptive(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    if any(size % parts for size, parts in zip(into[1:], out[1:], strict=True)):
        refuse(name, layer, f"maps of {list(into[1:])} do not divide into {list(out[1:])} windows of one size")
    kernel = np.array([size // parts for size, parts in zip(into[1:], out[1:], strict=True)])
    return nir.AvgPool2d(kernel_size=kernel, stride=kernel, padding=_pair(0))


def _halve(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    return nir.AvgPool2d(kernel_size=_pair(2), stride=_pair(2), padding=_pair(0))


def _flatten(nir: Any, name: str, layer: Any, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    return flattened(nir, name, into, out)


def flattened(nir: Any, what: str, into: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    """The node that makes a vector of all dimensions."""
    if len(out) != 1:
        raise ValueError(f"{what} must flatten all dimensions behind T and B, got {list(into)} to {list(out)}")
    return nir.Flatten(input_type=np.array(into), start_dim=0, end_dim=-1)


def _norm(nir: Any, layer: Any, into: tuple[Any, ...]) -> Any:
    """A norm that is in no convolution: a convolution of 1 x 1, or a linear layer, each channel to itself."""
    scale = _double(layer.running_var).add(layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * _double(layer.weight)
    shift = -scale * _double(layer.running_mean)
    shift = shift if layer.bias is None else shift + _double(layer.bias)
    weight, bias = torch.diag(scale).float().numpy(), shift.float().numpy()
    if len(into) == 1:
        return nir.Affine(weight, bias)
    kind, size = (nir.Conv1d, into[1]) if len(into) == 2 else (nir.Conv2d, into[1:])
    weight = weight.reshape(*weight.shape, *[1] * (len(into) - 1))
    return kind(input_shape=size, weight=weight, bias=bias, stride=1, padding=0, dilation=1, groups=1)


_WRITERS: dict[type, Callable[..., Any]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.AvgPool2d: _average,
    nn.LPPool2d: _sum,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Flatten: _flatten,
    Halve: _halve,
}


def layer_of(name: str, node: Any) -> nn.Module:
    """The layer of a node that is no neuron.

    Raises:
        ValueError: stdano has none.
    """
    kind = type(node).__name__
    if kind in ("Affine", "Linear"):
        weight = _tensor(node.weight)
        if weight.dim() != 2:
            raise ValueError(f"node {name!r} ({kind}) must have a matrix as its weight, got {list(weight.shape)}")
        return _filled(nn.Linear(weight.shape[1], weight.shape[0], bias=kind == "Affine"), node)
    if kind in ("Conv1d", "Conv2d"):
        weight = _tensor(node.weight)
        settings = {k: _plain(getattr(node, k)) for k in ("stride", "padding", "dilation", "groups")}
        cls: Any = nn.Conv1d if kind == "Conv1d" else nn.Conv2d
        channels = weight.shape[1] * settings["groups"]
        return _filled(cls(channels, weight.shape[0], tuple(weight.shape[2:]), **settings), node)
    if kind in ("AvgPool2d", "SumPool2d"):
        settings = {k: _plain(getattr(node, k)) for k in ("kernel_size", "stride", "padding")}
        return nn.AvgPool2d(**settings, divisor_override=1 if kind == "SumPool2d" else None)
    if kind == "Flatten":
        start, end = int(node.start_dim), int(node.end_dim)
        return nn.Flatten(start + 2 if start >= 0 else start, end + 2 if end >= 0 else end)
    raise ValueError(f"node {name!r} ({kind}) cannot be read: stdano has no layer for it")


def _filled(layer: Any, node: Any) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(_tensor(node.weight))
        if layer.bias is not None:
            layer.bias.copy_(_tensor(node.bias))
    return layer


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(np.asarray(value), dtype=torch.get_default_dtype())


def _plain(value: Any) -> Any:
    """A number, a tuple or a string, from whatever the file gave."""
    if isinstance(value, (str, bytes)):
        return value.decode() if isinstance(value, bytes) else value
    array = np.asarray(value)
    return int(array) if array.ndim == 0 else tuple(int(v) for v in array)


def _pair(value: Any) -> np.ndarray:
    return np.array(value if isinstance(value, tuple) else (value, value))


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()


def _double(value: Tensor) -> Tensor:
    return value.detach().cpu().double()

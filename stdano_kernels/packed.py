"""Spikes that autograd keeps for backward, as bits: :func:`packed_spikes`.

Convolutions, linear layers and products keep their inputs for backward, and behind neurons these are spikes: numbers of
32 bits for what is 0 or 1. torch asks, by its hooks for saved tensors, what to keep instead. A tensor whose values are
known to be spikes is kept as bits, once, whoever keeps it and in whatever view. It is known by where it comes from: a
neuron, or an operation behind one that leaves such values as they are (a cast, a copy, max pooling) or makes whole
multiples of them (average pooling, a sum). On the CPU, where nobody has to wait for it, other tensors are looked at
too.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import registration
from .backends import serves
from .checks import DTYPES, is_dense
from .contexts import Contexts
from .define.neuron import Neuron
from .define.trace import Variant
from .levels import SPIKES, Levels, if_few, levels_of, pooled, without_memory
from .levels import mark as mark_levels
from .settings import compute_dtype
from .spec import most_spikes

SMALLEST = 1024  # values from which on bits are worth their way
_GROUP = 256  # values that a part begins at, see BitsCall of csrc/call.h; a part is aligned as the whole is


_contexts = Contexts()  # of packed_spikes()
_sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # from a tensor to its _Source or _Again


@contextmanager
def packed_spikes() -> Iterator[None]:
    """Within it autograd keeps every spike tensor as bits: one bit a value instead of 32 (or 16, or 64).

    Whatever keeps the spikes (convolutions, linear layers, matrix products, attention, functions of one's own), in
    whatever view (flattened, permuted, channels-last, a part), shares one packed copy, which is unpacked for the
    backward pass of each and freed. Gradients are the same in all bits. Sums of spikes and what average pooling makes
    of them take as many bits as they need. On a GPU spikes are known by where they come from: a neuron of this library,
    a cast, a copy, max or average pooling, a sum, a concatenation; on the CPU by their values too.

    Use it around the forward pass; the backward pass may lie outside::

        with stdano.packed_spikes():
            loss = criterion(net(x), y)
        loss.backward()

    An in-place change of a tensor that is kept raises RuntimeError in the backward pass, as it does without this. If on
    a GPU a tensor that should hold spikes was changed behind PyTorch's back (``tensor.data``), gradients become NaN
    instead of wrong. ``torch.func`` transforms refuse hooks, and so this.
    """
    with _contexts.one_more(), torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield


def mark(spikes: Tensor, neuron: type[Neuron], variant: Variant) -> None:
    """Makes known that a tensor is what a neuron has returned."""
    if _is_open(spikes) and (most := most_spikes(neuron, variant)) is not None:  # type: ignore[arg-type]
        _mark(spikes, if_few(Levels(1, most)))


def mark_pooled(out: Tensor, images: Tensor, count: int) -> bool:
    """Makes known that a tensor holds averages of so many values each of another one. Whether that has known ones."""
    if not _is_open(out, images) or images._version != 0:
        return False
    source = _sources.get(_base(images))
    return _mark(out, pooled(getattr(source, "levels", None) or levels_of(images), count))


def mark_again(out: Tensor, source: Tensor, function: Callable[[Tensor], Tensor]) -> None:
    """Makes known that a tensor is ``function(source)``, which is computed again instead of being kept, where the
    source is kept as bits."""
    if _is_open(out, source) and (bits := _bits_of(source)) is not None:
        _sources[out] = _Again(out, bits, source, function)


def _is_open(*tensors: Tensor) -> bool:
    """Whether it matters what is known of tensors. Those of the inference mode are never kept, and have no version."""
    return not torch.compiler.is_compiling() and _contexts.open > 0 and not any(t.is_inference() for t in tensors)


def _mark(tensor: Tensor, levels: Levels | None) -> bool:
    if levels is None:
        return False
    if tensor.grad_fn is not None:
        mark_levels(tensor, levels)
    else:
        _sources[tensor] = _Source(levels, tensor._version)
    return True


class _Source:
    """A tensor whose values are known, and its bits as long as somebody keeps them."""

    def __init__(self, levels: Levels, version: int) -> None:
        self.levels, self.version = levels, version
        self.bits: weakref.ref[_Bits] | None = None


class _Bits:
    """What is kept of a tensor instead of its memory."""

    def __init__(self, base: Tensor, bits: Tensor, wrong: Tensor, scale: int, operator: Callable[..., Tensor]) -> None:
        self.bits, self.wrong, self.scale, self.operator = bits, wrong, scale, operator
        self.like = without_memory(base)
        self.version = base._version

    def unpack(self, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        """A view of the tensor, in memory of its own that holds what the view needs."""
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        first = offset // _GROUP * _GROUP
        part = self.bits[:, first // 8 : last // 8 + 1]
        flat = self.operator(part, self.wrong[first // _GROUP :], self.scale, self.like)
        return flat.as_strided(size, stride, offset - first)


class _Again:
    """The same of what is computed again from a tensor that is kept as bits."""

    def __init__(self, out: Tensor, bits: _Bits | _Again, source: Tensor, function: Callable[[Tensor], Tensor]) -> None:
        self.source, self.view, self.function = bits, _view(source), function
        self.like = without_memory(out)
        self.version = out._version

    def unpack(self, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        return self.function(self.source.unpack(*self.view)).as_strided(size, stride, offset)


class _Kept(NamedTuple):
    """A saved tensor; ``bits`` with its shape, or without them the tensor itself."""

    tensor: Tensor  # without memory where there are bits
    version: int
    bits: _Bits | _Again | None = None
    size: torch.Size = torch.Size()
    stride: tuple[int, ...] = ()
    offset: int = 0


def _pack(tensor: Tensor) -> _Kept:
    bits = _bits_of(tensor)
    # torch does not look at versions where there are hooks. An alias has the same, and no history, of which a cycle
    # would follow.
    if bits is None:
        return _Kept(tensor if tensor.is_leaf else tensor.detach(), tensor._version)
    return _Kept(bits.like, bits.version, bits, *_view(tensor))


def _view(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], int]:
    return tensor.shape, tensor.stride(), int(tensor.storage_offset())


def _unpack(kept: _Kept) -> Tensor:
    if kept.tensor._version != kept.version:
        shape = list(kept.size if kept.bits else kept.tensor.shape)
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor "
            f"{shape} that was kept in stdano.packed_spikes() at version {kept.version} is at version "
            f"{kept.tensor._version} now"
        )
    return kept.tensor if kept.bits is None else kept.bits.unpack(kept.size, kept.stride, kept.offset)


def _base(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base


def _bits_of(tensor: Tensor) -> _Bits | _Again | None:
    """The bits of all that a tensor is a view of; None where it is no spikes."""
    if not _is_plain(tensor):
        return None
    base = _base(tensor)
    if base.numel() < SMALLEST or (base.is_leaf and base.requires_grad):
        return None
    if base is not tensor and (base.dtype != tensor.dtype or not _is_plain(base)):
        return None  # the view is another in more than its shape, such as the real part of complex numbers
    source = _sources.get(base)
    if isinstance(source, _Again):
        return source if source.version == base._version else None
    bits = source.bits() if source is not None and source.bits is not None else None
    if bits is not None and bits.version == base._version:
        return bits
    storage = base.untyped_storage()
    if storage.nbytes() != base.numel() * base.element_size() or not is_dense(base):
        return None
    if source is None or source.version != base._version:
        # What is new has version 0, or somebody has changed it since.
        levels = levels_of(base) if base._version == 0 else None
        if levels is None and base.device.type != "cpu":
            return None
        source = _Source(levels or SPIKES, base._version)
    pack, unpack = _operators(base)
    with torch.no_grad():
        flat = base.detach().as_strided((base.numel(),), (1,))
        kept, wrong, exact = pack(flat, source.levels.scale, source.levels.most.bit_length())
    if not exact:
        return None
    bits = _Bits(base, kept, wrong, source.levels.scale, unpack)
    source.bits = weakref.ref(bits)
    _sources[base] = source
    return bits


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's values are those in its memory, and autograd watches it."""
    if type(tensor) is not Tensor or tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        return False
    return not (tensor.is_nested or tensor.is_neg() or tensor._is_zerotensor() or tensor.is_inference())


def _namespace(tensor: Tensor) -> str | None:
    """Of the operators that serve a tensor; None where torch's own do."""
    if tensor.device.type == "cpu":
        return registration.NAMESPACES["cpu"] if serves("cpu", tensor) else None
    return next((registration.NAMESPACES[name] for name in ("cuda", "triton") if serves(name, tensor)), None)


def _operators(tensor: Tensor) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What packs and unpacks a tensor."""
    namespace = _namespace(tensor)
    if namespace is None:
        return pack_by_torch, unpack_by_torch
    return registration.operator(namespace, "pack_spikes"), registration.operator(namespace, "unpack_spikes")


def pack_by_torch(flat: Tensor, scale: int, planes: int) -> tuple[Tensor, Tensor, bool]:
    """The operator pack_spikes, for any device."""
    number = (flat.to(compute_dtype(flat)) * scale + 0.5).to(torch.int32)
    wrong = (number >> planes != 0) | (_values(number, scale, flat) != flat) | torch.signbit(flat)
    wrong = F.pad(wrong, (0, -len(flat) % _GROUP)).view(-1, _GROUP).any(1)
    number = F.pad(number, (0, -len(flat) % 8)).view(-1, 8)
    weights = 2 ** torch.arange(8, device=flat.device, dtype=torch.int32)
    bits = [((number >> p & 1) * weights).sum(1).to(torch.uint8) for p in range(planes)]
    on_cpu = flat.device.type == "cpu"
    exact = not (on_cpu and bool(wrong.any()))
    return torch.stack(bits), wrong[:0].byte() if on_cpu else wrong.byte(), exact


def unpack_by_torch(bits: Tensor, wrong: Tensor, scale: int, like: Tensor) -> Tensor:
    """The operator unpack_spikes, for any device."""
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    rows = [(row[:, None] >> places & 1) << p for p, row in enumerate(bits)]
    values = _values(sum(rows[1:], rows[0]).flatten(), scale, like)
    if wrong.numel() == 0:
        return values
    return values.masked_fill(wrong.bool()[:, None].expand(-1, _GROUP).flatten()[: len(values)], math.nan)


def _values(number: Tensor, scale: int, like: Tensor) -> Tensor:
    return (number.to(compute_dtype(like)) / scale).to(like.dtype)

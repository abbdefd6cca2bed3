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
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import registration
from .backends import serves
from .checks import DTYPES, is_dense
from .define.neuron import Neuron
from .define.trace import Variant
from .settings import compute_dtype
from .spec import most_spikes

SMALLEST = 1024  # values from which on bits are worth their way
MOST = 255  # the largest whole number that is kept as bits
_ALIGNED = 64  # values that a part begins at, so that it is aligned as the whole is


class Levels(NamedTuple):
    """Values that are whole numbers from 0 to ``most``, divided by ``scale``."""

    scale: int = 1
    most: int = 1


SPIKES = Levels()
_contexts = 0  # of packed_spikes() that are open, in all threads
_sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # from a tensor to its _Source or _Again
_MARK = "stdano.levels"  # in the metadata of the autograd node of a neuron: the levels of its first output


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

    An in-place change of a tensor that is kept raises RuntimeError in the backward pass, as it does without this. A
    change of ``tensor.data``, of which PyTorch does not know, is not noticed on a GPU.
    """
    global _contexts
    _contexts += 1
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _contexts -= 1


def mark(spikes: Tensor, neuron: type[Neuron], variant: Variant) -> None:
    """Makes known that a tensor is what a neuron has returned."""
    if _is_open(spikes) and (most := most_spikes(neuron, variant)) is not None:  # type: ignore[arg-type]
        _mark(spikes, _if_few(Levels(1, most)))


def mark_pooled(out: Tensor, images: Tensor, count: int) -> bool:
    """Makes known that a tensor holds averages of so many values each of another one. Whether that has known ones."""
    if _contexts == 0 or torch.compiler.is_compiling() or images._version != 0:
        return False
    source = _sources.get(images if images._base is None else images._base)
    levels = getattr(source, "levels", None) or _levels_of(images.grad_fn, images.output_nr)
    return _mark(out, _pooled(levels, count))


def mark_again(out: Tensor, source: Tensor, function: Callable[[Tensor], Tensor]) -> None:
    """Makes known that a tensor is ``function(source)``, which is computed again instead of being kept, where the
    source is kept as bits."""
    if _contexts > 0 and not torch.compiler.is_compiling() and (bits := _bits_of(source)) is not None:
        _sources[out] = _Again(out, bits, source, function)


def _mark(tensor: Tensor, levels: Levels | None) -> bool:
    if levels is None:
        return False
    if tensor.grad_fn is not None:
        tensor.grad_fn.metadata[_MARK] = _Mark(levels, tensor._version, without_memory(tensor))  # type: ignore[index]
    else:
        _sources[tensor] = _Source(levels, tensor._version)
    return True


class _Mark(NamedTuple):
    """What is known of an output of an autograd node, as long as nobody changes it in place."""

    levels: Levels
    version: int
    tensor: Tensor  # without memory


class _Source:
    """A tensor whose values are known, and its bits as long as somebody keeps them."""

    def __init__(self, levels: Levels, version: int) -> None:
        self.levels, self.version = levels, version
        self.bits: weakref.ref[_Bits] | None = None


class _Bits:
    """What is kept of a tensor instead of its memory."""

    def __init__(self, base: Tensor, bits: Tensor, scale: int) -> None:
        self.bits, self.scale = bits, scale
        self.like = without_memory(base)
        self.version = base._version
        self.namespace = _namespace(base)

    def unpack(self, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        """A view of the tensor, in memory of its own that holds what the view needs."""
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        first = offset // _ALIGNED * _ALIGNED
        part = self.bits[:, first // 8 : last // 8 + 1]
        if self.namespace is None:
            flat = _unpack_by_torch(part, self.scale, self.like)
        else:
            flat = registration.operator(self.namespace, "unpack_spikes")(part, self.scale, self.like)
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
        return _Kept(tensor.detach(), tensor._version)
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


def without_memory(tensor: Tensor) -> Tensor:
    """An empty tensor of the same dtype and device, whose version goes on to be that of ``tensor``."""
    alias = tensor.detach()
    alias.data = tensor.new_empty(0)
    return alias


def _bits_of(tensor: Tensor) -> _Bits | _Again | None:
    """The bits of all that a tensor is a view of; None where it is no spikes."""
    if not _is_plain(tensor):
        return None
    base = tensor if tensor._base is None else tensor._base
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
        levels = _levels_of(base.grad_fn, base.output_nr) if base._version == 0 else None
        if levels is None and base.device.type != "cpu":
            return None
        source = _Source(levels or SPIKES, base._version)
    packed = _packed(base, source.levels)
    if packed is None:
        return None
    bits = _Bits(base, packed, source.levels.scale)
    source.bits = weakref.ref(bits)
    _sources[base] = source
    return bits


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's values are those in its memory, and autograd watches it."""
    if type(tensor) is not Tensor or tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        return False
    return not (tensor.is_nested or tensor.is_neg() or tensor._is_zerotensor() or tensor.is_inference())


def _packed(base: Tensor, levels: Levels) -> Tensor | None:
    """Bits of a whole tensor in the order of its memory."""
    namespace, planes = _namespace(base), levels.most.bit_length()
    with torch.no_grad():
        flat = base.detach().as_strided((base.numel(),), (1,))
        if namespace is None:
            bits, exact = _pack_by_torch(flat, levels.scale, planes)
        else:
            bits, exact = registration.operator(namespace, "pack_spikes")(flat, levels.scale, planes)
    return bits if exact else None


def _namespace(tensor: Tensor) -> str | None:
    """Of the operators that serve a tensor; None where torch's own do."""
    if tensor.device.type == "cpu":
        return registration.NAMESPACES["cpu"] if serves("cpu", tensor) else None
    return next((registration.NAMESPACES[name] for name in ("cuda", "triton") if serves(name, tensor)), None)


def _pack_by_torch(flat: Tensor, scale: int, planes: int) -> tuple[Tensor, bool]:
    number = (flat.to(compute_dtype(flat)) * scale + 0.5).to(torch.uint8)
    exact = flat.device.type != "cpu" or bool((_values(number, scale, flat) == flat).all())
    number = torch.nn.functional.pad(number, (0, -len(flat) % 8)).view(-1, 8)
    weights = 2 ** torch.arange(8, device=flat.device, dtype=torch.uint8)
    rows = [((number >> p & 1) * weights).sum(1, dtype=torch.uint8) for p in range(planes)]
    return torch.stack(rows), exact


def _unpack_by_torch(bits: Tensor, scale: int, like: Tensor) -> Tensor:
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    rows = [(row[:, None] >> places & 1) << p for p, row in enumerate(bits)]
    return _values(sum(rows[1:], rows[0]).flatten(), scale, like)


def _values(number: Tensor, scale: int, like: Tensor) -> Tensor:
    return (number.to(compute_dtype(like)) / scale).to(like.dtype)


# What autograd calls operations whose results have no other values than their first argument.
_VIEWS = ["AsStrided", "Diagonal", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "SplitWithSizes"]
_VIEWS += ["Squeeze", "T", "Transpose", "Unbind", "Unfold", "UnsafeView", "Unsqueeze", "View"]
_COPIES = ["Clone", "Flip", "Gather", "Index", "IndexSelect", "PixelShuffle", "Repeat", "Roll", "ToCopy"]
_CHOICES = ["AdaptiveMaxPool2D", "Amax", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "UpsampleNearest2D"]
_SAME = frozenset(_VIEWS + _COPIES + _CHOICES)
_DEEPEST = 16
_OPERATION = re.compile(r"(\w+)Backward\d+")  # torch's own; of a function in Python the name has no number


def _levels_of(node: Any, output: int, depth: int = 0) -> Levels | None:
    """The levels of an output of an autograd node, if they follow from the neurons in front of it."""
    if node is None or depth > _DEEPEST:
        return None
    if output == 0 and (mark := node.metadata.get(_MARK)) is not None:
        return mark.levels if mark.tensor._version == mark.version else None
    operation = _OPERATION.fullmatch(node.name())
    name = operation[1] if operation else ""
    if name in _SAME:
        return _input_levels(node, 0, depth)
    if name == "AvgPool2D" and (count := _averaged(node)):
        return _pooled(_input_levels(node, 0, depth), count)
    if name == "Add" and getattr(node, "_saved_alpha", None) == 1:  # a number that is added has none
        one, other = (_input_levels(node, k, depth) for k in (0, 1))
        if one is not None and other is not None and one.scale == other.scale:
            return _if_few(Levels(one.scale, one.most + other.most))
    if name in ("Cat", "Stack"):
        parts = {_input_levels(node, k, depth) for k in range(len(node.next_functions))}
        return parts.pop() if len(parts) == 1 else None
    return None


def _input_levels(node: Any, number: int, depth: int) -> Levels | None:
    before, output = node.next_functions[number]
    return _levels_of(before, output, depth + 1)


def _averaged(node: Any) -> int:
    """How many values each average of a pooling is of; 0 where that differs."""
    size = node._saved_kernel_size
    if any(node._saved_padding) or node._saved_ceil_mode or node._saved_divisor_override is not None:
        return 0
    return math.prod(size) if len(size) == 2 else size[0] ** 2


def _pooled(levels: Levels | None, count: int) -> Levels | None:
    """Of averages of so many values, if these are exact in whatever way a sum is divided."""
    if levels is None or count & (count - 1):
        return None
    return _if_few(Levels(levels.scale * count, levels.most * count))


def _if_few(levels: Levels) -> Levels | None:
    return levels if levels.most <= MOST else None

"""Which tensors hold spikes, or whole multiples of them, by where they come from: the graph that autograd records."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from torch import Tensor

MOST = 255  # the largest whole number that is kept as bits


class Levels(NamedTuple):
    """Values that are whole numbers from 0 to ``most``, divided by ``scale``."""

    scale: int = 1
    most: int = 1


SPIKES = Levels()
_MARK = "stdano.levels"  # in the metadata of the autograd node of a neuron: the _Mark of its first output


class _Mark(NamedTuple):
    """What is known of an output of an autograd node, as long as nobody changes it in place."""

    levels: Levels
    version: int
    tensor: Tensor  # without memory


def without_memory(tensor: Tensor) -> Tensor:
    """An empty tensor of the same dtype and device, whose version goes on to be that of ``tensor``."""
    alias = tensor.detach()
    alias.data = tensor.new_empty(0)
    return alias


def mark(tensor: Tensor, levels: Levels) -> None:
    """Makes known what the first output of an autograd node holds."""
    assert tensor.grad_fn is not None
    tensor.grad_fn.metadata[_MARK] = _Mark(levels, tensor._version, without_memory(tensor))  # type: ignore[index]


# What autograd calls operations whose results have no other values than their first argument.
_VIEWS = ["AsStrided", "Diagonal", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "SplitWithSizes"]
_VIEWS += ["Squeeze", "T", "Transpose", "Unbind", "Unfold", "UnsafeView", "Unsqueeze", "View"]
_COPIES = ["Clone", "Flip", "Gather", "Index", "IndexSelect", "PixelShuffle", "Repeat", "Roll", "ToCopy"]
_CHOICES = ["AdaptiveMaxPool2D", "Amax", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "UpsampleNearest2D"]
_SAME = frozenset(_VIEWS + _COPIES + _CHOICES)
_DEEPEST = 16
_OPERATION = re.compile(r"(\w+)Backward\d+")  # torch's own; of a function in Python the name has no number


def levels_of(tensor: Tensor) -> Levels | None:
    """The levels of a tensor, if they follow from the neurons in front of it."""
    return _Graph().levels(tensor.grad_fn, tensor.output_nr)


class _Graph:
    """A look at the nodes in front of a tensor, at each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, int], Levels | None] = {}

    def levels(self, node: Any, output: int, *, depth: int = 0) -> Levels | None:
        """Of an output of a node."""
        if node is None or depth > _DEEPEST:
            return None
        if (node, output) not in self._known:
            self._known[node, output] = self._look(node, output, depth)
        return self._known[node, output]

    def _look(self, node: Any, output: int, depth: int) -> Levels | None:
        if output == 0 and (mark := node.metadata.get(_MARK)) is not None:
            return mark.levels if mark.tensor._version == mark.version else None
        operation = _OPERATION.fullmatch(node.name())
        name = operation[1] if operation else ""
        inputs: Any = node.next_functions
        if name in _SAME:
            return self.levels(*inputs[0], depth=depth + 1)
        if name == "AvgPool2D" and (count := _averaged(node)):
            return pooled(self.levels(*inputs[0], depth=depth + 1), count)
        if name == "Add" and getattr(node, "_saved_alpha", None) == 1:  # a number that is added has none
            one, other = (self.levels(*each, depth=depth + 1) for each in inputs)
            return (
                if_few(Levels(one.scale, one.most + other.most)) if one and other and one.scale == other.scale else None
            )
        if name in ("Cat", "Stack"):
            parts = {self.levels(*each, depth=depth + 1) for each in inputs}
            return parts.pop() if len(parts) == 1 else None
        return None


def _averaged(node: Any) -> int:
    """How many values each average of a pooling is of; 0 where that differs."""
    size = node._saved_kernel_size
    if any(node._saved_padding) or node._saved_ceil_mode or node._saved_divisor_override is not None:
        return 0
    return math.prod(size) if len(size) == 2 else size[0] ** 2


def pooled(levels: Levels | None, count: int) -> Levels | None:
    """Of averages of so many values, if these are exact in whatever way a sum is divided."""
    if levels is None or count & (count - 1):
        return None
    return if_few(Levels(levels.scale * count, levels.most * count))


def if_few(levels: Levels) -> Levels | None:
    """Levels that bits are there for."""
    return levels if levels.most <= MOST else None

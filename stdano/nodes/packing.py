"""A model that keeps its spikes as bits: :func:`pack_spikes`."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stdano_kernels import packed_spikes


class _Around:
    """Opens packed_spikes before a module's forward and closes it behind it, in each thread by itself."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:  # nothing is open in a copy of the module
        return type(self), ()

    def open(self, module: nn.Module, inputs: Any) -> None:
        if not torch.compiler.is_compiling():
            self._end()  # torch runs no hook behind a KeyboardInterrupt
            self._local.context = packed_spikes()
            self._local.context.__enter__()

    def close(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._end()

    def _end(self) -> None:
        context = vars(self._local).pop("context", None)
        if context is not None:
            context.__exit__(None, None, None)


class PackedSpikes:
    """What :func:`pack_spikes` returns."""

    def __init__(self, *handles: RemovableHandle) -> None:
        self._handles = handles

    def remove(self) -> None:
        """The model keeps its spikes as they are again."""
        for handle in self._handles:
            handle.remove()


def pack_spikes(model: nn.Module) -> PackedSpikes:
    """Makes a model's forward run within :func:`stdano.packed_spikes`, wherever it is called from.

    Args:
        model: any module; what it computes, its parameters and its ``state_dict()`` stay as they are. A compiled model
            is packed by the context manager around its call, not by this.

    Returns:
        A handle, whose ``remove()`` undoes it.

    Raises:
        TypeError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    around = _Around()
    first = model.register_forward_pre_hook(around.open, prepend=True)
    return PackedSpikes(first, model.register_forward_hook(around.close, always_call=True))

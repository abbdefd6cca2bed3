"""Which calls activation checkpointing makes a second time, and the state that such a call starts from.

``torch.utils.checkpoint`` calls modules again during backward. A neuron that then went on from its current state would
compute something else, and would move its state a second time. So each checkpointed segment remembers what a module
carried when the segment began; a repetition of the segment starts from that and carries on for itself.

A segment is known by the object that lives as long as its part of the graph: for ``use_reentrant=False`` the frame that
the saved-tensor hooks hold, for ``use_reentrant=True`` the ``ctx`` of the ``autograd.Function`` that runs the segment,
whether torch's or another's. Segments may be nested, shared, left early and repeated in any order.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils import checkpoint

State = tuple[Tensor, ...] | None

_autograd: Any = torch._C._autograd
_FRAME: Any = getattr(checkpoint, "_CheckpointFrame", ())


class _Position(NamedTuple):
    """Where a call stands among checkpointed segments."""

    first: list[Any]  # the segments around it that run for the first time, innermost first
    repeated: Any = None  # the innermost segment around it that is computed again
    repetition: object = None  # differs between two repetitions of one segment


class _Outside(threading.local):
    number = -1  # autograd's sequence number at which this thread ran no autograd.Function


_outside = _Outside()
_functions: weakref.WeakSet[Any] = weakref.WeakSet()  # those in whose forward a module has run


def recomputed() -> bool:
    """Whether this call is one that checkpointing repeats. It may then count and move nothing: it did so before."""
    return not torch.compiler.is_compiling() and not _is_outside() and _position().repeated is not None


def _is_outside() -> bool:
    """Whether this call is certainly in no segment. This is what every call pays for."""
    if torch._C._current_graph_task_id() != -1 or _autograd._top_saved_tensors_default_hooks(True) is not None:
        return False
    # Under no_grad a reentrant checkpoint may run. It takes a sequence number before its segment begins.
    return torch.is_grad_enabled() or torch.autograd._get_sequence_nr() == _outside.number


def _position() -> _Position:
    in_backward = torch._C._current_graph_task_id() != -1
    node: Any = torch._C._current_autograd_node() if in_backward else None
    first = [] if torch.is_grad_enabled() else list(_running_functions(node))
    _functions.update(first)
    hooks = _saving_hooks()
    if not first and not hooks and not in_backward:
        _outside.number = torch.autograd._get_sequence_nr()
    for hook in hooks:
        frame, repeated = _frame_of(hook)
        if frame is not None and repeated:
            return _Position(first, frame, hook)
        if frame is not None:
            first.append(frame)
    if isinstance(node, BackwardCFunction) and node in _functions:
        return _Position(first, node, torch._C._current_graph_task_id())
    return _Position(first)


def _saving_hooks() -> list[Any]:
    """The pack hooks of saved tensors, innermost first. Torch shows the innermost alone, so they are taken off."""
    top = _autograd._top_saved_tensors_default_hooks(True)
    if top is None or not _autograd._saved_tensors_hooks_is_enabled():
        return []
    pairs = []
    while top is not None:
        pairs.append(top)
        _autograd._pop_saved_tensors_default_hooks()
        top = _autograd._top_saved_tensors_default_hooks(True)
    for pair in reversed(pairs):
        _autograd._push_saved_tensors_default_hooks(*pair)
    return [pack for pack, _ in pairs]


def _frame_of(hook: Any) -> tuple[Any, bool]:
    """The frame of a checkpoint's hook, and whether it is one of a repetition, which holds a weak reference to it."""
    function = inspect.unwrap(hook)
    for cell in getattr(function, "__closure__", None) or ():
        value = cell.cell_contents
        repeated = isinstance(value, weakref.ref)
        value = value() if repeated else value
        if isinstance(value, _FRAME):
            return value, repeated
    if getattr(function, "__module__", None) == checkpoint.__name__:
        raise RuntimeError(
            f"stdano does not know the checkpoints of torch {torch.__version__}, and so not which state a repeated "
            "call starts from: leave spiking neurons out of torch.utils.checkpoint, or use another version of torch"
        )
    return None, False


def _running_functions(node: Any) -> Iterator[Any]:
    """The autograd.Functions in whose forward this call is, innermost first, up to where ``node`` runs backward."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_name
        if name == "unpack_hook":
            return
        if name in ("forward", "backward") and frame.f_code.co_varnames[:1] == ("ctx",):
            ctx = frame.f_locals.get("ctx")
            if isinstance(ctx, BackwardCFunction):
                if name == "backward" or ctx is node:
                    return
                yield ctx
        frame = frame.f_back  # type: ignore[assignment]


def _is_checkpoint(function: Any) -> bool:
    """Whether an autograd.Function is a reentrant checkpoint; those of other libraries are named as torch's is."""
    return hasattr(function, "run_function")


def checkpointed() -> bool:
    """While torch.compile traces: whether the graph would run within a checkpoint. Of a repetition it sees nothing, so
    that what carries a state must stay out of it; and what is compiled elsewhere must not be taken here."""
    inside = _is_inside()
    _guard(inside)
    return inside


# torch.compiler.assume_constant_result, which would import the whole compiler together with this package.
checkpointed._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch._disable_dynamo
def uncompiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value, from a graph that torch.compile interrupts for it."""
    return function(*arguments)


def _is_inside() -> bool:
    if _is_outside():
        return False
    position = _position()
    return bool(position.first) or position.repeated is not None


def _guard(inside: bool) -> None:
    """What is being compiled is used again only where :func:`checkpointed` gives the same."""
    from torch._dynamo.guards import install_guard
    from torch._dynamo.source import GlobalStateSource

    install_guard(GlobalStateSource().make_guard(partial(_add_guard, inside)))


def _add_guard(inside: bool, builder: Any, guard: Any) -> None:
    code = [f"{__name__}._is_inside() == {inside}"]
    add, arguments = builder.guard_manager.root.add_lambda_guard, (lambda _: _is_inside() == inside, code)
    try:
        add(*arguments, guard.user_stack)
    except TypeError:  # of torch 2.10, which takes no stack
        add(*arguments)


class _Entry:
    """What a module carried when a segment began, and what it carries in the segment's latest repetition."""

    def __init__(self, state: State, v_seq: list[Tensor]) -> None:
        self._start = (state, v_seq)
        self._repetition: object = None
        self._state, self._v_seq = self._start

    def again(self, repetition: object) -> _Entry:
        if repetition != self._repetition:
            self._repetition = repetition
            self._state, self._v_seq = self._start
        return self


class Segments:
    """The segments that a module has run in, for as long as they can be repeated."""

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary[Any, _Entry] = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[Segments], tuple[()]]:
        return Segments, ()  # a copy has run in none

    def holder(self, module: Any) -> Any:
        """What has the ``_state`` and ``_v_seq`` of this call: the module, or a repeated segment's entry."""
        if _is_outside():
            return module
        first, repeated, repetition = _position()
        holder = module
        if repeated is not None:
            entry = self._entries.get(repeated)
            if entry is None and (not isinstance(repeated, BackwardCFunction) or _is_checkpoint(repeated)):
                raise RuntimeError(
                    f"checkpointing calls a {type(module).__name__} again that did not run in the first call: the "
                    "checkpointed function must do the same each time"
                )
            holder = module if entry is None else entry.again(repetition)
        for segment in first:
            if segment not in self._entries:
                self._entries[segment] = _Entry(_entering(segment, holder._state, repeated is None), holder._v_seq)
        return holder


def _entering(segment: Any, state: State, says_so: bool) -> State:
    """The state with which a segment begins; no gradient goes through it into a reentrant one."""
    if state is None or not isinstance(segment, BackwardCFunction):
        return state
    if says_so and _is_checkpoint(segment) and any(t.requires_grad for t in state):
        raise RuntimeError(
            "a checkpoint with use_reentrant=True starts from a state that carries gradients, which it would lose: use "
            "use_reentrant=False, or call detach() or reset() on the neurons before it"
        )
    return tuple(t.detach() for t in state)

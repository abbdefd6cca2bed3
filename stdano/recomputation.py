"""Which state a neuron starts from when activation checkpointing runs its forward a second time.

``torch.utils.checkpoint`` calls modules again during backward. A neuron that then went on from its current state
would compute something else, and would move its state a second time. So the initial state of each call made under
checkpointing is remembered, and a call made during backward starts from the remembered one and leaves the state alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, ...] | None


def in_backward() -> bool:
    """Whether a backward pass is running, which is when checkpointing recomputes."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _saving_hook() -> object | None:
    """The innermost saved-tensor hook: one object for each checkpointed segment, None outside of any."""
    if torch.compiler.is_compiling():
        return None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


class InitialStates:
    """The initial states of the calls since the last reset, by checkpointed segment.

    Backward recomputes segments last to first, and the calls within one first to last.
    """

    def __init__(self) -> None:
        self._segments: list[tuple[object, list[State]]] = []
        self._without_grad: State = None
        self._task = -1  # the backward pass that is recomputing
        self._hook: object | None = None
        self._segment = 0
        self._call = 0

    def record(self, state: State) -> None:
        """Remembers the initial state of a forward call that may be recomputed."""
        if not torch.is_grad_enabled():
            # checkpoint(use_reentrant=True) runs without grad first, and so does inference without end: keep one.
            self._without_grad = state
            return
        hook = _saving_hook()
        if hook is None:
            return
        if not self._segments or self._segments[-1][0] is not hook:
            self._segments.append((hook, []))
        self._segments[-1][1].append(state)

    def recall(self) -> State:
        """The initial state of the call that is being recomputed."""
        task, hook = torch._C._current_graph_task_id(), _saving_hook()
        if task != self._task:
            self._task, self._hook, self._segment, self._call = task, None, len(self._segments), 0
        if hook is None or hook is not self._hook:
            self._hook, self._segment, self._call = hook, self._segment - 1, 0
        if not 0 <= self._segment < len(self._segments):
            return self._without_grad
        calls = self._segments[self._segment][1]
        state = calls[min(self._call, len(calls) - 1)]
        self._call += 1
        return state

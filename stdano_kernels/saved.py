"""Reading what forward kept for backward, with an error that says what to do about a stale state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def saved_tensors(ctx: Any) -> tuple[Tensor, ...]:
    """``ctx.saved_tensors``; RuntimeError that names reset() and detach() where an earlier backward freed them."""
    if torch.compiler.is_compiling():
        return ctx.saved_tensors
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        raise RuntimeError(
            "stdano: backward reached a neuron for the second time, through a state that an earlier call left behind. "
            "Before the next forward call reset() on the neurons to start a new sequence, or detach() to go on with "
            "the state but without its history (backward(retain_graph=True) keeps the whole history)."
        ) from error

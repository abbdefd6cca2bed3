"""A model on batches as an analysis runs it: for inference, and as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..nodes.neurons import reset_net

Forward = Callable[[Tensor], Any]
_CARRIED = ("_state", "_v_seq", "_memories", "v_seq")  # of stdano's neurons and of SpikingJelly's


def run(model: nn.Module, batches: Iterable[Any], forward: Forward | None, begin: Callable[[], None]) -> None:
    """Runs a model in eval mode, without gradients, each batch from rest. Afterwards its training flags and the states
    that its layers carry are what they were, after an error too.

    Args:
        model: the model; inputs are moved to the device of its first parameter.
        batches: an iterable of inputs, or of tuples whose first element is the input.
        forward: what a batch's input goes through; default the model.
        begin: is called before each batch.

    Raises:
        TypeError: a batch is something else.
        ValueError: there is none.
    """
    if isinstance(batches, Tensor):
        raise TypeError("batches must be an iterable of batches, got a tensor; give [x] for a single batch x")
    device = next((p.device for p in model.parameters()), None)
    count = 0
    with as_before(model), torch.no_grad():
        for batch in batches:
            x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            if not isinstance(x, Tensor):
                raise TypeError(f"batches must be tensors, or tuples that begin with one, got {type(x).__name__}")
            reset_net(model)
            begin()
            (forward or model)(x.to(device))
            count += 1
    if not count:
        raise ValueError("batches must be one or more, got none")


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """A model in eval mode, run as it is written: compiled code may be from before the hooks that watch layers.
    Afterwards its training flags and the states that its layers carry are what they were."""
    training = [(module, module.training) for module in model.modules()]
    carried = [
        (module, name, value.copy() if isinstance(value, (dict, list)) else value)
        for module in model.modules()
        for name, value in vars(module).items()
        if name in _CARRIED
    ]
    try:
        model.eval()
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, flag in training:
            module.training = flag
        for module, name, value in carried:
            vars(module)[name] = value

"""Checkpoints of long sequences in two levels.

A neuron keeps its state every K steps. Over hundreds of steps these states add up: T/K of them, of 32 bits each. In two
levels only every M-th is kept, with M about the root of T/K, and backward computes the others of one part of the
sequence after the other anew, from the last part to the first: 2*sqrt(T/K) at once, for one forward pass more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .checks import dense
from .constant import is_constant
from .contexts import Contexts
from .fakes import checkpoint_distance
from .settings import compute_dtype

FEWEST = 4  # states that are kept, from which on it is worth it


_contexts = Contexts()


@contextmanager
def two_level_checkpoints() -> Iterator[None]:
    """Within it neurons keep about the root of the states that they keep otherwise, for sequences of hundreds of steps
    (speech, event streams).

    Beside its input a neuron keeps the state every 16 steps (on a GPU every 8), which at T = 1000 is a sixteenth (an
    eighth) of the input for each state that it has. In two levels it is less than a hundredth, and the backward pass
    takes about half as long again: it runs forward once more, part by part. Spikes, states and the gradients of input
    and states are the same in all bits; the gradients of constants and of BatchNorm's parameters, and the statistics'
    part in that of its input, are sums in another order. Sequences that are kept in fewer than four states stay as they
    are, and so do input that is the same at every step and compiled graphs.

    Use it around the forward pass::

        with stdano.two_level_checkpoints():
            loss = criterion(net(x), y)
        loss.backward()

    What ``torch.utils.checkpoint`` computes again in backward must keep the same then: open the context within the
    function that is checkpointed.
    """
    with _contexts.one_more():
        yield


def is_wanted(x: Tensor) -> bool:
    """Whether two levels serve a call with this input."""
    return _contexts.open > 0 and _count(x) >= FEWEST and not is_constant(x)


def thinned(x: Tensor, checkpoints: Tensor) -> Tensor:
    """The states ``[count, states, neurons]`` that are kept: all of them where two levels are not wanted."""
    if not is_wanted(x):
        return checkpoints
    every = _every(len(checkpoints))
    return checkpoints[every - 1 :: every].clone()


def every_of(x: Tensor, kept: Tensor) -> int:
    """Of how many states one is in ``kept``; 0 where all are. It is seen from what was kept, since with torch's
    checkpointing that may be of another call of forward, outside the context."""
    count = _count(x)
    return _every(count) if len(kept) < count else 0


def _count(x: Tensor) -> int:
    return (len(x) - 1) // checkpoint_distance(x)


def _every(count: int) -> int:
    return round(math.sqrt(count + 1))


def backward(
    forward_of: Callable[..., Any],
    backward_of: Callable[..., Any],
    every: int,
    namespace: str,
    counts: tuple[int, int],
    own: Any,
    x: Tensor,
    saved: Sequence[Tensor],
    grad: Tensor | None,
    of_state: Sequence[Tensor | None],
    of_sequences: Sequence[Tensor | None],
) -> tuple[Any, ...]:
    """As registration's backward, with every so manieth of the checkpoints: the parts between them from the last to the
    first, each with checkpoints of its own. ``forward_of``, ``backward_of``: registration's for a part."""
    affine, kept, *tensors = saved
    x = dense(x)
    steps = every * checkpoint_distance(x)
    like = torch.empty_like(x[0], dtype=compute_dtype(x), device="meta")
    of_x = torch.empty_like(x)
    carried: Sequence[Tensor | None] = of_state
    total: list[Tensor | None] = []
    for number in reversed(range(len(kept) + 1)):
        place = slice(number * steps, min((number + 1) * steps, len(x)))
        given = (
            tensors[: counts[0]] if number == 0 else [t.as_strided(like.shape, like.stride()) for t in kept[number - 1]]
        )
        constants = tensors[counts[0] :]
        *_, checkpoints = forward_of(
            namespace, x[place], list(given), constants, affine, own._replace(sequences=[]), True, False
        )
        of_part, of_affine, *others = backward_of(
            namespace,
            (len(given), counts[1]),
            own,
            x[place],
            (affine, checkpoints, *given, *constants),
            None if grad is None else grad[place],
            carried,
            [None if t is None else t[place] for t in of_sequences],
        )
        of_x[place] = of_part
        carried = others[: len(given)]
        sums = [of_affine, *others[len(given) :]]
        total = [a if a is None or b is None else a + b for a, b in zip(sums, total or [None] * len(sums), strict=True)]
    return of_x, total[0], *carried, *total[1:]

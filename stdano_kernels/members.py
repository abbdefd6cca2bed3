"""The neurons of a super neuron: any declarations with spikes of 0 and 1, each with settings of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .backends import constant_when_traced
from .define.neuron import Neuron
from .define.trace import Variant
from .neurons import NEURONS
from .spec import spec_of, traced

MOST = 8  # bits of a code
_without_settings: dict[type[Neuron], Neuron] = {}


def check_neurons(neurons: Sequence[str | type[Neuron] | Neuron]) -> list[Neuron]:
    """The neurons of a super neuron as declarations with settings.

    Raises:
        ValueError, TypeError: they are none, too many, the same, or not what a super neuron can have.
    """
    given = list(neurons) if isinstance(neurons, Sequence) and not isinstance(neurons, str) else []
    if not 1 <= len(given) <= MOST:
        raise ValueError(f"neurons must be a sequence of one to {MOST} neurons, got {neurons!r}")
    members = [_declared(neuron) for neuron in given]
    if any(member in members[:k] for k, member in enumerate(members)):
        raise ValueError(f"neurons must be different ones, got {neurons!r}")
    return members


def _declared(neuron: Any) -> Neuron:
    if isinstance(neuron, str):
        if neuron not in NEURONS:
            raise ValueError(f"neurons must be some of {', '.join(NEURONS)}, or declared neurons, got {neuron!r}")
        neuron = NEURONS[neuron]
    if isinstance(neuron, type) and issubclass(neuron, Neuron):
        return _plain(neuron)
    if not isinstance(neuron, Neuron):
        raise TypeError(f"neurons must be names or declared neurons, got {neuron!r}")
    _plain(type(neuron))  # checks it
    return neuron


@constant_when_traced
def check_two_levels(neuron: type[Neuron], argument: str = "neurons") -> None:
    """Raises ValueError for a neuron whose spikes are not 0 or 1: their codes would be no bits."""
    if traced(neuron, Variant()).spike.op != "spike":
        raise ValueError(
            f"{argument} must have spikes of 0 or 1 in a super neuron; those of {neuron.__name__} have more"
        )


def _plain(neuron: type[Neuron]) -> Neuron:
    """A declaration without settings of its own, checked; the same each time, but in a traced call."""
    if neuron in _without_settings:
        return _without_settings[neuron]
    check_two_levels(neuron)
    made = neuron()
    if not torch.compiler.is_compiling():
        _without_settings[neuron] = made
    return made


def settings_for(neuron: type[Neuron], given: dict[str, Any], slif_v_reset: float | None) -> dict[str, Any]:
    """Those of the settings that a neuron has, and that mean in it what they mean in the paper's neurons."""
    shared = spec_of(neuron).shared
    out = {name: value for name, value in given.items() if name in shared}
    if "v_reset" in out and neuron.constants["v_reset"].default is None:
        out["v_reset"] = slif_v_reset
    return out

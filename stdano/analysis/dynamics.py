"""What happens inside of neurons, step by step: states, spikes, and what a step makes on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import Neuron, function
from stdano_kernels.reference import per_channel
from stdano_kernels.settings import compute_dtype
from stdano_kernels.spec import spec_of

from ..nodes.base import BaseNode
from ..rewrite.inherit import spiking_layers
from .inputs import AnyNeuron, check_input, layer_inputs, resolved


@dataclass(frozen=True)
class Dynamics:
    """Some neurons over time. Each tensor is ``[T, N]``, float32 (float64 for float64 input), without history.

    Attributes:
        neuron: name of the declaration.
        neurons: places of the N neurons in the flattened input ``[T, -1]``.
        x: input.
        spikes: number of spikes, 0 or 1 for most neurons.
        values: by name: every state after the step, as the kernel returns it (``v`` is the potential after the reset);
            and as far as the declaration's step computes it by ``n.charge``, ``n.reset`` and ``n.decay``: ``h``, the
            potential before the reset; ``threshold``, which LLIF and ALIF move; ``tau``, the time constant of the
            potential in steps, which SLIF moves; ``decay``, what it leaves of the potential after a step. A state of
            such a name goes first.
    """

    neuron: str
    neurons: tuple[int, ...]
    x: Tensor
    spikes: Tensor
    values: dict[str, Tensor]


def dynamics(neuron: AnyNeuron, x: Tensor, *, neurons: Sequence[int] | None = None, **settings: Any) -> Dynamics:
    """States, spikes, threshold and time constant of a neuron over time, from rest.

    Spikes and states come from the kernel. The rest is what the declaration's own ``step``, called on the kernel's
    states, hands to ``n.charge``, ``n.reset`` and ``n.decay``, so that nothing about any neuron is known here.

    Args:
        neuron: a name (``"LIF"``), a declaration, a class of neurons, or a layer, which brings its settings.
        x: input ``[T, ...]``, at least one step and one neuron, on any device.
        neurons: places in the flattened ``x[0]``, from 0; default: all.
        settings: arguments of the neuron's function: constants, options, ``surrogate``, ``backend``; hard spikes.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """
    check_input(x)
    declaration, settings = resolved(neuron, settings)
    if settings.get("spike", "hard") != "hard":
        raise ValueError(f'spike must be "hard", got {settings["spike"]!r}')
    count = x[0].numel()
    chosen = tuple(range(count)) if neurons is None else tuple(neurons)
    if not chosen or any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < count for n in chosen):
        raise ValueError(f"neurons must be integers from 0 to {count - 1}, at least one, got {neurons!r}")
    x = x.detach().to(compute_dtype(x))
    names = tuple(declaration.states)
    with torch.no_grad():
        spikes, after = function(declaration)(x, return_sequences=names, **settings)
        values = _made_on_the_way(declaration, x, after, settings) | dict(zip(names, after, strict=True))

    def of_chosen(a: Tensor) -> Tensor:
        return a.expand(x.shape).reshape(len(x), -1)[:, list(chosen)].contiguous()

    return Dynamics(
        declaration.__name__, chosen, of_chosen(x), of_chosen(spikes), {k: of_chosen(v) for k, v in values.items()}
    )


def layer_dynamics(model: nn.Module, layer: str, x: Tensor, *, neurons: Sequence[int] | None = None) -> Dynamics:
    """The same for a layer of a network on a batch, in eval mode and from rest.

    Args:
        model: a network.
        layer: name of a spiking layer of stdano in it, as ``model.named_modules()`` has it; it must be called once, or
            once a step in step mode "s".
        x: what the model takes.
        neurons: places in the flattened ``[B, ...]`` of the layer's input, from 0; default: all.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """
    layers = {name: module for name, module in spiking_layers(model).items() if isinstance(module, BaseNode)}
    if layer not in layers:
        raise ValueError(
            f"layer must be one of {', '.join(map(repr, layers)) or '(no neurons of stdano)'}, got {layer!r}"
        )
    calls = layer_inputs(model, x)[layer]
    if len(calls) != 1:
        raise ValueError(f"layer must be called once, {layer!r} was called {len(calls)} times")
    return dynamics(layers[layer], calls[0], neurons=neurons)


def decay_range(neuron: AnyNeuron, x: Tensor, **settings: Any) -> tuple[float, float]:
    """The least and the largest of what is left of the potential after a step, over all steps and neurons of an input:
    ``exp(-1/tau)``, or ``1 - 1/tau`` with ``decay="linear"``. For a neuron whose time constant does not move they are
    equal; SLIF's moves between max(tau_min, tau - beta) and tau (eq. 9), and reaches the lower end on input that is far
    above the threshold.

    Args:
        neuron, x, settings: as for :func:`dynamics`.

    Raises:
        ValueError: the neuron has no such decay; or as :func:`dynamics`.
    """
    seen = dynamics(neuron, x, **settings)
    if "decay" not in seen.values:
        raise ValueError(f"neuron must be one that calls n.charge, {seen.neuron} does not")
    decay = seen.values["decay"]
    return float(decay.min()), float(decay.max())


@cache
def _observed(neuron: type[Neuron]) -> type[Neuron]:
    """A declaration that notes what its step computes."""

    class Observed(neuron):  # type: ignore[valid-type, misc]
        def charge(self, x: Any, v: Any, tau: Any = None) -> Any:
            tau = self.tau if tau is None else tau
            h = super().charge(x, v, tau)
            self._noted.update(h=h, tau=tau, decay=self.decay(tau))
            return h

        def reset(self, h: Any, s: Any, threshold: Any) -> Any:
            self._noted.update(h=h, threshold=threshold)
            return super().reset(h, s, threshold)

    return Observed


def _made_on_the_way(
    neuron: type[Neuron], x: Tensor, after: Sequence[Tensor], settings: dict[str, Any]
) -> dict[str, Tensor]:
    """What a step computes besides spike and states. A step knows of one neuron and one time step alone, so that it
    takes all of them in one call."""
    given = spec_of(neuron).defaults | settings
    values: dict[str, Any] = {}
    for name in (*neuron.constants, *neuron.options):
        argument = "decay" if name == "decay_mode" else name
        if argument in given:
            values[name] = per_channel(given[argument], x)
    n = _observed(neuron).symbolic(values)  # type: ignore[arg-type]
    n._noted = {}
    before = []
    for state, sequence in zip(neuron.states.values(), after, strict=True):
        rest = values.get(state.rest or "v_reset", 0.0) if isinstance(state.rest, (str, type(None))) else state.rest
        first = torch.zeros_like(x[:1]) + (0.0 if rest is None else rest)
        before.append(torch.cat([first, sequence[:-1]]))
    n.step(x, *before)
    return {k: v if isinstance(v, Tensor) else x.new_full((), v) for k, v in n._noted.items()}

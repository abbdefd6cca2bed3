"""Norms and neurons of a network, one after the other in order of execution."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

from torch import nn

from stdano_kernels import Neuron

from ..nodes.base import BaseNode
from ..nodes.candidates import candidate, names_in, settings_of
from ..nodes.neurons import CANDIDATES, class_of, meant, names_neuron
from ..nodes.norms import SynchronisedBatchNorm2d
from ..nodes.super_neuron import SuperNeuron

Neurons = str | Neuron | type[Neuron] | type[BaseNode] | Callable[[int], nn.Module]


class Factory:
    """Makes the norms and the neurons of a network.

    Args:
        neurons: a neuron a layer, as :func:`stdano.models.neuron_string` writes it; the declaration or class of a
            neuron for all layers; ``"super"``; or a function from a number of channels to a layer.
        sync_statistics: whether norms and super neurons have statistics over all processes.
        settings: arguments of the neurons; each kind takes those that it has.

    Raises:
        TypeError: a setting that no neuron has, or any with a function.
    """

    def __init__(self, neurons: Any, sync_statistics: bool, settings: dict[str, Any]) -> None:
        self.sync = sync_statistics
        self.settings = settings
        if names_neuron(neurons) or (isinstance(neurons, str) and neurons != "super"):
            turns = itertools.cycle(self._makers(neurons))
            self.neuron: Callable[[int], nn.Module] = lambda channels: next(turns)()
        elif isinstance(neurons, str):
            self._check(_arguments(SuperNeuron) - {"surrogate_alpha", "sync", "num_channels"} | {"alpha"})
            self.neuron = self._super
        else:
            if settings:
                raise TypeError(f"settings must not be given where neurons is a function, got {', '.join(settings)}")
            self.neuron = neurons

    def _check(self, known: set[str]) -> None:
        unknown = sorted(set(self.settings) - known)
        if unknown:
            raise TypeError(f"settings must be some of {', '.join(sorted(known))}, got {', '.join(unknown)}")

    def _makers(self, neurons: Any) -> list[Callable[[], nn.Module]]:
        """What makes the neuron of each layer. A class by itself takes the settings that it has; of names each takes
        those that are meant for it."""
        if isinstance(neurons, type):
            kinds: list[tuple[type[BaseNode], dict[str, Any]]] = [(class_of(neurons), {})]
        else:
            members = [candidate(name) for name in (names_in(neurons) if isinstance(neurons, str) else [neurons])]
            kinds = [(class_of(type(member)), settings_of(member)) for member in members]
        self._check(set().union(*(_arguments(kind) for kind in (*CANDIDATES.values(), *(kind for kind, _ in kinds)))))

        def maker(kind: type[BaseNode], own: dict[str, Any]) -> Callable[[], nn.Module]:
            known = _arguments(kind) if isinstance(neurons, type) else {n for n in _arguments(kind) if meant(n, kind)}
            given = {name: value for name, value in self.settings.items() if name in known}
            return lambda: kind(**{**given, **own})

        return [maker(*kind) for kind in kinds]

    def _super(self, channels: int) -> nn.Module:
        settings = dict(self.settings)
        if "alpha" in settings:
            settings["surrogate_alpha"] = settings.pop("alpha")
        if "candidates" in settings:
            settings["neurons"] = settings.pop("candidates")
        return SuperNeuron(channels, sync=self.sync, **settings)

    def norm(self, channels: int) -> nn.Module:
        return SynchronisedBatchNorm2d(channels) if self.sync else nn.BatchNorm2d(channels)


def _arguments(kind: type[nn.Module]) -> set[str]:
    if issubclass(kind, BaseNode):
        return set(kind._arguments.defaults) - {"step_mode", "store_v_seq"}
    return set(inspect.signature(kind).parameters) - {"neurons"} | {"candidates"}

"""How often neurons fire while a network is trained and tested: spikes a neuron and time step, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nodes.super_neuron import SuperNeuron
from ..rewrite.inherit import spiking_layers
from ..rewrite.watch import watched


class SpikeCounter:
    """Counts the spikes of every layer of a model while it is entered, and nothing else, which costs next to nothing;
    :func:`stdano.analysis.activity` tells more.

    Super neurons emit a weighted sum instead of spikes: their rate is the weighted mean of their candidates' running
    rates.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: dict[str, nn.Module] = spiking_layers(model)
        # Spikes, and neurons times steps. Spikes are summed on the device, which nobody has to wait for meanwhile.
        self.counts: dict[str, list[Tensor | float]] = {name: [0.0, 0.0] for name in self.layers}

    def __enter__(self) -> SpikeCounter:
        self._watch = watched(self.layers, self._count)
        self._watch.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._watch.__exit__(None, None, None)

    def _count(self, name: str, layer: nn.Module, x: Tensor, spikes: Tensor) -> None:
        counts = self.counts[name]
        if isinstance(layer, SuperNeuron):
            counts[0] += _mixed_rate(layer) * spikes.numel()
        else:
            counts[0] += spikes.detach().sum(dtype=torch.float32).double()
        counts[1] += spikes.numel()

    def rates(self) -> dict[str, float]:
        """Of each layer that ran."""
        return {name: float(spikes) / float(neurons) for name, (spikes, neurons) in self.counts.items() if neurons}

    def numbers(self) -> list[Tensor | float]:
        """All counts, one after the other, to be summed over processes; :meth:`restore` takes them back."""
        return [number for pair in self.counts.values() for number in pair]

    def restore(self, numbers: list[float]) -> None:
        for pair, start in zip(self.counts.values(), range(0, len(numbers), 2), strict=True):
            pair[:] = numbers[start : start + 2]

    @property
    def rate(self) -> float:
        """Over all layers."""
        spikes, neurons = (float(sum(pair[k] for pair in self.counts.values())) for k in (0, 1))
        return spikes / max(neurons, 1.0)


def _mixed_rate(layer: SuperNeuron) -> Tensor | float:
    if layer.running_mean is None:
        return float("nan")
    return (layer.weights().detach() * layer.running_mean.mean(1)).sum().double()

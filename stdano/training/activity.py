"""How often neurons fire: spikes a neuron and time step, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..nodes.link import reads_output_alone
from ..nodes.super_neuron import SuperNeuron
from ..rewrite.inherit import spiking_layers


class SpikeCounter:
    """Counts the spikes of every layer of a model while it is entered.

    Super neurons emit a weighted sum instead of spikes: their rate is the weighted mean of their candidates' running
    rates.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = spiking_layers(model)
        # Spikes, and neurons times steps. Spikes are summed on the device, which nobody has to wait for meanwhile.
        self.counts: dict[str, list[Tensor | float]] = {name: [0.0, 0.0] for name in self.layers}

    def __enter__(self) -> SpikeCounter:
        self._handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self.layers.items()]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple, Tensor | tuple], None]:
        counts = self.counts[name]

        @reads_output_alone
        def count(module: nn.Module, inputs: tuple, out: Tensor | tuple) -> None:
            spikes = out[0] if isinstance(out, tuple) else out  # beside the states that were asked for
            if isinstance(module, SuperNeuron):
                counts[0] += _mixed_rate(module) * spikes.numel()
            else:
                counts[0] += spikes.detach().sum(dtype=torch.float32).double()
            counts[1] += spikes.numel()

        return count

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

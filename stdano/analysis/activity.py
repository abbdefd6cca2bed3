"""How active a network is: where, when and how often its neurons fire."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..nodes.super_neuron import SuperNeuron
from ..rewrite.inherit import kind_of, require_layers, spiking_layers, step_mode_of
from ..rewrite.watch import watched
from .running import Forward, run


@dataclass(frozen=True)
class LayerActivity:
    """What one spiking layer did.

    Attributes:
        name: in the model.
        neuron: the kind of neuron, its class without "Node": ``"LLIF"``.
        shape: of one sample at one time step, such as (channels, height, width).
        rate: spikes a neuron and time step.
        rates: the same at each time step.
        spikes: spikes a sample, of all neurons in all time steps.
        updates: neurons times time steps, a sample.
        silent: share of the neurons that never fired, in none of the samples.
        zeros: share of the outputs that are 0.
    """

    name: str
    neuron: str
    shape: tuple[int, ...]
    rate: float
    rates: tuple[float, ...]
    spikes: float
    updates: float
    silent: float
    zeros: float


@dataclass(frozen=True)
class Activity:
    """What the spiking layers of a network did.

    Attributes:
        layers: those that ran, in order of execution.
        samples: how many there were.
    """

    layers: tuple[LayerActivity, ...]
    samples: int

    @property
    def rate(self) -> float:
        """Spikes a neuron and time step, of all layers."""
        return self.spikes / sum(layer.updates for layer in self.layers)

    @property
    def spikes(self) -> float:
        """Spikes a sample, of all layers."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def rates(self) -> dict[str, float]:
        """The rate of each layer."""
        return {layer.name: layer.rate for layer in self.layers}

    @property
    def neurons(self) -> list[str]:
        """The kind of neuron of each layer."""
        return [layer.neuron for layer in self.layers]


def activity(model: nn.Module, batches: Iterable[Any], *, forward: Forward | None = None) -> Activity:
    """How often the neurons of a network fire, layer by layer, in inference.

    The model runs in eval mode and without gradients, each batch from rest. Afterwards its training flags and the
    states that its neurons carry are what they were.

    A layer in ``step_mode="m"`` gives all time steps in one call; calls of one in mode ``"s"`` are its time steps, one
    after the other. A layer in mode "m" that a batch goes through twice counts with both calls. Several spikes in a
    step (:class:`stdano.IntegerLIFNode`) count each. A :class:`stdano.SuperNeuron` counts with the weighted mean of
    what its candidates fire; it is silent where none of them does.

    Args:
        model: any with spiking layers of stdano or SpikingJelly, in any mix of step modes.
        batches: inputs, or tuples that begin with one, such as (inputs, labels); the samples of a batch are what its
            first spiking layer sees as its batch.
        forward: what an input goes through, for a model that does not take it as it is; default the model. For one
            that takes single time steps, ``lambda x: [model(step) for step in x]``.

    Raises:
        TypeError: batches are something else.
        ValueError: the model has no spiking layers or none of them ran; there are no batches; or a layer's shape
            differs between batches.
    """
    counter = Counter(model)
    with counter:
        run(model, batches, forward, counter.begin)
    return counter.result()


class Counter:
    """Counts what :func:`activity` returns while it is entered; :meth:`begin` starts a new batch."""

    def __init__(self, model: nn.Module) -> None:
        self.layers: dict[str, nn.Module] = spiking_layers(model)
        require_layers(model, self.layers)
        self.records: dict[str, _Record] = {}  # in order of execution
        self.samples = 0
        self._seen = False  # whether this batch's samples are counted
        self._watch = watched(self.layers, self._see)

    def __enter__(self) -> Counter:
        self._watch.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._watch.__exit__(None, None, None)

    def begin(self) -> None:
        self._seen = False
        for record in self.records.values():
            record.step = 0

    def _see(self, name: str, layer: nn.Module, x: Tensor, out: Tensor) -> None:
        single = not isinstance(layer, SuperNeuron) and step_mode_of(layer) == "s"
        if not self._seen:
            self._seen, self.samples = True, self.samples + out.shape[0 if single else 1]
        if isinstance(layer, SuperNeuron):
            shares = zip(layer.weights().tolist(), layer.neurons, strict=True)
            parts = [(share, layer.node(neuron)(x)) for share, neuron in shares]
        else:
            parts = [(1.0, out.unsqueeze(0) if single else out)]
        record = self.records.setdefault(name, _Record(name, layer, parts[0][1]))
        record.add(parts, single)

    def result(self) -> Activity:
        if not self.records:
            raise ValueError(
                f"batches must go through the spiking layers {', '.join(self.layers)}, but none of them ran"
            )
        return Activity(tuple(record.result(self.samples) for record in self.records.values()), self.samples)


class _Record:
    """The sums of a layer. They stay on its device until the end: nobody waits for them."""

    def __init__(self, name: str, layer: nn.Module, spikes: Tensor) -> None:
        self.name, self.neuron = name, kind_of(layer)
        self.shape = spikes.shape[2:]
        self.step = 0
        self.spikes: list[Tensor | float] = []  # of each time step
        self.neurons: list[int] = []  # that were updated in it
        self.zeros: Tensor | float = 0.0
        self.fired = torch.zeros(self.shape, dtype=torch.bool, device=spikes.device)

    def add(self, parts: list[tuple[float, Tensor]], single: bool) -> None:
        """Spikes ``[T, B, ...]``, with their weights."""
        shape = parts[0][1].shape
        if shape[2:] != self.shape:
            raise ValueError(
                f"batches must give layer {self.name} the same shape each, got {tuple(self.shape)} and then "
                f"{tuple(shape[2:])}"
            )
        start = self.step if single else 0
        self.step += 1
        missing = start + shape[0] - len(self.spikes)
        self.spikes += [0.0] * missing
        self.neurons += [0] * missing
        for share, spikes in parts:
            sums = spikes.flatten(1).sum(1, dtype=torch.float64)
            self.zeros += share * (spikes == 0).sum(dtype=torch.float64)
            self.fired |= (spikes != 0).flatten(0, 1).any(0)
            for step, total in enumerate(sums, start):
                self.spikes[step] += share * total
        for step in range(start, start + shape[0]):
            self.neurons[step] += math.prod(shape[1:])

    def result(self, samples: int) -> LayerActivity:
        spikes = [float(total) for total in self.spikes]
        return LayerActivity(
            name=self.name,
            neuron=self.neuron,
            shape=tuple(self.shape),
            rate=sum(spikes) / sum(self.neurons),
            rates=tuple(total / count for total, count in zip(spikes, self.neurons, strict=True)),
            spikes=sum(spikes) / samples,
            updates=sum(self.neurons) / samples,
            silent=1 - float(self.fired.double().mean()),
            zeros=float(self.zeros) / sum(self.neurons),
        )

"""What inference of a network costs: operations of synapses and neurons, memory accesses, an estimate of energy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..rewrite.inherit import is_spiking
from ..rewrite.watch import watched
from .activity import Activity, Counter
from .operations import WEIGHTED, Synapses, Update, update_of
from .running import Forward, run


@dataclass(frozen=True)
class Picojoules:
    """The energy of one operation on 32-bit floats, in picojoules, at 45 nm and 0.9 V, from Horowitz, "Computing's
    energy problem (and what we can do about it)", ISSCC 2014. An accumulate is an addition; a multiply-accumulate is
    an addition and a multiplication, 4.6 pJ.

    Attributes:
        add: an addition, and a comparison, which is a subtraction.
        multiply: a multiplication.
        function: a division, exp, tanh and the like. Not Horowitz's: 7.1 multiplications, a rough figure that was
            measured for divisions on a microcontroller.
        access: of one 32-bit word in a memory of 8 kB: half of a 64-bit access.
    """

    add: float = 0.9
    multiply: float = 3.7
    function: float = 26.3
    access: float = 5.0


@dataclass(frozen=True)
class SynapseCost:
    """What a layer with weights does for one sample, in all time steps.

    Attributes:
        name: in the model.
        kind: class of the layer.
        spiking: whether all its inputs were spikes: 0 or 1, or as many as the model's neurons fire in a step. Then its
            operations are accumulates, else multiply-accumulates.
        inputs: input values.
        nonzero: input values that are not 0.
        operations: pairs of a weight and an input value that is not 0, at borders without padding; several spikes in
            a step count each.
        dense: the same of all input values, zeros too.
    """

    name: str
    kind: str
    spiking: bool
    inputs: float
    nonzero: float
    operations: float
    dense: float


@dataclass(frozen=True)
class NeuronCost:
    """What the neurons of a layer do for one sample, in all time steps.

    Attributes:
        name: in the model.
        neuron: the kind of neuron.
        updates: neurons times time steps.
        update: the operations of one update.
        spikes: spikes that are fired.
    """

    name: str
    neuron: str
    updates: float
    update: Update
    spikes: float


@dataclass(frozen=True)
class Accesses:
    """Reads and writes of 32-bit words in memory for one sample, where nothing is kept in registers in between.

    Attributes:
        weights: a read for each operation of a synapse.
        potentials: for each operation of a synapse a read and a write of the sum that is the neuron's input; for each
            update of a neuron a read of that sum, and a read and a write of each state.
        spikes: a read for each input value that is not 0 of layers with weights, a write for each spike.
    """

    weights: float
    potentials: float
    spikes: float

    @property
    def total(self) -> float:
        return self.weights + self.potentials + self.spikes


@dataclass(frozen=True)
class Energy:
    """An estimate for one sample, in picojoules.

    Attributes:
        synapses: of accumulates and multiply-accumulates, the figure that papers usually give.
        neurons: of the neurons' updates.
        memory: of memory accesses.
    """

    synapses: float
    neurons: float
    memory: float


@dataclass(frozen=True)
class Cost:
    """What inference of a network costs.

    Attributes:
        layers: layers with weights, in order of execution.
        neurons: spiking layers, in order of execution.
        activity: what the spiking layers did.
        uncounted: names of what has weights or is a spiking layer, but is of an unknown kind or did not run by itself;
            nothing of it is counted.
    """

    layers: tuple[SynapseCost, ...]
    neurons: tuple[NeuronCost, ...]
    activity: Activity
    uncounted: tuple[str, ...]

    @property
    def accumulates(self) -> float:
        """Of layers whose input is spikes, for one sample."""
        return sum(layer.operations for layer in self.layers if layer.spiking)

    @property
    def multiply_accumulates(self) -> float:
        """Of layers whose input is real numbers, for one sample."""
        return sum(layer.operations for layer in self.layers if not layer.spiking)

    @property
    def accesses(self) -> Accesses:
        operations = sum(layer.operations for layer in self.layers)
        own = sum(layer.updates * (1 + 2 * layer.update.states) for layer in self.neurons)
        spikes = sum(layer.nonzero for layer in self.layers) + sum(layer.spikes for layer in self.neurons)
        return Accesses(operations, 2 * operations + own, spikes)

    def energy(self, each: Picojoules | None = None) -> Energy:
        """An estimate of the energy for one sample.

        Args:
            each: of each operation; default :class:`Picojoules`.
        """
        each = each or Picojoules()

        def of(update: Update) -> float:
            return update.adds * each.add + update.multiplies * each.multiply + update.functions * each.function

        return Energy(
            synapses=each.add * self.accumulates + (each.add + each.multiply) * self.multiply_accumulates,
            neurons=sum(layer.updates * of(layer.update) for layer in self.neurons),
            memory=each.access * self.accesses.total,
        )


def cost(model: nn.Module, batches: Iterable[Any], *, forward: Forward | None = None) -> Cost:
    """What inference of a network costs for one sample, counted in what its layers take and give.

    Layers with weights are ``Linear``, ``Conv1d``, ``Conv2d``, ``Conv3d`` and their subclasses. Counted are their
    calls: stdano's networks convolve an image that is the input of all time steps once. Not counted are biases and
    norms, which inference folds into weights and thresholds (:func:`stdano.fuse_conv_bn`), pooling and sums of
    branches, and what a model computes without a layer, such as products of matrices in attention.

    Args:
        model, batches, forward: as for :func:`stdano.analysis.activity`.

    Raises:
        TypeError, ValueError: as :func:`stdano.analysis.activity`.
    """
    counter = Counter(model)
    updates = {name: update_of(layer) for name, layer in counter.layers.items()}
    levels = max([1, *(update.levels for update in updates.values() if update)])
    weighted = {name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)}
    records: dict[str, Synapses] = {}  # in order of execution

    def see(name: str, layer: nn.Module, x: Tensor, out: Tensor) -> None:
        records.setdefault(name, Synapses(weighted[name], levels)).add(x)

    with counter, watched(weighted, see):
        run(model, batches, forward, counter.begin)
    activity = counter.result()
    neurons = []
    for layer in activity.layers:
        if (update := updates[layer.name]) is not None:
            neurons.append(NeuronCost(layer.name, layer.neuron, layer.updates, update, layer.spikes))
    counted = {*records, *(layer.name for layer in neurons)}
    return Cost(
        layers=tuple(_synapses(name, record, activity.samples) for name, record in records.items()),
        neurons=tuple(neurons),
        activity=activity,
        uncounted=tuple(name for name, layer in model.named_modules() if _costs(layer) and name not in counted),
    )


def compare(
    models: Mapping[str, nn.Module], batches: Iterable[Any], *, forward: Forward | None = None
) -> dict[str, Cost]:
    """The :func:`cost` of several networks on the same batches, for instance of LIF in all layers and of the neurons
    that a search has found (figure 10 of the paper)."""
    batches = batches if isinstance(batches, Tensor) else list(batches)
    return {name: cost(model, batches, forward=forward) for name, model in models.items()}


def _synapses(name: str, record: Synapses, samples: int) -> SynapseCost:
    spiking = bool(record.spiking)
    operations = float(record.accumulates if spiking else record.operations)
    counts = (record.inputs, float(record.nonzero), operations, record.dense)
    return SynapseCost(name, type(record.layer).__name__, spiking, *(count / samples for count in counts))


def _costs(layer: nn.Module) -> bool:
    return is_spiking(layer) or any(p.dim() > 1 for p in layer.parameters(recurse=False))

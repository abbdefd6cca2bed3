"""The sections of a report for which trained networks run on test samples: activity, cost, gradients, dynamics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from ..analysis import Cost, GradientShare, Picojoules, cost, dynamics, gradient_share, layer_inputs, network_shares
from ..nodes.base import BaseNode
from ..nodes.neurons import CANDIDATES
from ..pictures import activity as draw
from ..pictures import dynamics as draw_dynamics
from ..pictures import shares as draw_shares
from ..pictures.style import COLOURS
from ..rewrite.inherit import spiking_layers
from ..training import open_run
from ..training.setup import neuron_settings
from .content import Picture, Section, Table, per_cent, value
from .runs import Run

MOST = 4  # networks that pictures tell apart
FEW = 8  # samples that gradients are taken of


@dataclass(frozen=True)
class Network:
    """A trained network and what it does on test samples: ``batches`` of inputs and labels."""

    name: str
    run: Run
    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]
    cost: Cost

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """A few samples and their labels."""
        x, labels = self.batches[0]
        samples = x[:, :FEW] if x.dim() == 5 else x[:FEW]
        return samples, labels[:FEW]


def load(
    methods: Mapping[str, Sequence[Run]], samples: int, tell: Callable[[str], None]
) -> tuple[list[Network], list[str]]:
    """The first run of each method as a network, up to :data:`MOST`, and why others are left out."""
    networks: list[Network] = []
    missing = []
    for name, (run, *_) in methods.items():
        if len(networks) == MOST:
            missing.append(f"{name}: pictures have room for {MOST} networks")
            continue
        tell(f"network {name} on test samples")
        try:
            setup = open_run(run.folder, "last")
        except (ValueError, OSError) as error:  # no checkpoint, or the data are gone
            missing.append(f"{name}: {error}")
            continue
        batches: list[tuple[Tensor, Tensor]] = []
        for batch in setup.test_batches.epoch(0):
            if len(batch.labels):
                x, labels = (t.to(setup.fabric.device) for t in (batch.values, batch.labels))
                batches.append((setup.steps_first(x), labels))
            if sum(len(labels) for _, labels in batches) >= samples:
                break
        model = setup.plain.eval()
        networks.append(Network(name, run, model, batches, cost(model, batches)))
    return networks, missing


def activity(networks: Sequence[Network], missing: Sequence[str]) -> Section:
    """How often neurons fire (figure 10 of the paper)."""
    text = [
        f"The first {network.cost.activity.samples} test samples of {network.name} (seed "
        f"{network.run.settings.optimiser.seed}), after the last epoch."
        for network in networks
    ]
    text += [f"Left out: {reason}" for reason in missing]
    if not networks:
        return Section("Activity", text)
    seen = {network.name: network.cost.activity for network in networks}
    items: list[Picture | Table] = []
    for number, some in enumerate(_alike(seen), start=1):
        figure = draw.rates({k: v.rates for k, v in some.items()}, {k: v.neurons for k, v in some.items()})
        alt = "Firing rate of each layer: " + "; ".join(f"{k} {v.rate:.3g} over all layers" for k, v in some.items())
        items.append(Picture(f"rates-{number}", "Firing rate of each layer, in order of execution", alt, figure))
    figure = draw.rates_over_time(seen)
    items.append(
        Picture("rates-over-time", "Firing rate at each time step", "A number for each layer and step", figure)
    )
    rows = [
        [name, number, layer.neuron, " x ".join(map(str, layer.shape)), value(layer.rate, 3), value(layer.spikes)]
        + [per_cent(layer.silent, 1), per_cent(layer.zeros, 1)]
        for name, each in seen.items()
        for number, layer in enumerate(each.layers, start=1)
    ]
    columns = ["network", "layer", "neuron", "shape", "spikes a neuron and step", "spikes a sample"]
    table = Table(
        "activity", "Activity of each layer", [*columns, "neurons that never fire", "outputs that are 0"], rows
    )
    return Section("Activity", text, [*items, table])


def costs(networks: Sequence[Network]) -> Section | None:
    """Operations, memory accesses and energy."""
    if not networks:
        return None
    each = {network.name: network.cost for network in networks}
    rows = []
    for name, total in each.items():
        energy = total.energy()
        operations = value(total.accumulates / 1e6), value(total.multiply_accumulates / 1e6)
        rows.append(
            [name, *operations, value(total.accesses.total / 1e6)]
            + [value(part / 1e6) for part in (energy.synapses, energy.neurons, energy.memory)]
        )
    columns = ["network", "million accumulates", "million multiply-accumulates", "million memory accesses"]
    columns += ["synapses, µJ", "neurons, µJ", "memory, µJ"]
    table = Table("cost", "Inference of one sample", columns, rows)
    constants = ", ".join(f"{field.name} {field.default:g}" for field in fields(Picojoules))
    text = [
        "Counted from the spikes of the test samples: an accumulate for each weight that a spike meets, a "
        "multiply-accumulate where the input is not spikes (the first layer, and behind average pooling).",
        f"Energy is an estimate for 45 nm, in picojoules an operation: {constants} (Horowitz, ISSCC 2014; the one of "
        "functions, such as exp and division, is a rough assumption). It compares networks; no chip was measured.",
    ]
    items: list[Picture | Table] = [table]
    for number, some in enumerate(_alike(each), start=1):
        alt = "Operations of each layer with weights, and energy by part: " + ", ".join(some)
        items.append(Picture(f"cost-{number}", "Operations and energy of one sample", alt, draw.costs(some)))
    return Section("Cost", text, items)


def _alike(each: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those with equally many layers together, which stand side by side in pictures."""
    groups: dict[int, dict[str, Any]] = {}
    for name, one in each.items():
        groups.setdefault(len(one.layers), {})[name] = one
    return list(groups.values())


def gradients(networks: Sequence[Network]) -> Section | None:
    """Which time steps training learns from (appendices B to D of the paper)."""
    if not networks:
        return None
    first = networks[0]
    x, settings = _example(first)
    compared = {name: gradient_share(name, x, **settings) for name in CANDIDATES}
    items: list[Picture | Table] = []
    caption = f"A neuron alone, on the input of the second spiking layer of {first.name}"
    alt = "; ".join(f"{name}: first half {share.early:.1%}" for name, share in compared.items())
    items.append(Picture("shares-neurons", caption, alt, draw_shares.shares(compared)))
    shares = {network.name: network_shares(network.model, [network.first]) for network in networks}
    for number, (name, layers) in enumerate(shares.items(), start=1):
        chosen = _spread([(f"layer {n}", share) for n, share in enumerate(layers.values(), start=1)])
        picture = draw_shares.shares(dict(chosen), name)
        alt = "; ".join(f"{layer}: first half {share.early:.1%}" for layer, share in chosen)
        items.append(Picture(f"shares-{number}", f"Layers of {name}, from the training loss", alt, picture))
    rows = [["neuron alone", name, *_share_cells(share)] for name, share in compared.items()]
    rows += [
        [name, f"layer {n}", *_share_cells(share)]
        for name, layers in shares.items()
        for n, share in enumerate(layers.values(), start=1)
    ]
    columns = ["network", "of", "first half", "second half", "mean step, from 0"]
    table = Table("shares", "Share of the gradient", columns, rows)
    text = [
        "The share of each time step in the gradient of a neuron's input (eq. 28): where it is high, training learns "
        "from that step. Sums of absolute values over neurons and samples. The paper says that LLIF moves it to early "
        "steps and SLIF to recent ones. Here are one network's weights and a few samples; "
        "stdano.analysis.share_study measures the claims over settings and seeds, with intervals."
    ]
    return Section("Gradient share over time", text, [*items, table])


def _share_cells(share: GradientShare) -> list[Any]:
    return [per_cent(share.early, 1), per_cent(share.late, 1), value(share.centre, 3)]


def _spread(items: list[Any]) -> list[Any]:
    """At most as many as there are colours, the first and the last among them."""
    most = len(COLOURS)
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def example_neurons(networks: Sequence[Network]) -> Section | None:
    """A neuron of each kind over time, and a part of a layer."""
    if not networks:
        return None
    first = networks[0]
    x, settings = _example(first)
    layers = _layers(first)
    layer = layers[min(1, len(layers) - 1)]
    flat = x[:, 0].flatten(1)
    spikes = dynamics("LIF", flat, **settings).spikes.sum(0)
    # One that fires, but not always, and whose input moves most, tells most.
    moved = (flat.amax(0) - flat.amin(0)) * ((spikes > 0) & (spikes < len(x))).add(1e-6)
    place = int(moved.argmax())
    seen = {name: dynamics(name, flat, neurons=[place], **settings) for name in CANDIDATES}
    fired = ", ".join(f"{name} {int(each.spikes.sum())}" for name, each in seen.items())
    alt = f"Potential, threshold and spikes over time. Spikes: {fired}"
    caption = f"LIF, LLIF and SLIF on the same input, that of a neuron in the second spiking layer of {first.name}"
    items = [Picture("dynamics", caption, alt, draw_dynamics.traces(seen))]
    counts = dynamics(layer, x[:, :1]).spikes.sum(0)
    order = counts.argsort()[int((counts == 0).sum()) :]
    order = order if len(order) else counts.argsort()
    some = [int(order[round(k * (len(order) - 1) / 29)]) for k in range(30)] if len(order) > 30 else order.tolist()
    figure = draw_dynamics.raster(dynamics(layer, x[:, :1], neurons=some), type(layer).__name__.removesuffix("Node"))
    caption = f"{len(some)} neurons of that layer on one sample that fire, the busiest below"
    items.append(Picture("raster", caption, f"Spikes of {len(some)} neurons over time", figure))
    text = [
        "The potential's line goes through its values before and after each step's reset. A mark at the threshold is a "
        "spike. On test samples, with the run's settings."
    ]
    return Section("Dynamics", text, items)


def _layers(network: Network) -> list[BaseNode]:
    return [layer for layer in spiking_layers(network.model).values() if isinstance(layer, BaseNode)]


def _example(network: Network) -> tuple[Tensor, dict[str, Any]]:
    """What the second spiking layer gets for a few samples, ``[T, B, ...]``, and the settings of the run's neurons that
    all neurons have."""
    x, _ = network.first
    inputs = list(layer_inputs(network.model, x).values())
    given = neuron_settings(network.run.settings)
    names = {
        "tau": "tau",
        "decay": "decay",
        "v_threshold": "v_threshold",
        "surrogate_function": "surrogate",
        "alpha": "alpha",
    }
    return inputs[min(1, len(inputs) - 1)][0], {new: given[old] for old, new in names.items()}

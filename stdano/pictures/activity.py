"""Pictures of what networks do: firing rates by layer and by time step, operations and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .style import COLOURS, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..analysis import Activity, Cost

# Not the colours that neurons have elsewhere; hatches tell networks apart as well.
_NETWORKS = tuple(zip((COLOURS[5], COLOURS[4], COLOURS[3], COLOURS[7]), ("", "////", "....", "xxxx"), strict=True))
_ROW, _BAR = 0.09, 0.15  # inches: what is between two rows, and each bar of a row


@drawn
def rates(models: Mapping[str, Mapping[str, float]], neurons: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """The firing rate of each layer, in order of execution, of one to four networks (figure 10 of the paper).

    Args:
        models: by the network's name, the rate of each layer in spikes a neuron and time step:
            :attr:`stdano.analysis.Activity.rates`, or ``layer_rates`` of :class:`stdano.training.Evaluation`.
        neurons: likewise the kind of neuron of each layer, which then stands beside its bar.

    Raises:
        ValueError: there are no networks or more than four, or their numbers of layers differ.
    """
    values = {name: list(layers.values()) for name, layers in models.items()}
    rows = [str(number) for number in range(1, 1 + _count(values))]
    kinds = neurons or {name: [""] * len(rows) for name in models}
    labels = {
        name: [f"{value:.3g} {kind}" for value, kind in zip(values[name], kinds[name], strict=True)] for name in models
    }
    figure, (axis,) = _panels(values, [len(rows)])
    _bars(axis, rows, values, labels)
    axis.set_ylabel("layer")
    axis.set_xlabel("spikes a neuron and time step")
    return figure


@drawn
def rates_over_time(models: Mapping[str, Activity]) -> Figure:
    """The firing rate of each layer at each time step, a panel for each network, all with the same colours.

    Raises:
        ValueError: there are no networks or more than four.
    """
    from matplotlib.ticker import MaxNLocator

    _count({name: [] for name in models})
    counts = [len(activity.layers) for activity in models.values()]
    figure = new_figure(0.9 + sum(0.55 + 0.2 * count for count in counts))
    axes = figure.subplots(len(counts), 1, squeeze=False, height_ratios=counts)[:, 0]
    largest = max(rate for activity in models.values() for layer in activity.layers for rate in layer.rates) or 1.0
    for axis, (name, activity) in zip(axes, models.items(), strict=True):
        values = [layer.rates for layer in activity.layers]
        image = axis.imshow(values, cmap="Blues", vmin=0, vmax=largest, aspect="auto")
        if len(values[0]) <= 10:  # more do not fit
            for row, numbers in enumerate(values):
                for column, value in enumerate(numbers):
                    colour = "white" if value > 0.6 * largest else "black"
                    axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(values[0])), [str(step) for step in range(1, 1 + len(values[0]))])
        axis.set_yticks(range(len(values)), [f"{number} {kind}" for number, kind in enumerate(activity.neurons, 1)])
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.set_title(name)
    axes[-1].set_xlabel("time step")
    few = MaxNLocator(5)
    bar = figure.colorbar(
        image, ax=list(axes), location="bottom", label="spikes a neuron", ticks=few, aspect=30, pad=0.02
    )
    bar.outline.set_visible(False)
    return figure


@drawn
def costs(models: Mapping[str, Cost]) -> Figure:
    """For a sample, the operations of each layer with weights and the energy, of one to four networks. Operations are
    accumulates but where MAC stands beside a bar, multiply-accumulates. Memory accesses, whose energy is by far the
    largest, have a panel of their own.

    Raises:
        ValueError: there are no networks or more than four, or their numbers of layers differ.
    """
    operations = {name: [layer.operations / 1e6 for layer in cost.layers] for name, cost in models.items()}
    rows = [str(number) for number in range(1, 1 + _count(operations))]
    kinds = {name: ["" if layer.spiking else " MAC" for layer in cost.layers] for name, cost in models.items()}
    energies = {name: cost.energy() for name, cost in models.items()}
    figure, (top, middle, bottom) = _panels(operations, [len(rows), 2, 1])
    labels = {name: [f"{v:.3g}{k}" for v, k in zip(operations[name], kinds[name], strict=True)] for name in models}
    _bars(top, rows, operations, labels)
    top.set_ylabel("layer with weights")
    top.set_xlabel("million operations a sample")
    for axis, parts in ((middle, ["synapses", "neurons"]), (bottom, ["memory"])):
        values = {name: [getattr(energy, part) / 1e6 for part in parts] for name, energy in energies.items()}
        _bars(axis, parts, values, {name: [f"{v:.3g}" for v in numbers] for name, numbers in values.items()})
        axis.set_xlabel("energy, µJ a sample")
    return figure


def _count(values: Mapping[str, Sequence[float]]) -> int:
    """How many layers each network has."""
    if not 1 <= len(values) <= len(_NETWORKS):
        raise ValueError(f"models must be 1 to {len(_NETWORKS)} networks, got {len(values)}")
    counts = {len(numbers) for numbers in values.values()}
    if len(counts) > 1:
        raise ValueError(f"models must have equally many layers, got {', '.join(map(str, sorted(counts)))}")
    return counts.pop()


def _panels(models: Mapping[str, Sequence[float]], rows: Sequence[int]) -> tuple[Figure, Sequence[Axes]]:
    """Panels one above the other with so many rows of bars each, and above them a legend of the networks."""
    from matplotlib.patches import Patch

    heights = [count * (_ROW + _BAR * len(models)) for count in rows]
    figure = new_figure(0.2 + 0.2 * len(models) + sum(heights) + 0.55 * len(rows))
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    looks = zip(models, _NETWORKS, strict=False)
    patches = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name) for name, (colour, hatch) in looks]
    figure.legend(handles=patches, loc="outside upper left", ncols=1)
    return figure, list(axes)


def _bars(
    axis: Axes, rows: Sequence[str], values: Mapping[str, Sequence[float]], labels: Mapping[str, Sequence[str]]
) -> None:
    """For each row, from above, a bar of each network, from 0, with its label behind it."""
    height = _BAR / (_ROW + _BAR * len(values))
    for place, ((name, numbers), (colour, hatch)) in enumerate(zip(values.items(), _NETWORKS, strict=False)):
        positions = [row + (place - (len(values) - 1) / 2) * height for row in range(len(rows))]
        bars = axis.barh(positions, numbers, height, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        axis.bar_label(bars, labels[name], fontsize=7, padding=2)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(0, max(max(numbers) for numbers in values.values()) or 1.0)  # labels find room beyond
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(False)  # bars have their numbers

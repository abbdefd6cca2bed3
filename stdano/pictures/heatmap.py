"""The architecture parameters of a search: after its last epoch, over the epochs, and over several searches."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch

from ..nodes.candidates import names_in, short
from ..nodes.neurons import CANDIDATES
from .style import COLOURS, INK, NEURON_COLOURS, WIDTH, below, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

Entry = Mapping[str, Any]  # of a search's history: epoch, alphas (a list a layer), neurons (a string of one a layer)
CELL = 0.47  # inches: room for a number
LETTER = 0.085  # of a name


@drawn
def heatmap(
    alphas: Sequence[Sequence[float]],
    candidates: Sequence[str],
    neurons: str,
    title: str,
    uncertain: Collection[tuple[int, str]] = (),
) -> Figure:
    """Alpha of every layer and candidate as in figures 6 to 9 of the paper, the choice outlined.

    Args:
        alphas: a list a layer, in the order of ``candidates``; NaN where a value is missing.
        candidates: names of the neurons.
        neurons: the choice, a string of a neuron a layer (:func:`stdano.models.neuron_string`).
        title: above it.
        uncertain: layer, from 0, and candidate of values that may have been misread, which get a question mark.
    """
    figure = new_figure(*_heat_size(len(alphas), candidates))
    _draw_heat(figure, alphas, candidates, neurons, title, uncertain)
    return figure


@drawn
def search(entries: Sequence[Entry], candidates: Sequence[str]) -> Figure:
    """A search's alpha after the last epoch (see :func:`heatmap`), and below it the way there (see :func:`history`)."""
    last = entries[-1]
    (height, width), below_it = _heat_size(len(last["alphas"]), candidates), _history_height(candidates)
    figure = new_figure(height + below_it, width)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, below_it])[:, 0]
    _draw_heat(
        top, last["alphas"], candidates, last["neurons"], f"alpha after epoch {last['epoch']}{named(last['neurons'])}"
    )
    _draw_history(bottom, entries, candidates)
    return figure


def named(neurons: str) -> str:
    """Digits have room in a title, names stand at the axis."""
    return f": {neurons}" if neurons.isdigit() else ""


def _heat_size(layers: int, candidates: Sequence[str]) -> tuple[float, float]:
    longest = max(len(line) for name in candidates for line in short(name).split("\n"))
    return 1.1 + CELL * len(candidates), max(WIDTH, 1.2 + LETTER * longest + CELL * layers)


def _draw_heat(
    figure: FigureBase,
    alphas: Sequence[Sequence[float]],
    candidates: Sequence[str],
    neurons: str,
    title: str,
    uncertain: Collection[tuple[int, str]] = (),
) -> None:
    from matplotlib.patches import Rectangle

    rows = list(reversed(candidates))  # the paper has SLIF on top
    values = [[alpha[candidates.index(name)] for alpha in alphas] for name in rows]
    known = [abs(value) for row in values for value in row if not math.isnan(value)]
    bound = max(known, default=0.0) or 1.0
    digits = 2 if bound >= 1 else 3 if bound >= 0.02 else 4
    axis = figure.subplots()
    image = axis.pcolormesh(values, cmap="RdBu_r", vmin=-bound, vmax=bound, edgecolors="none")
    for row, name in enumerate(rows):
        for column, choice in enumerate(names_in(neurons)):
            value, taken = values[row][column], choice == name
            missing = math.isnan(value)
            text = "?" if missing else f"{value:.{digits}f}" + "?" * ((column, name) in uncertain)
            colour = INK if missing else "white" if abs(value) > 0.6 * bound else "black"
            weight = "bold" if taken else "normal"
            axis.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, weight=weight, color=colour
            )
            if taken:
                axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=INK, linewidth=2, clip_on=False))
    axis.set_xticks([number + 0.5 for number in range(len(alphas))], [str(n + 1) for n in range(len(alphas))])
    axis.set_yticks([number + 0.5 for number in range(len(rows))], [short(name) for name in rows])
    axis.invert_yaxis()
    axis.set_xlabel("layer")
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axis, label="alpha", pad=0.01)


@drawn
def history(entries: Sequence[Entry], candidates: Sequence[str]) -> Figure:
    """Each candidate's share of the mixture (the softmax of alpha) in every layer over the epochs, and below it the
    entropy of each layer's shares."""
    figure = new_figure(_history_height(candidates))
    _draw_history(figure, entries, candidates)
    return figure


def _history_height(candidates: Sequence[str]) -> float:
    return 1.4 * (len(candidates) + 1) + 0.5


def _draw_history(figure: FigureBase, entries: Sequence[Entry], candidates: Sequence[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.ticker import MaxNLocator

    epochs = [entry["epoch"] for entry in entries]
    count, names = len(entries[-1]["alphas"]), list(candidates)
    # Without the ends, of which one is lost on white paper and the other on black.
    colours = ListedColormap([colormaps["viridis"](0.25 + 0.62 * k / max(1, count - 1)) for k in range(count)])
    axes = figure.subplots(len(names) + 1, 1, sharex=True)
    for layer in range(count):
        shares = torch.tensor([entry["alphas"][layer] for entry in entries], dtype=torch.float64).softmax(1)
        marker = "." if len(epochs) < 30 else ""
        for k, axis in enumerate(axes[:-1]):
            axis.plot(epochs, shares[:, k], color=colours(layer), marker=marker)
        axes[-1].plot(epochs, torch.special.entr(shares).sum(1), color=colours(layer), marker=marker)
    even = 1 / len(names)
    for axis, name in zip(axes, names, strict=False):
        axis.axhline(even, color=INK, linestyle=":", linewidth=1)
        axis.set_ylabel(f"share of {short(name)}")
    axes[-1].axhline(math.log(len(names)), color=INK, linestyle=":", linewidth=1, label="all the same share")
    axes[-1].set_ylabel("entropy (nats)")
    axes[-1].set_xlabel("epoch")
    axes[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axis in axes:
        axis.ticklabel_format(axis="y", useOffset=False)
    below(figure, axes[-1], columns=1)
    layers = ScalarMappable(BoundaryNorm([n + 0.5 for n in range(count + 1)], count), colours)
    figure.colorbar(layers, ax=axes, label="layer", ticks=range(1, count + 1, 1 + count // 10), aspect=40)


@drawn
def agreement(strings: Sequence[str]) -> Figure:
    """How many of several searches chose which neuron in each layer.

    Args:
        strings: what each chose (:func:`stdano.models.neuron_string`), of the same network.
    """
    figure = new_figure(2.9, max(WIDTH, 0.3 * len(names_in(strings[0]))))
    axis = figure.subplots()
    _counts(axis, strings)
    below(figure, axis, columns=3)
    return figure


def _counts(axis: Axes, strings: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    columns = list(zip(*map(names_in, strings), strict=True))
    layers, bottoms = range(1, len(columns) + 1), [0] * len(columns)
    found = sorted({name for column in columns for name in column}, key=lambda name: (name not in CANDIDATES, name))
    for name, hatch, other in zip(found, cycle(("", "//", "..")), cycle(COLOURS), strict=False):
        counts = [column.count(name) for column in columns]
        colour = NEURON_COLOURS.get(name, other)
        axis.bar(layers, counts, 0.8, bottoms, label=short(name), color=colour, hatch=hatch, edgecolor="white")
        bottoms = [a + b for a, b in zip(bottoms, counts, strict=True)]
    axis.set_xticks(layers)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layer")
    axis.set_ylabel("searches")

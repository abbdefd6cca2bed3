"""Pictures of neurons over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .style import COLOURS, INK, LINES, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..analysis import Dynamics

_MOST = 8


@drawn
def raster(given: Dynamics, title: str = "") -> Figure:
    """Spikes over time, a row for each neuron; where a neuron fires several times in a step, the mark grows.

    Args:
        given: neurons over time, as :func:`stdano.analysis.dynamics` gives them.
        title: of the picture.
    """
    from matplotlib.ticker import MaxNLocator

    spikes = given.spikes
    count = spikes.shape[1]
    figure = new_figure(min(5.0, 1.3 + 0.12 * count))
    axis = figure.subplots()
    steps, neurons = spikes.nonzero(as_tuple=True)
    height = min(60.0, 500.0 / count)  # squared points
    axis.scatter(steps.cpu(), neurons.cpu(), height * spikes[steps, neurons].cpu(), color=COLOURS[0], marker="|")
    axis.set_xlim(-0.5, len(spikes) - 0.5)
    axis.set_ylim(count - 0.5, -0.5)
    if count <= 12:
        axis.set_yticks(range(count), [str(n) for n in given.neurons])
        axis.set_ylabel("neuron")
    else:
        axis.set_ylabel(f"{count} neurons")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("time step")
    axis.set_title(title or given.neuron)
    return figure


@drawn
def traces(given: Mapping[str, Dynamics]) -> Figure:
    """Potential, threshold and spikes over time, a panel for each neuron; more where its time constant moves, and for
    its other states, such as a current. The potential's line goes through h, before the reset, and v, after it.

    Args:
        given: by name, one or more neurons over time each; all together 1 to 8.

    Raises:
        ValueError: there are none, or more.
    """
    from matplotlib.ticker import MaxNLocator

    each = [(name, of, k) for name, of in given.items() for k in range(of.spikes.shape[1])]
    if not 1 <= len(each) <= _MOST:
        raise ValueError(f"given must hold 1 to {_MOST} neurons, got {len(each)}")
    heights: list[float] = []
    for _, of, k in each:
        heights += [1.0, *[0.6] * _moves(of, "tau", k), *[0.8] * bool(_others(of, k))]
    figure = new_figure(1.5 * sum(heights) + 0.7)
    axes = iter(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights).flat)
    lines: dict[str, Any] = {}
    for name, of, k in each:
        axis = next(axes)
        lines |= _potential(axis, of, k)
        axis.set_title(name if of.spikes.shape[1] == 1 else f"{name}, neuron {of.neurons[k]}", loc="left")
        if _moves(of, "tau", k):
            axis = next(axes)
            axis.plot(of.values["tau"][:, k].cpu(), color=COLOURS[2], drawstyle="steps-mid")
            axis.set_ylabel("tau\n(steps)")
        if others := _others(of, k):
            axis = next(axes)
            for number, state in enumerate(others):
                colour, style = COLOURS[(3 + number) % len(COLOURS)], LINES[number % len(LINES)]
                (lines[state],) = axis.plot(of.values[state][:, k].cpu(), style, marker=".", color=colour)
            axis.set_ylabel("other states" if len(others) > 1 else others[0])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("time step")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
    return figure


def _moves(of: Dynamics, name: str, k: int) -> bool:
    values = of.values.get(name)
    return values is not None and bool((values[:, k] != values[0, k]).any())


def _others(of: Dynamics, k: int) -> list[str]:
    """States that are drawn by themselves; those that stay where they are tell nothing."""
    first = "v" if "v" in of.values else next(iter(of.values))
    return [name for name in of.values if name not in (first, "h", "threshold", "tau", "decay") and _moves(of, name, k)]


def _potential(axis: Axes, of: Dynamics, k: int) -> dict[str, Any]:
    """Draws one neuron; its lines by their names."""
    values = {name: value[:, k].cpu() for name, value in of.values.items()}
    after = values.get("v", next(iter(values.values())))
    before = values.get("h", after)
    steps = torch.arange(len(after))
    (line,) = axis.plot(
        steps.repeat_interleave(2), torch.stack([before, after], 1).flatten(), color=COLOURS[0], linewidth=1.2
    )
    lines: dict[str, Any] = {"potential": line}
    if "threshold" in values:
        (lines["threshold"],) = axis.plot(
            steps, values["threshold"], "--", color=COLOURS[4], drawstyle="steps-mid", linewidth=1.2
        )
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.2 * (high - low))  # room for the spikes
    fired = of.spikes[:, k].cpu().nonzero()[:, 0]
    lines["spike"] = axis.scatter(
        fired, torch.full((len(fired),), high + 0.1 * (high - low)), 45, color=INK, marker="|", linewidth=1.6
    )
    axis.set_xlim(-0.5, len(after) - 0.5)
    axis.set_ylabel("potential")
    return lines

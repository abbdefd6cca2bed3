"""Pictures of the gradient's share over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .style import COLOURS, INK, LINES, NEURON_COLOURS, below, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis import GradientShare, Shift

_MARKERS = "osD^vPX*"
_LABELS = {
    ("LLIF", "hard"): "LLIF against LIF",
    ("SLIF", "hard"): "SLIF against LIF",
    ("SLIF", "soft"): "SLIF against LIF with soft reset",
}


@drawn
def shares(given: Mapping[str, GradientShare | Sequence[float]], title: str = "") -> Figure:
    """The share of each time step, a line each.

    Args:
        given: by name, of a neuron or a layer; the numbers alone do as well. At most 8.
        title: of the picture.

    Raises:
        ValueError: there are none, or too many to tell apart.
    """
    from matplotlib.ticker import MaxNLocator

    if not 1 <= len(given) <= len(COLOURS):
        raise ValueError(f"given must hold 1 to {len(COLOURS)} shares, got {len(given)}")
    figure = new_figure(2.8)
    axis = figure.subplots()
    for k, (name, share) in enumerate(given.items()):
        numbers: Any = getattr(share, "share", share)
        colour = NEURON_COLOURS.get(name, COLOURS[k])
        percent = [100 * p for p in numbers]
        axis.plot(percent, LINES[k % len(LINES)], marker=_MARKERS[k], markersize=4.5, color=colour, label=name)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("time step")
    axis.set_ylabel("share of the gradient (%)")
    axis.set_title(title)
    below(figure, axis, len(given) if len(given) < 4 else 2)
    return figure


@drawn
def shifts(sweeps: Mapping[str, Sequence[Shift]]) -> Figure:
    """By how much LLIF and SLIF change the share of the first half of the steps, a panel for each setting, all on one
    scale; bars are 95 % intervals over seeds.

    Args:
        sweeps: by the name of the setting, what :func:`stdano.analysis.share_study` gave while it varied that alone.

    Raises:
        ValueError: there are none.
    """
    if not sweeps:
        raise ValueError("sweeps must hold at least one setting, got none")
    rows = -(-len(sweeps) // 2)
    columns = min(len(sweeps), 2)
    figure = new_figure(1.75 * rows + 0.9)
    axes = iter(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    lines: dict[str, Any] = {}
    for (name, comparisons), axis in zip(sweeps.items(), axes, strict=False):  # in this order: takes no axis too many
        axis.axhline(0, color=INK, linewidth=0.8)
        places = list(dict.fromkeys(shift.settings[name] for shift in comparisons if name in shift.settings))
        for k, (key, label) in enumerate(_LABELS.items()):
            of_pair = [s for s in comparisons if (s.neuron, s.reset) == key and name in s.settings]
            if not of_pair:
                continue
            lines[label] = axis.errorbar(
                [places.index(s.settings[name]) + 0.07 * (k - 1) for s in of_pair],
                [100 * s.early.mean for s in of_pair],
                [100 * s.early.half for s in of_pair],
                linestyle=LINES[k],
                marker=_MARKERS[k + 1],  # of the neuron in the other picture
                markersize=4,
                color=(NEURON_COLOURS["LLIF"], NEURON_COLOURS["SLIF"], COLOURS[4])[k],
                capsize=2,
            )
        axis.set_xticks(range(len(places)), [str(p) for p in places])
        axis.set_xlim(-0.4, len(places) - 0.6)
        axis.set_xlabel(name)
    for axis in axes:  # the last row's other place
        axis.set_visible(False)
    figure.supylabel("first half: change of share\n(percentage points)", fontsize=9)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=1)
    return figure

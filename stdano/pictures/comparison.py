"""Methods beside each other: every run, and the mean with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..nodes.candidates import short
from .style import COLOURS, INK, WIDTH, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.statistics import Interval


@drawn
def comparison(points: Mapping[str, Sequence[float]], means: Mapping[str, Interval]) -> Figure:
    """Test accuracy by method.

    Args:
        points: of each method that of every run, from 0 to 1.
        means: of each method, drawn with 95 % intervals.
    """
    figure = new_figure(1.0 + 0.4 * len(points), WIDTH)
    axis = figure.subplots()
    for row, (name, values) in enumerate(points.items()):
        axis.plot(
            [100 * value for value in values], [row] * len(values), "o", color=COLOURS[0], markersize=4, alpha=0.5
        )
        of = means[name]
        half = 0.0 if of.count == 1 else 100 * of.half
        axis.errorbar(100 * of.mean, row, xerr=half, fmt="|", color=INK, markersize=10, capsize=3)
    axis.set_yticks(range(len(points)), [short(name) for name in points])
    axis.invert_yaxis()
    axis.set_xlabel("test accuracy after the last epoch (%)")
    return figure

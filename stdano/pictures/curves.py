"""Curves over epochs: of one run, and of several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from .style import COLOURS, INK, LINES, NEURON_COLOURS, below, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 50  # letters of a method that a legend has room for

Row = Mapping[str, float]  # of a run's metrics.csv
Runs = Mapping[str, Sequence[Sequence[Row]]]  # the rows of each run of a method


@drawn
def training(rows: Sequence[Row], title: str) -> Figure:
    """Loss and accuracy of a run over its epochs; the last and the best epoch are marked."""
    figure = new_figure(5.2)
    loss, accuracy = figure.subplots(2, 1)
    epochs = [row["epoch"] for row in rows]
    for axis, name, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for part, style in (("train", "--"), ("test", "-")):
            axis.plot(epochs, [factor * row[f"{part}_{name}"] for row in rows], style, marker=".", label=part)
        _epochs(axis, epochs)
    best = max(rows, key=lambda row: row["test_accuracy"])
    for row, label, marker in ((best, "best", "*"), (rows[-1], "last", "s")):
        value = 100 * row["test_accuracy"]
        text = f"{label}: {value:.2f} %, epoch {row['epoch']:.0f}"
        accuracy.plot(row["epoch"], value, marker, color=INK, markersize=8, fillstyle="none", label=text)
    loss.set_ylabel("TET loss")
    accuracy.set_ylabel("accuracy (%)")
    below(figure, accuracy, columns=2)
    figure.suptitle(title, parse_math=False)  # the name of a folder may have dollars
    return figure


@drawn
def test_curves(runs: Runs) -> Figure:
    """Test accuracy and loss over the epochs: the mean of each method's runs, and their range where there are several.
    The axis of accuracies leaves out what lies below all but the first fifth of the epochs."""
    figure = new_figure(5.4)
    accuracy, loss = figure.subplots(2, 1)
    later = _means(accuracy, runs, "test_accuracy", 100)
    margin = 0.05 * (max(later) - min(later)) + 0.1
    accuracy.set_ylim(min(later) - margin, max(later) + margin)
    accuracy.set_ylabel("test accuracy (%)")
    later = _means(loss, runs, "test_loss", 1)
    margin = 0.05 * (max(later) - min(later)) + 0.001
    loss.set_ylim(min(later) - margin, max(later) + margin)
    loss.set_ylabel("test TET loss")
    below(figure, loss, columns=3 if max(map(len, runs)) < 14 else 1)
    return figure


def _means(axis: Axes, runs: Runs, column: str, factor: float) -> list[float]:
    """Draws them, and gives the values behind the first fifth of the epochs."""
    later = []
    colours, styles = cycle(COLOURS), cycle(LINES)
    for label, several in runs.items():
        epochs = [row["epoch"] for row in several[0]]
        values = [[factor * row[column] for row in rows] for rows in several]
        columns = list(zip(*values, strict=False))  # a run that goes on has fewer
        later += [value for each in columns[len(columns) // 5 :] for value in each]
        other = next(colours)
        means = [sum(each) / len(each) for each in columns]
        colour = NEURON_COLOURS.get(label, other)
        epochs = epochs[: len(means)]
        text = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
        axis.plot(epochs, means, next(styles), color=colour, label=text, marker="." if len(epochs) == 1 else "")
        if len(several) > 1:
            least, most = [min(each) for each in columns], [max(each) for each in columns]
            axis.fill_between(epochs, least, most, color=colour, alpha=0.18, linewidth=0)
        _epochs(axis, epochs)
    return later


def _epochs(axis: Axes, epochs: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(epochs) == 1:  # or ticks have fractions around it
        axis.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)

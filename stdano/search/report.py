"""What a search leaves behind: alpha of every layer and epoch (CSV), a heatmap and the entropies (PNG)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..rewrite.convert import DIGITS
from ..training.checkpoint import write_atomically
from .architecture import entropy, softmax

Entry = Mapping[str, Any]


def write_alphas(path: Path, layers: Sequence[str], candidates: Sequence[str], history: Sequence[Entry]) -> None:
    """A row for each epoch and layer, all of them each time: alpha, its softmax, its entropy in nats, the choice.

    Args:
        path: the CSV file, replaced once all is written.
        layers: names, in the order of ``alphas``; numbered from 1.
        candidates: names of the neurons, in the order of each alpha.
        history: an entry for each epoch so far: ``epoch``, ``alphas`` (a list a layer), ``neurons`` (digits).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shares = [f"{column}_{name}" for column in ("alpha", "weight") for name in candidates]
    writer.writerow(["epoch", "layer", "name", *shares, "entropy", "choice"])
    for entry in history:
        rows = zip(layers, entry["alphas"], entry["neurons"], strict=True)
        for number, (name, alpha, digit) in enumerate(rows, start=1):
            writer.writerow([entry["epoch"], number, name, *alpha, *softmax(alpha), entropy(alpha), DIGITS[digit]])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def plot_alphas(path: Path, layers: Sequence[str], candidates: Sequence[str], history: Sequence[Entry]) -> None:
    """Alpha after the last epoch as in figures 6 to 9 of the paper, with the choice outlined, and below each layer's
    entropy over the epochs. Arguments as for :func:`write_alphas`."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    last, count = history[-1], len(layers)
    rows = list(reversed(candidates))  # the paper has SLIF on top
    values = [[alpha[candidates.index(name)] for alpha in last["alphas"]] for name in rows]
    bound = max(abs(value) for row in values for value in row) or 1.0
    digits = 2 if bound >= 1 else 3 if bound >= 0.02 else 4

    figure = Figure(figsize=(max(6.5, 1.6 + 0.66 * count), 2.6 + 0.45 * len(rows) + 1.6), layout="constrained")
    heat, lines = figure.subplots(2, 1, height_ratios=[0.4 + 0.4 * len(rows), 2.4])
    image = heat.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
    for row, name in enumerate(rows):
        for column, digit in enumerate(last["neurons"]):
            value, taken = values[row][column], DIGITS[digit] == name
            heat.text(
                column,
                row,
                f"{value:.{digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                weight="bold" if taken else "normal",
                color="white" if abs(value) > 0.6 * bound else "black",
            )
            if taken:
                heat.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, linewidth=2, clip_on=False))
    heat.set_xticks(range(count), [str(number + 1) for number in range(count)])
    heat.set_yticks(range(len(rows)), rows)
    heat.set_xlabel("layer")
    heat.tick_params(length=0)
    heat.spines[:].set_visible(False)
    heat.set_title(f"alpha after epoch {last['epoch']}: {last['neurons']}")
    figure.colorbar(image, ax=heat, label="alpha", pad=0.01)

    colours = colormaps["viridis"].resampled(count)
    epochs = [entry["epoch"] for entry in history]
    for column in range(count):
        line = [entropy(entry["alphas"][column]) for entry in history]
        lines.plot(epochs, line, color=colours(column), marker="." if len(epochs) < 30 else "")
    largest = math.log(len(candidates))
    lines.axhline(largest, color="grey", linestyle=":", label=f"log {len(candidates)}: all the same share")
    lines.legend(loc="lower left")
    lines.set_xlabel("epoch")
    lines.set_ylabel("entropy (nats)")
    lines.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    lines.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    lines.ticklabel_format(axis="y", useOffset=False)
    lines.grid(alpha=0.3)
    layer_colours = ScalarMappable(BoundaryNorm([n + 0.5 for n in range(count + 1)], count), colours)
    figure.colorbar(layer_colours, ax=lines, label="layer", pad=0.01, ticks=range(1, count + 1, 1 + count // 10))
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))

"""The plot: speed-ups, and time per element over T and over N."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from _contenders import NEURONS, OPPONENTS
from _marks import MARK_SHAPE, MARKS
from _report import Result
from _timing import bytes_per_element
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stdano.memory import MMAP_LIMIT

NAMES = {"eager": "PyTorch eager", "compile": "torch.compile", "spikingjelly": "SpikingJelly"}
NAMES |= {"unfused": "stdano's neurons and F.batch_norm", "shipped_lif": "stdano's LIF"}
OPPONENT_COLORS = dict(zip(OPPONENTS, ("#8c9bab", "#3b6ea5", "#d08c3c", "#4f9a6b", "#8a6fb0"), strict=True))
NEURON_COLORS = dict(zip(NEURONS, ("#3b6ea5", "#c1543f", "#4f9a6b"), strict=True))

LOWEST = 0.25  # of the axis of speed-ups


def draw(path: Path, results: Sequence[Result], over_t: Sequence[Result], over_n: Sequence[Result], about: str) -> None:
    """Writes the PNG: speed-ups of the neurons, of what is composed of them, and two panels of scaling, each only
    where it was measured."""
    groups = [[r for r in results if (len(r.case.shape) == 2) == plain] for plain in (True, False)]
    groups = [group for group in groups if group]
    widths = [7.5] * len(groups) + [4.7] * (bool(over_t) + bool(over_n))
    figure, axes = plt.subplots(
        1,
        len(widths),
        figsize=(sum(widths), 4.8),
        squeeze=False,
        layout="constrained",
        width_ratios=widths,
    )
    remaining = list(axes[0])
    for group in groups:
        _bars(remaining.pop(0), group)
    if over_t:
        axis = remaining.pop(0)
        _lines(axis, over_t, lambda r: r.case.steps)
        axis.set(xlabel="time steps T", title=f"T at {over_t[0].case.elements:,} elements (T·N)")
        ticks = sorted({r.case.steps for r in over_t})
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
    if over_n:
        axis = remaining.pop(0)
        _lines(axis, over_n, lambda r: r.case.neurons)
        axis.set(xlabel="neurons N", title=f"N at T = {over_n[0].case.steps}")
        axis.set_yscale("log")
    figure.suptitle(about, fontsize=9, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _bars(axis: Axes, results: Sequence[Result]) -> None:
    first = results[0].case
    size = max(r.case.elements for r in results)
    chosen = [r for r in results if r.case.dtype == first.dtype and r.case.elements == size]
    chosen = [r for r in chosen if r.case.steps == chosen[0].case.steps]
    chosen.sort(key=lambda r: r.case.passes != "train")  # stable: neurons stay in the order of the run
    opponents = [o for o in OPPONENTS if any(r.speed_up(o) for r in chosen)]
    with_marks = (first.dtype, first.device, chosen[0].case.steps) == ("float32", "cpu", 4)
    with_marks &= len(first.shape) == 2 or first.shape == MARK_SHAPE
    with_marks &= any((r.case.neuron, r.case.passes) == (m.neuron, m.passes) for r in chosen for m in MARKS)
    width, highest = min(0.27, 0.9 / max(1, len(opponents))), 1.0
    for i, result in enumerate(chosen):
        bars = [(o, s) for o in opponents if (s := result.speed_up(o)) is not None]
        for j, (opponent, times) in enumerate(bars):
            at = i + (j - (len(bars) - 1) / 2) * width
            axis.bar(at, times, width * 0.92, color=OPPONENT_COLORS[opponent])
            highest = max(highest, times)
            # At the foot of the bar, where no mark is drawn over it.
            label = f"{times:.1f}" if times < 10 else f"{times:.0f}"
            axis.text(at, LOWEST * 1.1, label, fontsize=8, color="white", ha="center", va="bottom")
            for mark in MARKS if with_marks else ():
                if (mark.neuron, mark.passes, mark.opponent) == (result.case.neuron, result.case.passes, opponent):
                    axis.hlines(mark.wanted, at - width / 2, at + width / 2, color="black", linewidth=1.6)
    axis.set_yscale("log")
    axis.set_ylim(LOWEST, highest * 1.8)
    axis.axhline(1, color="#555555", linewidth=0.8)
    ticks = [t for t in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if t < highest * 1.8]
    axis.set_yticks(ticks, [f"{t:g}x" for t in ticks])
    axis.minorticks_off()
    labels = {"train": "train step", "forward": "forward"}
    axis.set_xticks(
        range(len(chosen)),
        [f"{r.case.neuron.upper()}\n{labels[r.case.passes]}" + "\n(machine busy)" * r.disturbed for r in chosen],
    )
    axis.set_ylabel("times faster than (log scale)")
    axis.set_title(f"stdano, {first.dtype}, T = {chosen[0].case.steps}, {size:,} elements")
    handles: list = [Patch(color=OPPONENT_COLORS[o], label=NAMES[o]) for o in opponents]
    if with_marks and opponents:
        handles.append(Line2D([], [], color="black", linewidth=1.6, label="mark"))
    if handles:
        axis.legend(handles=handles, frameon=False, fontsize=8, ncols=2, loc="upper right")
        axis.set_ylim(LOWEST, highest * 4)


def _lines(axis: Axes, results: Sequence[Result], position: Callable[[Result], int]) -> None:
    hollow = disturbed = False
    for neuron in NEURONS:
        for passes, style in (("train", "-"), ("forward", "--")):
            points = [r for r in results if (r.case.neuron, r.case.passes) == (neuron, passes)]
            points = [(position(r), 1e9 * min(t.median for t in r.backends) / r.case.elements, r) for r in points]
            if not points:
                continue
            color = NEURON_COLORS[neuron]
            axis.plot([p[0] for p in points], [p[1] for p in points], style, color=color, linewidth=1.5)
            for at, value, result in points:
                case = result.case
                large = case.elements * bytes_per_element("forward", case.dtype) / 2 > MMAP_LIMIT
                hollow |= large
                disturbed |= result.disturbed
                shape, face = "x" if result.disturbed else "o", "white" if large else color
                axis.plot(at, value, shape, color=color, markersize=4.5, markerfacecolor=face)
    axis.set_xscale("log", base=2 if axis.get_xlim()[1] < 1000 else 10)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("time per element in ns")
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)
    present = [n for n in NEURONS if any(r.case.neuron == n for r in results)]
    handles: list = [Line2D([], [], color=NEURON_COLORS[n], label=n.upper()) for n in present]
    handles += [
        Line2D([], [], color="#555555", linestyle=s, label=p) for p, s in (("train step", "-"), ("forward", "--"))
    ]
    if hollow:
        handles.append(
            Line2D(
                [], [], color="#555555", linestyle="", marker="o", markerfacecolor="white", label="tensors above 32 MB"
            )
        )
    if disturbed:
        handles.append(Line2D([], [], color="#555555", linestyle="", marker="x", label="machine busy"))
    axis.legend(handles=handles, frameon=False, fontsize=8, ncols=2)

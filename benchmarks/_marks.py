"""What the project asks of its CPU kernels, and whether a run shows it: float32, T = 4, on 2 cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from _contenders import NEURONS
from _report import Result
from _timing import ratio_to_copy

MARK_SHAPE = (4, 16, 64, 32, 32)  # of the super neuron, and of BatchNorm and a neuron
TINY = (4, 2, 4, 4, 4)  # where a call costs what the host does for it
MARK_IMAGES = (4, 32, 3, 32, 32)  # of the VGG-11, whose parameters' gradients dominate a small batch


@dataclass(frozen=True)
class Mark:
    """How many times faster than an opponent a case has to be."""

    neuron: str
    passes: str
    opponent: str
    wanted: float
    tiny: bool = False


@dataclass(frozen=True)
class MemoryMark:
    """The share of an opponent's peak extra memory that a train step may need."""

    neuron: str
    opponent: str
    allowed: float


MARKS = (
    Mark("lif", "train", "compile", 2.5),
    Mark("lif", "train", "eager", 10.0),
    Mark("lif", "train", "spikingjelly", 15.0),
    Mark("llif", "train", "compile", 3.0),
    Mark("slif", "train", "compile", 2.2),
    *(Mark(n, "train", "eager", 6.0) for n in ("llif", "slif")),
    *(Mark(n, "forward", "compile", 1.3) for n in NEURONS),
    Mark("super", "train", "compile", 3.0),
    Mark("super", "train", "eager", 15.0),
    *(Mark(f"bn_{n}", "train", "compile", 2.0) for n in NEURONS),
    Mark("bn_lif", "train", "unfused", 1 / 1.2, tiny=True),
    *(Mark("own_alif", passes, "compile", 1.0) for passes in ("train", "forward")),
    Mark("own_alif", "train", "shipped_lif", 1 / 1.3),
)
MEMORY_MARKS = (MemoryMark("super", "eager", 1 / 3), MemoryMark("vgg11_llif", "unfused", 0.75))
AIMS = {"lif": 1.2, "llif": 3.0, "slif": 8.0}  # a train step in times that a copy of the same bytes takes, with AVX2
MARK_HEADER = ["case", "wanted", "N", "measured", "reached"]


def marks(results: Sequence[Result]) -> list[list[str]]:
    """Every mark and the aim, at every size that was run with float32 and T = 4."""
    fitting = [r for r in results if _fits(r)]
    lines = []
    for mark in MARKS:
        of_mark = [
            r
            for r in fitting
            if (r.case.neuron, r.case.passes, r.case.shape == TINY) == (mark.neuron, mark.passes, mark.tiny)
        ]
        name, wanted = f"{mark.neuron.upper()} {mark.passes}: faster than {mark.opponent}", f"≥ {mark.wanted:g}x"
        for result in of_mark:
            found = result.speed_up(mark.opponent)
            verdict = "not measured" if found is None else result.verdict(found >= mark.wanted)
            lines.append([name, wanted, result.case.size, f"{found:.2f}x" if found else "", verdict])
        if not of_mark:
            lines.append([name, wanted, "", "", "not measured"])
    for result in fitting:
        if result.case.passes == "train" and result.case.neuron in NEURONS:
            best = min((t.median for t in result.backends if not t.error), default=math.nan)
            ratio = ratio_to_copy(best, "train", result.one_copy)
            aim = AIMS[result.case.neuron]
            verdict = result.verdict(ratio <= aim)
            name = f"aim, {result.case.neuron.upper()} train: time of copies of the same bytes"
            lines.append([name, f"≤ {aim:g}x", result.case.size, f"{ratio:.2f}x", verdict])
    return [*lines, *_memory_marks(fitting)]


def _memory_marks(fitting: Sequence[Result]) -> list[list[str]]:
    """Bytes are the same on a busy machine, so the verdict is never open."""
    lines = []
    for mark in MEMORY_MARKS:
        name = f"{mark.neuron.upper()} train: peak extra memory against {mark.opponent}"
        wanted, rows = f"≤ {mark.allowed:.2f}x", []
        for result in fitting:
            other = result.peak(mark.opponent)
            peaks = [t.peak for t in result.backends if t.peak is not None]
            if result.case.neuron == mark.neuron and other is not None and peaks:
                share = min(peaks) / other
                verdict = "yes" if share <= mark.allowed else "no"
                rows.append([name, wanted, result.case.size, f"{share:.2f}x", verdict])
        lines += rows or [[name, wanted, "", "", "not measured"]]
    return lines


def _fits(result: Result) -> bool:
    case = result.case
    shapes = (MARK_IMAGES,) if case.neuron.startswith("vgg11") else (MARK_SHAPE, TINY)
    shape = len(case.shape) == 2 or case.shape in shapes
    return (case.dtype, case.steps, case.device) == ("float32", 4, "cpu") and shape

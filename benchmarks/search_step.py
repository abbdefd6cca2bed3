"""Time and memory of a step of the search: fused super neurons against the same network composed with PyTorch.

    python benchmarks/search_step.py                    # vgg-small and a narrow ResNet-18, two minutes or so
    python benchmarks/search_step.py --model vgg11 --batch 16 --markdown
    python benchmarks/search_step.py --device cuda

A step moves alpha once (first order unless --order 2) and the weights once, on a batch each. Ways and layouts run in
turn, one step each, for several rounds: the table has medians, interquartile ranges, and how many times longer than the
fused super neuron of the same layout each takes; below it, each way in its best layout is compared. "Composed" is plain
PyTorch, written in two ways; "unfused" uses stdano's neurons with F.batch_norm beside them.

Memory is the peak of one step, as _memory.py counts it, beyond what there was before: activations, gradients, temporary
tensors; not parameters, the optimisers' state and the batches. It is the same whatever else the machine does.

On the CPU freed memory is kept (stdano.keep_freed_memory) for all alike, as in neuron_throughput.py;
--default-allocator leaves that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from _memory import MIB, peak_bytes
from _options import LAYOUTS, check_device, positive
from _report import machine, shower
from _search import FUSED, WAYS, SearchCase, search_step
from _timing import BUSY, OtherWork, Patience, seconds_of, spread

from stdano import keep_freed_memory
from stdano.models import MODELS

WARM_UP = 2
HEADER = ["super neurons", "layout", "ms a step", "±IQR", "x fused", "MiB", "x fused"]


@dataclass(frozen=True)
class Row:
    """One way and layout: median and interquartile range in seconds, peak in bytes."""

    way: str
    layout: str
    median: float
    iqr: float
    peak: int


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of a step of the search.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", nargs="+", choices=MODELS, default=["vgg-small", "resnet18"], help="default: vgg-small resnet18")
    add("--width", type=float, default=None, help="factor on all channels; default: 1, resnet18: 0.25")
    add("--batch", type=positive, default=None, help="images of a step; default: 64, resnet18: 16")
    add("--steps", type=positive, default=4, metavar="T", help="time steps; default: %(default)s")
    add("--size", type=positive, default=32, help="height and width in pixels; default: %(default)s")
    add("--order", type=int, choices=(1, 2), default=1, help="of alpha's gradient; default: %(default)s")
    add("--way", nargs="+", choices=list(WAYS), default=list(WAYS), help="super neurons; default: all")
    add("--layout", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS), help="of images; default: all")
    add("--rounds", type=positive, default=7, help="steps of each that are timed; default: %(default)s")
    add("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    add("--threads", type=positive, default=torch.get_num_threads(), help="default: %(default)s")
    add("--default-allocator", action="store_true", help="let malloc give freed memory back to the system")
    add("--patience", type=float, default=0, metavar="S", help="wait up to S seconds in all for others to stop working")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    return options


def cases(options: argparse.Namespace) -> list[SearchCase]:
    """The networks; ResNet-18 narrow and with small batches unless options say otherwise."""
    return [
        SearchCase(
            model,
            options.width or (0.25 if model == "resnet18" else 1.0),
            options.batch or (16 if model == "resnet18" else 64),
            options.steps,
            options.size,
            options.device,
        )
        for model in options.model
    ]


def measure(case: SearchCase, options: argparse.Namespace, wait: Callable[[], None]) -> tuple[list[Row], float]:
    """A row for each way and layout, and the cores that others kept busy meanwhile."""
    steps = {
        (way, layout): search_step(case, way, layout, options.order) for layout in options.layout for way in options.way
    }
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    busy = 0.0
    for _ in range(options.rounds):
        wait()
        others = OtherWork()
        for key, step in steps.items():
            times[key].append(seconds_of(step, case.device))
        busy = max(busy, others.cores())
    rows = [Row(*key, *spread(times[key]), peak_bytes(step, case.device)) for key, step in steps.items()]
    return rows, busy


def table(rows: list[Row]) -> list[list[str]]:
    """One line a row."""
    fused = {row.layout: row for row in rows if row.way == FUSED}
    lines = []
    for row in rows:
        line = [row.way, row.layout, f"{row.median * 1e3:.1f}", f"{row.iqr * 1e3:.1f}", "", f"{row.peak / MIB:.1f}", ""]
        if row.layout in fused:
            line[4] = f"{row.median / fused[row.layout].median:.2f}"
            line[6] = f"{row.peak / fused[row.layout].peak:.2f}"
        lines.append(line)
    return lines


def summary(rows: list[Row]) -> list[str]:
    """How the fused super neuron compares with the others, each in its best layout."""

    def best(way: str) -> tuple[float, int]:
        own = [row for row in rows if row.way == way]
        return min(row.median for row in own), min(row.peak for row in own)

    ways = list(dict.fromkeys(row.way for row in rows))
    if FUSED not in ways:
        return []
    mine, my_peak = best(FUSED)
    lines = []
    for way in ways:
        theirs, peak = best(way)
        if way != FUSED:
            lines.append(
                f"fused against {way}: {theirs / mine:.2f} times faster ({mine * 1e3:.0f} ms against "
                f"{theirs * 1e3:.0f} ms), {my_peak / peak:.2f} of the memory ({my_peak / MIB:.0f} MiB against "
                f"{peak / MIB:.0f} MiB)"
            )
    return lines


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    show = shower(options.markdown)
    torch.set_num_threads(options.threads)
    kept = options.device == "cpu" and not options.default_allocator and keep_freed_memory()
    patience = Patience(options.patience)
    for case in cases(options):
        rows, others = measure(case, options, patience.wait)
        show(f"{case.name}, order {options.order}", HEADER, table(rows))
        print("\n" + "\n".join(summary(rows)))
        if others > BUSY:
            print(f"other programs used up to {others:.1f} cores: distrust the times")
    print(f"\n{machine(options.device, options.threads)}\ntorch {torch.__version__}")
    if options.device == "cpu":
        print("freed memory is kept (mallopt), for all alike" if kept else "malloc as it is: page faults count")
    return 0


if __name__ == "__main__":
    sys.exit(main())

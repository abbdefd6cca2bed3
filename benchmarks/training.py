"""A train step of whole networks: time, memory, and where the time goes; stdano beside torch.compile and SpikingJelly.

    python benchmarks/training.py                                 # VGG-11, ResNet-18, a transformer; T = 4 and 8
    python benchmarks/training.py --network resnet18 --time-steps 4 --ways plain fused spikingjelly
    python benchmarks/training.py --device cuda --preset pr740    # SEW-ResNet-18 as SpikingJelly has measured it

All ways train the same network from the same weights: "plain" has stdano's neurons behind nn.BatchNorm, "fused" is
that after stdano.fuse, "packed" keeps spikes as bits besides, "compiled" is torch.compile of the neurons' equations in
PyTorch, and SpikingJelly has its LIFNode, also after its memory optimisation. A step is the forward pass, the loss, the
backward pass and SGD with momentum.

The ways run in turn, one step each, in one order and then in the other, for several rounds: the table has medians,
interquartile ranges, and the median over the rounds of how many times as long as the fused network each takes. Memory
is beyond what there was before the step (parameters, optimiser, batch): what is held between forward and backward, and
the peak. docs/whole_networks.md has figures.

On the CPU freed memory is kept (stdano.keep_freed_memory) for all alike; --default-allocator leaves that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from _contenders import spikingjelly_version
from _memory import MIB, held_bytes, peak_bytes
from _networks import NETWORKS, NetworkCase
from _options import LAYOUTS, check_device, positive
from _report import append, check_header, machine, origin_of_rows, shower
from _shares import GROUPS, shares
from _timing import BUSY, OtherWork, Patience, seconds_of, spread, why
from _ways import WAYS, Step

from stdano import keep_freed_memory

WARM_UP = 3
# What the project asks of "packed" on a CPU with T = 4, float32 and the default batches: the most MiB that may be held,
# as shares of what fused networks held when pooling and the first layer's T equal inputs were kept in full, too; and
# the longest that a step may take against "fused".
HELD_MARKS, TIME_MARK = {"resnet18": 0.6 * 135.2, "vgg11": 0.5 * 175.6}, 1.03
BASE, PACKED = "fused", "packed"
DEFAULT_NETWORKS = ["vgg11", "resnet18", "spikformer"]
PRESETS = {
    "pr740": dict(
        network=["sew-resnet18"], time_steps=[4], batch=112, size=224, classes=1000, dtype="bfloat16", rounds=20
    )
}
# Of SpikingJelly's pull request 740: way, ms a step, GiB allocated at the peak, all that there was before included.
PUBLISHED = {
    "pr740": [
        ["SpikingJelly, Torch", "232.3", "10.08"],
        ["SpikingJelly, Torch, torch.compile", "144.7", "6.91"],
        ["SpikingJelly, Triton", "129.1", "8.00"],
    ]
}
PUBLISHED_BY = "Published, not measured here: SpikingJelly's pull request 740 (2026-08-30), RTX 4090, torch 2.11"
PUBLISHED_HEADER = ["way", "ms a step", "peak, GiB in all"]
HEADER = ["way", "ms a step", "±IQR", "x fused", "held, MiB", "of fused", "peak, MiB", "of fused", "note"]
SHARES_HEADER = ["way", *GROUPS]
MARK_HEADER = ["mark", "wanted", "measured", "reached"]
CASE_COLUMNS = ["device", "network", "T", "batch", "size", "width", "dtype", "layout"]
COLUMNS = ["date", "machine", "stdano", "torch", "python", "spikingjelly", *CASE_COLUMNS, "way", "median_ms", "iqr_ms"]
COLUMNS += ["times_fused", "held_bytes", "peak_bytes", *GROUPS, "note"]


@dataclass
class Row:
    """What is known of one way: seconds of each round, bytes, shares of the time; or why it does not run."""

    way: str
    times: list[float] = field(default_factory=list)
    held: int = 0
    peak: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    error: str = ""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train steps of whole networks.", allow_abbrev=False)
    add = parser.add_argument
    add("--preset", choices=list(PRESETS), default=None, help="sets other options, which may still be given")
    add("--network", nargs="+", choices=list(NETWORKS), default=DEFAULT_NETWORKS, help="default: %(default)s")
    add("--time-steps", nargs="+", type=positive, default=[4, 8], metavar="T", help="default: %(default)s")
    add("--batch", type=positive, default=None, help="images of a step; default: 32, resnet18: 8, sew-resnet18: 2")
    add("--size", type=positive, default=32, help="height and width in pixels; default: %(default)s")
    add("--width", type=float, default=1.0, help="factor on all channels; default: %(default)s")
    add("--classes", type=positive, default=10, help="default: %(default)s")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: by autocast; default: float32")
    add("--layout", choices=list(LAYOUTS), default="contiguous", help="of images and weights; default: %(default)s")
    add("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="default: all")
    add("--rounds", type=positive, default=7, help="steps of each that are timed; default: %(default)s")
    add("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    add("--threads", type=positive, default=torch.get_num_threads(), help="default: %(default)s")
    add("--default-allocator", action="store_true", help="let malloc give freed memory back to the system")
    add("--patience", type=float, default=0, metavar="S", help="wait up to S seconds in all for others to stop working")
    add("--csv", type=Path, default=None, help="rows are appended to it; default: none")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    preset = parser.parse_args(argv).preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    if not 0 < options.width < 100:
        parser.error(f"--width must be above 0 and below 100, got {options.width}")
    for name in options.network:
        network = NETWORKS[name]
        if options.size < network.smallest:
            parser.error(f"--size must be {network.smallest} or more for {name}, got {options.size}")
        if options.width != 1 and not network.scales:
            parser.error(f"--width must be 1 for {name}, got {options.width}")
    return options


def cases(options: argparse.Namespace) -> list[NetworkCase]:
    return [
        NetworkCase(
            name,
            steps,
            options.batch or NETWORKS[name].batch,
            options.size,
            options.width,
            options.classes,
            options.device,
            options.dtype,
            options.layout,
        )
        for name in options.network
        for steps in options.time_steps
    ]


def measure(
    case: NetworkCase, ways: list[str], rounds: int, wait: Callable[[], None] = lambda: None
) -> tuple[list[Row], float]:
    """A row for each way, and the cores that others kept busy meanwhile. ``wait`` is called before each round."""
    rows, steps = {way: Row(way) for way in ways}, {}
    for way in ways:
        try:
            step = Step(case, way)
            for _ in range(WARM_UP):
                step()
            steps[way] = step
        except Exception as error:  # whatever it is, the table shows it and the others go on
            rows[way].error = f"not available: {why(error)}"
    busy, order = 0.0, list(steps)
    for _ in range(rounds):
        wait()
        others = OtherWork()
        for way in order:
            rows[way].times.append(seconds_of(steps[way], case.device))
        order.reverse()
        busy = max(busy, others.cores())
    for way, step in steps.items():
        row = rows[way]
        with step.context():
            row.held = held_bytes(step.loss, case.device)
        step.release()
        row.peak = peak_bytes(step, case.device)
        row.shares = shares(step, step.neurons, case.device)
    return list(rows.values()), busy


def times_as_long(row: Row, base: Row | None) -> float | None:
    """The median over rounds of a way's time by the base's of the same round."""
    if base is None or not row.times or not base.times:
        return None
    return median(mine / theirs for mine, theirs in zip(row.times, base.times, strict=True))


def table(rows: list[Row]) -> list[list[str]]:
    """One line a way."""
    base = next((row for row in rows if row.way == BASE and not row.error), None)
    lines = []
    for row in rows:
        if row.error:
            lines.append([row.way, *[""] * 7, row.error])
            continue
        middle, iqr = spread(row.times)
        ratio = times_as_long(row, base)
        line = [row.way, f"{middle * 1e3:.1f}", f"{iqr * 1e3:.1f}", "" if ratio is None else f"{ratio:.2f}"]
        for mine, theirs in ((row.held, base and base.held), (row.peak, base and base.peak)):
            line += [f"{mine / MIB:.1f}", f"{mine / theirs:.2f}" if theirs else ""]
        lines.append([*line, ""])
    return lines


def shares_table(rows: list[Row]) -> list[list[str]]:
    """Where the time goes, one line a way that runs."""
    return [[row.way, *(f"{row.shares[group]:.0%}" for group in GROUPS)] for row in rows if not row.error]


def marks(case: NetworkCase, rows: list[Row], disturbed: bool) -> list[list[str]]:
    """Whether the marks are reached, of a case and ways that they speak of. Bytes are the same on a busy machine."""
    network, by_way = NETWORKS[case.network], {row.way: row for row in rows if not row.error}
    fits = case == NetworkCase(case.network, 4, network.batch, layout=case.layout)
    if case.network not in HELD_MARKS or not fits or not {BASE, PACKED} <= by_way.keys():
        return []
    packed, base = by_way[PACKED], by_way[BASE]
    held, time, allowed = packed.held / MIB, times_as_long(packed, base), HELD_MARKS[case.network]
    assert time is not None
    in_time = "open (machine busy)" if disturbed else "yes" if time <= TIME_MARK else "no"
    return [
        ["packed: held, MiB", f"≤ {allowed:.1f}", f"{held:.1f}", "yes" if held <= allowed else "no"],
        ["packed: time, of fused", f"≤ {TIME_MARK:.2f}x", f"{time:.3f}x", in_time],
    ]


def csv_rows(case: NetworkCase, rows: list[Row], about: str) -> list[dict[str, str]]:
    """One row a way; numbers are empty where it does not run."""
    values = (case.device, case.network, case.time_steps, case.batch, case.size, case.width, case.dtype, case.layout)
    first = origin_of_rows(about) | dict(zip(CASE_COLUMNS, map(str, values), strict=True))
    base = next((row for row in rows if row.way == BASE), None)
    out = []
    for row in rows:
        line = first | {"way": row.way, "note": row.error}
        if not row.error:
            middle, iqr = spread(row.times)
            ratio = times_as_long(row, base)
            line |= {"median_ms": f"{middle * 1e3:.3f}", "iqr_ms": f"{iqr * 1e3:.3f}"}
            line |= {"held_bytes": str(row.held), "peak_bytes": str(row.peak)}
            line |= {"times_fused": "" if ratio is None else f"{ratio:.4f}"}
            line |= {group: f"{share:.4f}" for group, share in row.shares.items()}
        out.append(line)
    return out


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    show = shower(options.markdown)
    try:
        if options.csv:
            check_header(options.csv, COLUMNS)
    except ValueError as error:
        sys.exit(str(error))
    torch.set_num_threads(options.threads)
    kept = options.device == "cpu" and not options.default_allocator and keep_freed_memory()
    patience = Patience(options.patience)
    about = machine(options.device, options.threads)
    for case in cases(options):
        rows, others = measure(case, options.ways, options.rounds, patience.wait)
        show(case.name, HEADER, table(rows))
        show("Where the time goes", SHARES_HEADER, shares_table(rows))
        of_case = marks(case, rows, others > BUSY)
        if of_case:
            show("Marks", MARK_HEADER, of_case)
        if others > BUSY:
            print(f"other programs used up to {others:.1f} cores: distrust the times")
        if options.csv:
            append(options.csv, csv_rows(case, rows, about), COLUMNS)
    if options.preset:
        show(PUBLISHED_BY, PUBLISHED_HEADER, PUBLISHED[options.preset])
    print(f"\n{about}\ntorch {torch.__version__}, SpikingJelly {spikingjelly_version() or 'not installed'}")
    if options.device == "cpu":
        print("freed memory is kept (mallopt), for all alike" if kept else "malloc as it is: page faults count")
    return 0


if __name__ == "__main__":
    sys.exit(main())

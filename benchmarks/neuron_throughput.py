"""Throughput and memory of stdano's functions against PyTorch, torch.compile and SpikingJelly.

    python benchmarks/neuron_throughput.py            # all of it, ten minutes or so
    python benchmarks/neuron_throughput.py --quick    # about a minute
    python benchmarks/neuron_throughput.py --section super_neuron batch_norm memory
    python benchmarks/neuron_throughput.py --device cuda

neurons: for each neuron, pass (forward without grad; train step: forward and backward with a fixed dense gradient),
backend, dtype, T and number of elements T*N: the median time, elements a second, bandwidth of the bytes that cannot be
avoided (read x, write s; backward: read x and the gradient of s, write that of x), and the ratio to copies of the same
bytes on buffers of the same size. "Eager" and "compile" are PyTorch without stdano's kernels, each the faster of the
reference backend and of plain equations; both are in the CSV. Contenders run in turn, in short rounds, so that a
change of the machine's speed meets all of them.

own_neuron: the same for a neuron that the benchmark declares itself (ALIF, a dozen lines), whose kernels are compiled
at their first use; against the same step in PyTorch, eager and compiled, as a node of SpikingJelly, and stdano's LIF.

super_neuron, batch_norm: the same for super_neuron of all three neurons and for bn_neuron, with statistics of the
batch, on x: [T, B, C, H, W]. "Unfused" is stdano's neurons with F.batch_norm before or after them. The bytes that
cannot be avoided are counted as above, although statistics take another pass over x. And the peak extra memory of a
train step: what the allocator had given out at once, beyond x, weights, the gradient of the result, and the gradients
that the step makes; of an opponent's variants the lowest.

memory: the peak of a VGG-11 train step (T = 4, 32x32, LLIF), beyond parameters and the batch: bn_neuron, BatchNorm2d
and stdano's neuron ("unfused"), BatchNorm2d and plain equations ("eager"). Not timed. Bytes are counted exactly, and
what else the machine does is no matter; _memory.py says how, _vgg.py what depends on the processor.

Memory and time: glibc maps tensors above 32 MB anew at each allocation, and the page faults then cost more than any
kernel. Default sizes stay below that (hollow points in the plot do not). Memory that was freed is kept (mallopt) for
all contenders alike, for else page faults come and go with what ran before; --default-allocator leaves malloc alone.

On a GPU: every backend there is, sizes beyond the second-level cache, all three dtypes and T from 1 to 32 unless
options say otherwise; and the share of the bandwidth that a copy reaches on the same device. The time is the device's,
by CUDA events around each call, with the cache flushed and the device still busy before it, as in a training, so that
the host is ahead; notes say what the host takes for a call, which bounds the speed of small ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from _contenders import NEURONS, spikingjelly_version
from _marks import MARK_HEADER, MARK_SHAPE, marks
from _options import check_device, positive
from _report import MEMORY_HEADER, check_header, header, markdown, memory_table, table
from _sections import SECTIONS, Run, composed_cases, flatness, memory_cases, neuron_cases, own_cases
from _timing import DTYPES

from stdano import keep_freed_memory

DEFAULT_CSV = Path(__file__).parent / "results" / "neuron_throughput.csv"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput of stdano's neurons.", allow_abbrev=False)
    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="default: all")
    add("--neuron", nargs="+", choices=NEURONS, default=list(NEURONS), help="alone and behind BatchNorm; default: all")
    add(
        "--dtype",
        nargs="+",
        choices=list(DTYPES),
        default=None,
        help="default: float32 bfloat16, GPU: float16 too (quick: float32); all but the first: section neurons alone, "
        "first size",
    )
    add("--time-steps", nargs="+", type=positive, default=None, metavar="T", help="default: 4; GPU: 1 2 4 8 16 32")
    add(
        "--elements",
        nargs="+",
        type=positive,
        default=None,
        metavar="T*N",
        help="default: 2097152 4194304; on a GPU 33554432, which no second-level cache holds",
    )
    add(
        "--shape",
        nargs=5,
        type=positive,
        default=None,
        metavar=("T", "B", "C", "H", "W"),
        help="of super_neuron and batch_norm; default: 4 16 64 32 32 (quick: 4 8 ..., GPU: 4 128 ...)",
    )
    add("--batch", type=positive, default=None, help="of the VGG-11 of section memory; default: 32 (quick: 4)")
    add("--threads", type=positive, default=torch.get_num_threads(), help="default: %(default)s")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--no-spikingjelly", action="store_true", help="leave SpikingJelly out")
    add("--no-scaling", action="store_true", help="leave the time per element over T and N out")
    add("--default-allocator", action="store_true", help="let malloc give freed memory back to the system")
    add("--patience", type=float, default=0, metavar="S", help="wait up to S seconds in all for others to stop working")
    add("--quick", action="store_true", help="one size, few rounds, no scaling: about a minute")
    add("--csv", type=Path, default=DEFAULT_CSV, help="rows are appended to it (default: %(default)s)")
    add("--plot", type=Path, default=None, help="PNG (default: next to the CSV)")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    options = parser.parse_args(argv)
    gpu = options.device != "cpu"
    dtypes = ["float32", "bfloat16", "float16"] if gpu else ["float32", "bfloat16"]
    options.dtype = options.dtype or dtypes[: 1 if options.quick else None]
    options.time_steps = options.time_steps or ([1, 2, 4, 8, 16, 32] if gpu and not options.quick else [4])
    sizes = [33_554_432] if gpu else [2_097_152] if options.quick else [2_097_152, 4_194_304]
    options.elements = options.elements or sizes
    batch = 128 if gpu else 8 if options.quick else MARK_SHAPE[1]
    options.shape = options.shape or [MARK_SHAPE[0], batch, *MARK_SHAPE[2:]]
    options.batch = options.batch or (4 if options.quick else 32)
    options.plot = options.plot or options.csv.with_suffix(".png")
    options.no_scaling |= options.quick
    check_device(parser, options.device)
    if max(options.time_steps) > min(options.elements):
        parser.error("--elements must not be below --time-steps")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    try:
        from _plot import draw
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        print(f"{error.name} is missing: pip install 'stdano[app]'", file=sys.stderr)
        return 1
    try:
        check_header(options.csv)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    on_cpu = options.device == "cpu"
    kept = on_cpu and not options.default_allocator and keep_freed_memory()
    memory = (
        "freed memory is kept (mallopt), for all contenders alike" if kept else "malloc as it is: page faults count"
    )
    console = Console(width=None if sys.stdout.isatty() else 190)
    run, begin = Run(options), time.monotonic()
    facts = [
        run.about,
        f"torch {torch.__version__}, SpikingJelly {spikingjelly_version() or 'not installed'}",
        memory if on_cpu else "CUDA events around each call; the cache is flushed and the host ahead before it",
    ]

    neurons = neuron_cases(options) if "neurons" in options.section else []
    own = own_cases(options) if "own_neuron" in options.section else []
    composed = [c for s in ("super_neuron", "batch_norm") if s in options.section for c in composed_cases(options, s)]
    networks = memory_cases(options) if "memory" in options.section else []
    results, progress, count = [], Console(stderr=True), len(neurons) + len(own) + len(composed) + len(networks)
    for i, case in enumerate([*neurons, *own, *composed, *networks]):
        progress.print(f"{i + 1}/{count} {case.neuron} {case.passes} {case.dtype} {list(case.shape)}", highlight=False)
        results.append(run.peaks(case) if case in networks else run.measure(case))
    if neurons and not options.no_scaling:
        progress.print("time per element over T and N")
    over_t, over_n = run.scaling()
    timed = results[: len(neurons) + len(own) + len(composed)]
    others = max((r.others for r in (*timed, *over_t, *over_n)), default=0.0)
    if timed:
        facts.append(f"other programs used up to {others:.1f} cores; distrust cases with a note on that")
        draw(options.plot, timed, over_t, over_n, f"{run.about}; torch {torch.__version__}")

    parts = [("Throughput", results[: len(neurons)], ("eager", "compile", "spikingjelly"))]
    of_own, of_composed = timed[len(neurons) : len(neurons) + len(own)], timed[len(neurons) + len(own) :]
    parts.append(("Own neuron", of_own, ("eager", "compile", "spikingjelly", "shipped_lif")))
    parts.append(("Super neuron, BatchNorm and neuron", of_composed, ("eager", "compile", "unfused")))
    tables = [
        (f"{title}; opponents: ms, and how many times faster stdano is", header(opponents), table(part, opponents))
        for title, part, opponents in parts
        if part
    ]
    with_peaks = [r for r in results if any(t.peak is not None for t in r.timings)]
    if with_peaks:
        title = "Peak memory of a train step beyond what it is given and has to make; opponents: MiB, and times as much"
        tables.append((title, MEMORY_HEADER, memory_table(with_peaks)))
    if on_cpu:
        tables.append(("Marks: float32, T = 4, on 2 cores", MARK_HEADER, marks(results)))
    for title, names, lines in tables:
        if options.markdown:
            print(f"\n{title}\n\n{markdown(names, lines)}")
            continue
        rich_table = Table(*names, title=title)
        for line in lines:
            rich_table.add_row(*line)
        console.print(rich_table)
    print("\n" + "\n".join([*facts, *flatness(over_t, over_n)]))
    print(f"rows: {options.csv}\n" + f"plot: {options.plot}\n" * bool(timed) + f"{time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

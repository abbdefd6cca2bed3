"""Throughput of the neurons against PyTorch, torch.compile and SpikingJelly.

    python benchmarks/neuron_throughput.py            # all of it, a few minutes
    python benchmarks/neuron_throughput.py --quick    # under a minute
    python benchmarks/neuron_throughput.py --device cuda

For each neuron, pass (forward without grad; train step: forward and backward with a fixed dense gradient), backend,
dtype, T and number of elements T*N: the median time, elements a second, bandwidth of the bytes that cannot be avoided
(read x, write s; backward: read x and the gradient of s, write that of x), and the ratio to copies of the same bytes
on buffers of the same size. "Eager" and "compile" are PyTorch without stdano's kernels, each the faster of the
reference backend and of plain equations; both are in the CSV. Contenders run in turn, in short rounds, so that a
change of the machine's speed meets all of them.

Memory: glibc maps tensors above 32 MB anew at each allocation, and the page faults then cost more than any kernel.
Default sizes stay below that (hollow points in the plot do not). Memory that was freed is kept (mallopt) for all
contenders alike, for else page faults come and go with what ran before; --default-allocator leaves malloc alone.

On a GPU: every backend there is, CUDA events around each call with the second-level cache flushed before it, sizes
beyond that cache, all three dtypes and T from 1 to 32 unless options say otherwise; and the share of the bandwidth
that a copy reaches on the same device.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from _contenders import NEURONS, OPPONENTS, Contender, contenders, spikingjelly_version
from _report import HEADER, MARK_HEADER, Result, append, check_header, csv_rows, machine, markdown, marks, table
from _timing import DTYPES, Bench, Case, Patience, keep_freed_memory

DEFAULT_CSV = Path(__file__).parent / "results" / "neuron_throughput.csv"
T_SCALING = (1, 2, 4, 8, 16, 32, 64)
N_SCALING = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 2_000_000, 4_000_000)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput of stdano's neurons.", allow_abbrev=False)
    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--neuron", nargs="+", choices=NEURONS, default=list(NEURONS), help="default: all")
    add(
        "--dtype",
        nargs="+",
        choices=list(DTYPES),
        default=None,
        help="default: float32 bfloat16, GPU: float16 too (quick: float32); all but the first at the first size only",
    )
    add("--time-steps", nargs="+", type=_positive, default=None, metavar="T", help="default: 4; GPU: 1 2 4 8 16 32")
    add(
        "--elements",
        nargs="+",
        type=_positive,
        default=None,
        metavar="T*N",
        help="default: 2097152 4194304; on a GPU 33554432, which no second-level cache holds",
    )
    add("--threads", type=_positive, default=torch.get_num_threads(), help="default: %(default)s")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--no-spikingjelly", action="store_true", help="leave SpikingJelly out")
    add("--no-scaling", action="store_true", help="leave the time per element over T and N out")
    add("--default-allocator", action="store_true", help="let malloc give freed memory back to the system")
    add("--patience", type=float, default=0, metavar="S", help="wait up to S seconds in all for others to stop working")
    add("--quick", action="store_true", help="one size, few rounds, no scaling: under a minute")
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
    options.plot = options.plot or options.csv.with_suffix(".png")
    options.no_scaling |= options.quick
    if gpu and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch finds no GPU (torch.cuda.is_available() is False)")
    if max(options.time_steps) > min(options.elements):
        parser.error("--elements must not be below --time-steps")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


class Run:
    """Measures cases, remembers which of two variants was faster, and writes rows as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.about = machine(options.device, options.threads)
        self.patience = Patience(options.patience)
        self.winners: dict[tuple[str, str, str, str], str] = {}
        self.rounds, self.seconds = (3, 0.05) if options.quick else (5, 0.1)

    def measure(self, case: Case, opponents: bool = True) -> Result:
        options = self.options
        chosen = contenders(
            case.neuron,
            case.device,
            case.passes == "train",
            opponents and not options.no_compile,
            opponents and not options.no_spikingjelly,
        )
        chosen = [c for c in chosen if self._wanted(case, c, opponents)]
        rounds = self.rounds if opponents else self.rounds // 2 + 1
        result = Result(case, *Bench(case, options.threads).measure(chosen, rounds, self.seconds, self.patience.wait))
        for opponent in OPPONENTS:
            fastest = result.fastest(opponent)
            if fastest is not None and not fastest.error:
                self.winners.setdefault(self._key(case, opponent), fastest.contender.variant)
        append(options.csv, csv_rows(result, self.about))
        return result

    def _key(self, case: Case, opponent: str) -> tuple[str, str, str, str]:
        return case.neuron, case.passes, case.dtype, opponent

    def _wanted(self, case: Case, contender: Contender, opponents: bool) -> bool:
        """Both variants of an opponent at the first size, the faster one at the others."""
        if contender.implementation not in OPPONENTS:
            return True
        if self.options.quick and contender.implementation == "compile" and contender.variant != "plain equations":
            return False  # compiling takes most of the time
        winner = self.winners.get(self._key(case, contender.implementation))
        return opponents and winner in (None, contender.variant)

    def scaling(self) -> tuple[list[Result], list[Result]]:
        """Time per element of the backends over T at constant elements, and over N at constant T."""
        if self.options.no_scaling:
            return [], []
        elements, steps = self.options.elements[0], self.options.time_steps[0]
        first = Case("lif", "train", self.options.dtype[0], steps, 1, self.options.device)
        over_t = [replace(first, steps=t, neurons=elements // t) for t in T_SCALING if t <= elements]
        over_n = [replace(first, neurons=n) for n in N_SCALING]
        return self._all(over_t), self._all(over_n)

    def _all(self, cases: Iterable[Case]) -> list[Result]:
        cases = list(cases)
        pairs = [(neuron, passes) for neuron in self.options.neuron for passes in ("train", "forward")]
        return [self.measure(replace(c, neuron=n, passes=p), opponents=False) for n, p in pairs for c in cases]


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
        memory if on_cpu else "CUDA events around each call, the second-level cache flushed before it",
    ]

    cases = [
        Case(neuron, passes, dtype, steps, elements // steps, options.device)
        for dtype in options.dtype
        for steps in options.time_steps
        # Every dtype at one size: the rest would be compiling, mostly.
        for elements in (options.elements if dtype == options.dtype[0] else options.elements[:1])
        for neuron in options.neuron
        for passes in ("train", "forward")
    ]
    results = []
    progress = Console(stderr=True)
    for i, case in enumerate(cases):
        progress.print(f"{i + 1}/{len(cases)} {case.neuron} {case.passes} {case.dtype} [{case.steps}, {case.neurons}]")
        results.append(run.measure(case))
    if not options.no_scaling:
        progress.print("time per element over T and N")
    over_t, over_n = run.scaling()
    others = max(r.others for r in (*results, *over_t, *over_n))
    facts.append(f"other programs used up to {others:.1f} cores; distrust cases with a note on that")
    draw(options.plot, results, over_t, over_n, f"{run.about}; torch {torch.__version__}")

    tables = [("Throughput; opponents: ms, and how many times faster stdano is", HEADER, table(results))]
    if options.device == "cpu":
        tables.append(("Marks: float32, T = 4, on 2 cores", MARK_HEADER, marks(results)))
    for title, header, lines in tables:
        if options.markdown:
            print(f"\n{title}\n\n{markdown(header, lines)}")
            continue
        rich_table = Table(*header, title=title)
        for line in lines:
            rich_table.add_row(*line)
        console.print(rich_table)
    print("\n" + "\n".join([*facts, *_flatness(over_t, over_n)]))
    print(f"rows: {options.csv}\nplot: {options.plot}\n{time.monotonic() - begin:.0f} s")
    return 0


def _flatness(over_t: list[Result], over_n: list[Result]) -> list[str]:
    """The largest over the smallest time per element, T from 1 to 64 and N from 64,000 (below, a call's cost shows)."""
    lines = []
    for name, results in (("T", over_t), ("N >= 64,000", [r for r in over_n if r.case.neurons >= 64_000])):
        for neuron, passes in dict.fromkeys((r.case.neuron, r.case.passes) for r in results):
            chosen = [r for r in results if (r.case.neuron, r.case.passes) == (neuron, passes) and not r.disturbed]
            if len(chosen) < 2:
                lines.append(f"time per element over {name}, {neuron} {passes}: open (machine busy)")
                continue
            times = [min(t.median for t in r.backends) / r.case.elements * 1e9 for r in chosen]
            lines.append(
                f"time per element over {name}, {neuron} {passes}: {min(times):.2f} to {max(times):.2f} ns "
                f"({max(times) / min(times):.2f} times)"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())

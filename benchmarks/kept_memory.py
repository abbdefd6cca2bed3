"""What malloc costs: train steps with freed memory kept (stdano.keep_freed_memory) and as glibc has it.

    python benchmarks/kept_memory.py                # a minute or two
    python benchmarks/kept_memory.py --case lif vgg-small --rounds 15 --markdown

Two processes, one for each way, make the same steps in turn, so that whatever else the machine does meets both. The
table has medians, their ratio, and page faults a step. LIF: forward and backward of the function alone, T = 4 and 2.1 M
elements; networks: forward, backward and a step of SGD on 32 x 32 pixels, T = 4. CPU and glibc only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from _options import positive
from _report import machine, markdown
from _timing import page_faults

import stdano
from stdano.models import create_model
from stdano.training.loss import tet_loss
from stdano_kernels import lif

BATCHES = {"vgg-small": 64, "vgg11": 16, "resnet18": 16}
WARM_UP = 3
HEADER = ["train step", "kept, ms", "as it is, ms", "as it is / kept", "faults kept", "faults as it is"]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train steps with freed memory kept and not.", allow_abbrev=False)
    add = parser.add_argument
    cases = ("lif", *BATCHES)
    add("--case", nargs="+", choices=cases, default=["lif", "vgg-small", "vgg11"], help="default: %(default)s")
    add("--rounds", type=positive, default=9, help="steps of each that are timed; default: %(default)s")
    add("--threads", type=positive, default=torch.get_num_threads(), help="default: %(default)s")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--worker", choices=("kept", "default"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def train_step(case: str) -> Callable[[], object]:
    """The work of one case."""
    torch.manual_seed(0)
    if case == "lif":
        x, grad = torch.randn(4, 2**19).requires_grad_(), torch.randn(4, 2**19)

        def step() -> None:
            x.grad = None
            lif(x).backward(grad)

        return step
    images, labels = torch.randn(BATCHES[case], 3, 32, 32), torch.randint(0, 10, (BATCHES[case],))
    net = create_model(case, "LLIF", tau=1.1).to(memory_format=torch.channels_last)
    stdano.fuse(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        stdano.reset_net(net)
        tet_loss(net(images), labels).backward()
        optimiser.step()

    return step


def work(options: argparse.Namespace) -> None:
    """The process of one way: makes a step of the case that a line names, answers with seconds and page faults."""
    if options.worker == "kept" and not stdano.keep_freed_memory():
        sys.exit("stdano.keep_freed_memory() does nothing here: this is not glibc")
    torch.set_num_threads(options.threads)
    steps: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in steps:
            steps = {case: train_step(case)}  # one at a time, or they would share what is kept
            for _ in range(WARM_UP):
                steps[case]()
        faults, begin = page_faults(), time.perf_counter()
        steps[case]()
        print(time.perf_counter() - begin, page_faults() - faults, flush=True)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if options.worker:
        work(options)
        return 0
    command = [sys.executable, __file__, "--threads", str(options.threads), "--worker"]
    ways = {
        way: subprocess.Popen([*command, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for way in ("kept", "default")
    }
    lines = []
    for case in options.case:
        results: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, process in ways.items():
                assert process.stdin is not None and process.stdout is not None
                print(case, file=process.stdin, flush=True)
                seconds, faults = map(float, process.stdout.readline().split())
                results[way].append((seconds, faults))
        (kept, few), (default, many) = ([median(values) for values in zip(*results[way], strict=True)] for way in ways)
        times = [f"{1e3 * kept:.1f}", f"{1e3 * default:.1f}", f"{default / kept:.2f}"]
        lines.append([case, *times, f"{few:.0f}", f"{many:.0f}"])
        print(f"{case} done", file=sys.stderr)
    for process in ways.values():
        process.communicate()
    print(f"{machine('cpu', options.threads)}, torch {torch.__version__}\n")
    rows = ["".join(f"{cell:>17}" for cell in row) for row in (HEADER, *lines)]
    print(markdown(HEADER, lines) if options.markdown else "\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

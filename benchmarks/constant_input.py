"""Constant input against its copies: BatchNorm and neuron, and the neuron alone, on what one step is expanded to.

    python benchmarks/constant_input.py                 # a minute
    python benchmarks/constant_input.py --batch 8 --threads 1 --channels-last --markdown

Both begin with the step [B, C, H, W] and end with its gradient, in turn in one process. The copies are made in the
step's layout, as networks that know nothing of constant input have them; "made before" leaves them out, both ways.
Freed memory is kept, of any size (glibc). CPU only.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Sequence
from statistics import median

import torch
from _options import positive
from _report import machine, markdown
from torch import Tensor

import stdano
from stdano_kernels import bn_neuron
from stdano_kernels.functional import FUNCTIONS

NEURONS = ("lif", "llif", "slif")
WAYS = ("copies", "made before", "constant")
HEADER = ["what", "copies, ms", "made before, ms", "constant, ms", "copies / constant", "made before / constant"]
NO_MMAP = -4  # M_MMAP_MAX of mallopt: no tensor is mapped anew


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Constant input against its copies.", allow_abbrev=False)
    add = parser.add_argument
    add("--neuron", nargs="+", choices=NEURONS, default=NEURONS, help="default: all three")
    add("--T", type=positive, default=4, help="steps; default: %(default)s")
    add("--batch", type=positive, default=32, help="images of 64 channels and 32 x 32; default: %(default)s")
    add("--rounds", type=positive, default=11, help="calls of each that are timed; default: %(default)s")
    add("--threads", type=positive, default=torch.get_num_threads(), help="default: %(default)s")
    add("--channels-last", action="store_true", help="the step's layout")
    add("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args(argv)


class Case:
    """BatchNorm and a neuron (``normalised``), or the neuron alone, forward, or also back (``training``)."""

    def __init__(self, neuron: str, normalised: bool, training: bool, step: Tensor, T: int) -> None:
        self.neuron, self.normalised, self.training, self.step, self.T = neuron, normalised, training, step, T
        channels = step.shape[1]
        self.weight, self.bias = (t.requires_grad_(training) for t in (torch.rand(channels), torch.randn(channels)))
        self.running = (torch.zeros(channels), torch.ones(channels))
        self.copies = step.expand(T, *step.shape).clone()
        self.grad = torch.randn_like(self.copies)

    @property
    def name(self) -> str:
        what = f"BatchNorm and {self.neuron}" if self.normalised else self.neuron
        return f"{what}, {'train step' if self.training else 'forward'}"

    def time(self, way: str) -> float:
        """Milliseconds of a call."""
        start = (self.copies if way == "made before" else self.step).detach().requires_grad_(self.training)
        before = time.perf_counter()
        with torch.set_grad_enabled(self.training):
            x = start if way == "made before" else start.expand(self.T, *start.shape)
            x = x.clone() if way == "copies" else x
            if self.normalised:
                y = bn_neuron(self.neuron, x, *self.running, self.weight, self.bias, training=True)
            else:
                y = FUNCTIONS[self.neuron](x)
        if self.training:
            leaves = (start, self.weight, self.bias) if self.normalised else (start,)
            torch.autograd.grad(y, leaves, self.grad)
        return 1e3 * (time.perf_counter() - before)


def measured(case: Case, rounds: int) -> list[str]:
    """A row of the table: medians, and of ratios the medians over the rounds."""
    for way in WAYS:
        case.time(way)
    times = [{way: case.time(way) for way in WAYS} for _ in range(rounds)]
    ratios = [median(t[way] / t["constant"] for t in times) for way in WAYS[:2]]
    return [case.name, *(f"{median(t[way] for t in times):.1f}" for way in WAYS), *(f"{r:.2f}" for r in ratios)]


def main(argv: list[str] | None = None) -> None:
    given = arguments(argv)
    torch.set_num_threads(given.threads)
    if stdano.keep_freed_memory():
        ctypes.CDLL(None).mallopt(NO_MMAP, 0)
    torch.manual_seed(0)
    step = torch.randn(given.batch, 64, 32, 32)
    if given.channels_last:
        step = step.contiguous(memory_format=torch.channels_last)
    rows: list[Sequence[str]] = []
    for normalised in (True, False):
        for neuron in given.neuron:
            for training in (False, True):
                rows.append(measured(Case(neuron, normalised, training, step, given.T), given.rounds))
    print(f"{machine('cpu', given.threads)}; T = {given.T}, step {list(step.shape)}, float32")
    if given.markdown:
        print(markdown(HEADER, rows))
        return
    for row in (HEADER, *rows):
        print(f"{row[0]:34}" + "".join(f"{cell:>24}" for cell in row[1:]))


if __name__ == "__main__":
    main()

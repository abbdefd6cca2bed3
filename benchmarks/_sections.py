"""The sections of the benchmark: which cases each has, and the run that measures them one by one."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import replace

from _composed import bn_case, composed_contenders, super_case
from _contenders import OPPONENTS, Contender, contenders
from _marks import TINY
from _own import own_case, own_contenders
from _report import Result, append, csv_rows, machine
from _timing import Bench, Case, Patience
from _vgg import vgg_case, vgg_peaks

SECTIONS = ("neurons", "own_neuron", "super_neuron", "batch_norm", "memory")
PASSES = ("train", "forward")
T_SCALING = (1, 2, 4, 8, 16, 32, 64)
N_SCALING = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 2_000_000, 4_000_000)


def neuron_cases(options: argparse.Namespace) -> list[Case]:
    return [
        Case(neuron, passes, dtype, (steps, elements // steps), options.device)
        for dtype in options.dtype
        for steps in options.time_steps
        # Every dtype at one size: the rest would be compiling, mostly.
        for elements in (options.elements if dtype == options.dtype[0] else options.elements[:1])
        for neuron in options.neuron
        for passes in PASSES
    ]


def own_cases(options: argparse.Namespace) -> list[Case]:
    """A neuron that is declared in the benchmark; in the first dtype and at the first size and T alone."""
    steps = options.time_steps[0]
    shape = (steps, options.elements[0] // steps)
    return [own_case(passes, options.dtype[0], shape, options.device) for passes in PASSES]


def composed_cases(options: argparse.Namespace, section: str) -> list[Case]:
    """The super neuron of all three neurons, or BatchNorm in front of each; in the first dtype alone."""
    last = options.dtype[0], tuple(options.shape), options.device
    if section == "super_neuron":
        return [super_case(passes, *last) for passes in PASSES]
    # Quick: one neuron stands for all, as compiling takes most of the time.
    neurons = options.neuron[:1] if options.quick else options.neuron
    tiny = bn_case(neurons[0], "train", options.dtype[0], TINY, options.device)
    return [*(bn_case(neuron, passes, *last) for neuron in neurons for passes in PASSES), tiny]


def memory_cases(options: argparse.Namespace) -> list[Case]:
    return [vgg_case("llif", options.dtype[0], 4, options.batch, options.device)]


class Run:
    """Measures cases, remembers which of two variants was faster, and writes rows as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.about = machine(options.device, options.threads)
        self.patience = Patience(options.patience)
        self.winners: dict[tuple[str, str, str, str], str] = {}
        self.rounds, self.seconds = (3, 0.05) if options.quick else (5, 0.1)

    def measure(self, case: Case, opponents: bool = True) -> Result:
        """One case; of what is composed of neurons the peak memory of a train step too."""
        options, composed = self.options, bool(case.leaves)
        compiled = opponents and not options.no_compile
        spikingjelly = opponents and not options.no_spikingjelly
        if composed:
            chosen = composed_contenders(case, compiled)
        elif case.neuron == "own_alif":
            chosen = own_contenders(case, compiled, spikingjelly)
        else:
            chosen = contenders(case.neuron, case.device, case.passes == "train", compiled, spikingjelly)
        chosen = [c for c in chosen if self._wanted(case, c, opponents)]
        rounds = self.rounds if opponents else self.rounds // 2 + 1
        bench = Bench(case, options.threads)
        memory = composed and case.passes == "train"
        result = Result(case, *bench.measure(chosen, rounds, self.seconds, self.patience.wait, memory))
        for opponent in OPPONENTS:
            fastest = result.fastest(opponent)
            if fastest is not None and not fastest.error:
                self.winners.setdefault(self._key(case, opponent), fastest.contender.variant)
        return self._write(result)

    def peaks(self, case: Case) -> Result:
        """The memory of a network's train step, which is not timed."""
        return self._write(Result(case, math.nan, vgg_peaks(case)))

    def _write(self, result: Result) -> Result:
        append(self.options.csv, csv_rows(result, self.about))
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
        if self.options.no_scaling or "neurons" not in self.options.section:
            return [], []
        elements, steps = self.options.elements[0], self.options.time_steps[0]
        first = Case("lif", "train", self.options.dtype[0], (steps, 1), self.options.device)
        over_t = [replace(first, shape=(t, elements // t)) for t in T_SCALING if t <= elements]
        over_n = [replace(first, shape=(steps, n)) for n in N_SCALING]
        return self._all(over_t), self._all(over_n)

    def _all(self, cases: Iterable[Case]) -> list[Result]:
        cases = list(cases)
        pairs = [(neuron, passes) for neuron in self.options.neuron for passes in ("train", "forward")]
        return [self.measure(replace(c, neuron=n, passes=p), opponents=False) for n, p in pairs for c in cases]


def flatness(over_t: list[Result], over_n: list[Result]) -> list[str]:
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

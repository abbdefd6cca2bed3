"""How it is timed: one case at a time, all contenders in turn, several short rounds, medians over all of them."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from _contenders import Contender, Function
from _memory import peak_bytes
from torch.utils.benchmark import Timer

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Tensor sizes that one element moves: x read, s written; and in the backward pass x and gs read, gx written.
TRANSFERS = {"forward": 2, "train": 5}
COPY_TRANSFERS = 2  # a copy reads and writes
BUSY = 0.1  # cores used by others from which a time is not to be trusted
HEAD_START = 4_000_000  # cycles of a GPU, two milliseconds or so
FLUSH = 1 << 28  # bytes, more than any second-level cache


@dataclass(frozen=True)
class Case:
    """What is computed: a function's forward without grad or its train step, on ``x`` and further leaf tensors."""

    neuron: str  # lif, llif, slif; super; bn_lif, bn_llif, bn_slif
    passes: str  # "forward" or "train"
    dtype: str  # of x; the leaves are float32 (float64 with float64), as parameters are
    shape: tuple[int, ...]  # of x: [T, N] or [T, B, C, H, W]
    device: str = "cpu"
    leaves: tuple[tuple[int, float], ...] = ()  # length and value of each; train steps take their gradients

    @property
    def steps(self) -> int:
        return self.shape[0]

    @property
    def neurons(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * bytes_per_element(self.passes, self.dtype)

    @property
    def size(self) -> str:
        """N, or the shape where there is more to it."""
        return f"{self.neurons:,}" if len(self.shape) == 2 else "x".join(map(str, self.shape))


def parameter_dtype(dtype: str) -> torch.dtype:
    """Of weights and statistics beside x."""
    return torch.float64 if dtype == "float64" else torch.float32


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median and interquartile range; page faults a call; or why there is no time."""

    contender: Contender
    median: float
    iqr: float
    page_faults: float
    error: str = ""
    peak: int | None = None  # bytes, see Bench.extra_bytes; None where it was not asked for
    host: float | None = None  # seconds in which the host gives a GPU the work of a call; None on a CPU


def bytes_per_element(passes: str, dtype: str) -> int:
    """The bytes that an element cannot avoid moving: 8 forward and 20 in a train step in float32."""
    return TRANSFERS[passes] * DTYPES[dtype].itemsize


def copy_seconds(passes: str, one_copy: float) -> float:
    """The time of copies that move the same bytes as a pass, from that of one copy of x."""
    return one_copy * TRANSFERS[passes] / COPY_TRANSFERS


def ratio_to_copy(seconds: float, passes: str, one_copy: float) -> float:
    """How many times longer a pass takes than a copy of the same bytes."""
    return seconds / copy_seconds(passes, one_copy)


def spread(times: list[float]) -> tuple[float, float]:
    """Median and interquartile range."""
    if len(times) < 2:
        return times[0], 0.0
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, high - low


def seconds_of(step: Callable[[], object], device: str) -> float:
    """The time of one step of a network, which is long enough for a clock of the host."""
    begin = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def why(error: Exception) -> str:
    """The kind of an error and the beginning of its message, for a table."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:100]}"


class OtherWork:
    """The processor time that others took since it was made: their work makes every time here unreliable.

    With threads that wait for each other a few per cent of foreign work move a median, and a busy core multiplies it.
    """

    def __init__(self) -> None:
        self.begin = self._now()

    def cores(self) -> float:
        """Cores that others kept busy on average; 0 where the system does not tell."""
        wall, own, all_work = (b - a for a, b in zip(self.begin, self._now(), strict=True))
        return max(0.0, (all_work - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        used = os.times()
        own = used.user + used.system + used.children_user + used.children_system
        stat = Path("/proc/stat")
        if not stat.exists():
            return time.monotonic(), own, own
        user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split()[1:9])
        busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), own, busy


class Patience:
    """Waits while others work, for so many seconds in all; then no more."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def wait(self) -> None:
        while self.left > 0:
            begin, others = time.monotonic(), OtherWork()
            time.sleep(0.3)
            if others.cores() < BUSY:
                return
            time.sleep(1)
            self.left -= time.monotonic() - begin


class Bench:
    """The buffers of one case, and the timing of contenders on them."""

    def __init__(self, case: Case, threads: int) -> None:
        generator = torch.Generator().manual_seed(0)
        x, grad = (torch.randn(case.shape, generator=generator).to(case.device, DTYPES[case.dtype]) for _ in range(2))
        dtype = parameter_dtype(case.dtype)
        leaves = [torch.full((n,), value, dtype=dtype, device=case.device) for n, value in case.leaves]
        self.case, self.threads = case, threads
        self.inputs = [t.requires_grad_(case.passes == "train") for t in (x, *leaves)]
        self.grad, self.out = grad, torch.empty_like(grad)

    def step(self, function: Function) -> Callable[[], None]:
        """The timed work: forward without grad, or forward and backward with a fixed dense gradient."""
        inputs, grad = self.inputs, self.grad

        def forward() -> None:
            with torch.no_grad():
                function(*inputs)

        def train() -> None:
            for tensor in inputs:
                tensor.grad = None
            function(*inputs).backward(grad)

        return train if self.case.passes == "train" else forward

    def copy(self) -> None:
        self.out.copy_(self.grad)

    def extra_bytes(self, step: Callable[[], None]) -> int:
        """The peak memory of a train step beyond its inputs (x, leaves, the gradient of the result) and the gradients
        that it is there to make. So the result, what is kept for the backward pass, and temporary tensors."""
        self._drop_gradients()
        peak = peak_bytes(step, self.case.device)
        return peak - sum(t.grad.nbytes for t in self.inputs if t.grad is not None)

    def _drop_gradients(self) -> None:
        for tensor in self.inputs:
            tensor.grad = None

    def measure(
        self,
        contenders: list[Contender],
        rounds: int,
        seconds: float,
        wait: Callable[[], None] = lambda: None,
        memory: bool = False,
    ) -> tuple[float, list[Timing], float]:
        """Seconds of one copy of x, the timings of all contenders, ``rounds`` times ``seconds`` for each, and the
        cores that others kept busy meanwhile. ``wait`` is called before each round. ``memory``: peaks too."""
        torch.compiler.reset()  # beyond 8 graphs of one function torch.compile silently runs it in eager mode
        steps, errors = {}, {}
        for contender in contenders:
            try:
                steps[contender] = self.step(contender.build())
                for _ in range(3):  # compiles, grows the heap, fills caches
                    steps[contender]()
            except Exception as error:  # whatever it is, the table shows it and the others go on
                steps.pop(contender, None)
                errors[contender] = f"{contender.implementation} failed: {why(error)}"
        self.copy()
        times: dict[Contender | None, list[float]] = {contender: [] for contender in (None, *steps)}
        faults, calls, busy = dict.fromkeys(times, 0), dict.fromkeys(times, 0), []
        hosts: dict[Contender | None, list[float]] = {contender: [] for contender in times}
        for i in range(rounds):
            wait()
            others = OtherWork()
            for contender in times:
                if i > 1 and sum(times[contender]) > rounds * seconds:
                    continue  # a slow one has its share of the time and several calls
                work = self.copy if contender is None else steps[contender]
                before = page_faults()
                measured, count, host = self._times(work, seconds)
                hosts[contender] += host
                faults[contender] += page_faults() - before
                calls[contender] += count
                times[contender] += measured
            busy.append(others.cores())
        peaks = {c: self.extra_bytes(step) for c, step in steps.items()} if memory else {}
        self._drop_gradients()
        gc.collect()
        if self.case.device != "cpu":
            torch.cuda.empty_cache()
        nan = float("nan")
        timings = [
            Timing(c, nan, nan, nan, errors[c]) if c in errors else Timing(c, *spread(times[c]), faults[c] / calls[c])
            for c in contenders
        ]
        timings = [
            replace(t, peak=peaks.get(t.contender), host=statistics.median(host) if host else None)
            for t, host in ((t, hosts.get(t.contender)) for t in timings)
        ]
        return spread(times[None])[0], timings, max(busy)

    def _times(self, work: Callable[[], None], seconds: float) -> tuple[list[float], int, list[float]]:
        """Seconds a call, several times, the number of calls, and the host's seconds where a device does the work."""
        if self.case.device != "cpu":
            measured, host = device_times(work, seconds, self.case.device)
            return measured, len(measured), host
        timer = Timer("work()", globals={"work": work}, num_threads=self.threads)
        found = timer.blocked_autorange(min_run_time=seconds)
        return found.times, found.number_per_run * len(found.times), []


def device_times(work: Callable[[], None], seconds: float, device: str) -> tuple[list[float], list[float]]:
    """Seconds that the device needs for each call, and seconds in which the host has given it the work.

    As in a training, the device is busy while the host prepares the call, which therefore counts only where it takes
    longer than that: otherwise a small call's time would be the host's. Every call finds the second-level cache empty.
    """
    flushed = torch.empty(FLUSH // 4, dtype=torch.int32, device=device)
    device_seconds, host_seconds = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(device_seconds) < 3:
        begin, behind = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()
        torch.cuda._sleep(HEAD_START)
        begin.record()
        called = time.perf_counter()
        work()
        host_seconds.append(time.perf_counter() - called)
        behind.record()
        torch.cuda.synchronize(device)
        device_seconds.append(begin.elapsed_time(behind) / 1000)
    return device_seconds, host_seconds


def page_faults() -> int:
    """Of this process so far."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

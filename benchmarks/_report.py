"""What comes of the timings: rows of a CSV, and tables on the screen or in Markdown."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from _contenders import OPPONENTS, spikingjelly_version
from _memory import MIB
from _timing import BUSY, Case, Timing, ratio_to_copy

import stdano_kernels
from stdano.memory import MMAP_LIMIT

COLUMNS = [
    "date",
    "machine",
    "stdano",
    "torch",
    "python",
    "spikingjelly",
    "device",
    "neuron",
    "pass",
    "implementation",
    "dtype",
    "T",
    "N",
    "elements",
    "median_us",
    "iqr_us",
    "elements_per_s",
    "gbytes_per_s",
    "ratio_to_copy",
    "note",
]
FAULTS_WORTH_A_NOTE = 100  # a call; 100 cost about 25 microseconds


@dataclass(frozen=True)
class Result:
    """One case: the time of one copy of x, and every contender's timing."""

    case: Case
    one_copy: float
    timings: list[Timing]
    others: float = 0.0  # cores that other programs kept busy

    @property
    def backends(self) -> list[Timing]:
        return [t for t in self.timings if t.contender.implementation not in OPPONENTS]

    def fastest(self, implementation: str) -> Timing | None:
        """The faster variant of an implementation; where none worked, the one that says why."""
        timings = [t for t in self.timings if t.contender.implementation == implementation]
        return min(timings, key=lambda t: math.inf if t.error else t.median, default=None)

    def speed_up(self, opponent: str, backend: Timing | None = None) -> float | None:
        """How many times faster a backend (default: the fastest) is than an opponent."""
        other = self.fastest(opponent)
        mine = backend or min(self.backends, key=lambda t: math.inf if t.error else t.median)
        return None if other is None or other.error or mine.error else other.median / mine.median

    def peak(self, implementation: str) -> int | None:
        """The lowest peak memory of an implementation's variants."""
        timings = [t for t in self.timings if t.contender.implementation == implementation]
        return min((t.peak for t in timings if t.peak is not None), default=None)

    @property
    def disturbed(self) -> bool:
        return self.others > BUSY

    def verdict(self, reached: bool) -> str:
        """A time taken beside other work proves nothing: waiting threads flatter whoever is launched least often."""
        return "open (machine busy)" if self.disturbed else "yes" if reached else "no"

    def note(self, timing: Timing) -> str:
        parts = [timing.contender.variant, timing.error]
        if timing.page_faults > FAULTS_WORTH_A_NOTE:
            parts.append(f"{timing.page_faults:.0f} page faults a call")
        if (
            self.case.device == "cpu"
            and self.case.elements * torch.empty(0, dtype=getattr(torch, self.case.dtype)).itemsize > MMAP_LIMIT
        ):
            parts.append("tensors above 32 MB")
        if timing.host is not None:
            parts.append(f"host {timing.host * 1e3:.2f} ms")
        if self.disturbed:
            parts.append(f"others used {self.others:.1f} cores")
        return "; ".join(filter(None, parts))


def machine(device: str, threads: int) -> str:
    """The processor (and the GPU), its cores and the threads in use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].strip() if names else name
    text = f"{name}, {os.cpu_count()} cores, {threads} threads"
    return f"{torch.cuda.get_device_name(device)}, {text}" if device.startswith("cuda") else text


def origin_of_rows(about: str) -> dict[str, str]:
    """The first columns of every CSV: when, where and by which versions its rows came about."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": about,
        "stdano": stdano_kernels.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "spikingjelly": spikingjelly_version(),
    }


def csv_rows(result: Result, about: str) -> list[dict[str, str]]:
    """One row a contender; numbers are empty where it failed or was not timed."""
    case, origin, rows = result.case, origin_of_rows(about), []
    for timing in result.timings:
        peak = "" if timing.peak is None else f"peak extra memory {timing.peak} bytes"
        row = origin | {
            "device": case.device,
            "neuron": case.neuron,
            "pass": case.passes,
            "implementation": timing.contender.implementation,
            "dtype": case.dtype,
            "T": str(case.steps),
            "N": str(case.neurons),
            "elements": str(case.elements),
            "note": "; ".join(filter(None, (result.note(timing), peak))),
        }
        if not math.isnan(timing.median):
            row |= {
                "median_us": f"{timing.median * 1e6:.3f}",
                "iqr_us": f"{timing.iqr * 1e6:.3f}",
                "elements_per_s": f"{case.elements / timing.median:.6g}",
                "gbytes_per_s": f"{case.bytes / timing.median / 1e9:.4g}",
                "ratio_to_copy": f"{ratio_to_copy(timing.median, case.passes, result.one_copy):.4g}",
            }
        rows.append(row)
    return rows


def shower(as_markdown: bool) -> Callable[[str, Sequence[str], list[list[str]]], None]:
    """What prints a table with its title: as Markdown, or by rich, without which the program ends and says so."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        sys.exit(f"{error.name} is missing: pip install 'stdano[app]'")
    console = Console(width=None if sys.stdout.isatty() else 150)

    def show(title: str, header: Sequence[str], lines: list[list[str]]) -> None:
        if as_markdown:
            print(f"\n{title}\n\n{markdown(header, lines)}", flush=True)
            return
        rich_table = Table(*header, title=title)
        for line in lines:
            rich_table.add_row(*line)
        console.print(rich_table)

    return show


def check_header(path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Raises ValueError where the file exists with other columns than these."""
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
        if header != list(columns):
            raise ValueError(f"{path} has other columns than this benchmark writes; give another file with --csv")


def append(path: Path, rows: list[dict[str, str]], columns: Sequence[str] = COLUMNS) -> None:
    """Appends rows in one write, with the header first where the file is new."""
    check_header(path, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if not path.exists() or not path.stat().st_size:
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", newline="") as file:
        file.write(text.getvalue())


TITLES = {"eager": "eager", "compile": "compile", "spikingjelly": "SpikingJelly", "unfused": "unfused"}
TITLES["shipped_lif"] = "stdano's LIF"
COLUMNS_BEFORE = ["neuron", "pass", "backend", "dtype", "T", "N", "ms", "±IQR", "Gelem/s", "GB/s", "x copy", "of copy"]


def header(opponents: Sequence[str]) -> list[str]:
    """Of :func:`table`."""
    return [*COLUMNS_BEFORE, *(TITLES[o] for o in opponents), "note"]


def table(results: Sequence[Result], opponents: Sequence[str]) -> list[list[str]]:
    """One line a case and backend; opponents as their time in ms and how many times faster the backend is."""
    lines = []
    for result in results:
        for timing in result.backends:
            case = result.case
            line = [case.neuron.upper(), case.passes, timing.contender.implementation, case.dtype, str(case.steps)]
            line.append(case.size)
            notes = [result.note(timing)]
            if timing.error:
                line += [""] * 6
            else:
                line += [
                    f"{timing.median * 1e3:.3f}",
                    f"{timing.iqr * 1e3:.3f}",
                    f"{case.elements / timing.median / 1e9:.2f}",
                    f"{case.bytes / timing.median / 1e9:.1f}",
                    f"{ratio_to_copy(timing.median, case.passes, result.one_copy):.2f}",
                    f"{1 / ratio_to_copy(timing.median, case.passes, result.one_copy):.0%}",
                ]
            for opponent in opponents:
                other = result.fastest(opponent)
                times = result.speed_up(opponent, timing)
                if other is None:
                    line.append("")
                elif other.error:
                    line.append("failed")
                    notes.append(other.error)
                else:
                    line.append(f"{other.median * 1e3:.2f}" + (f" ({times:.1f}x)" if times else ""))
            lines.append([*line, "; ".join(filter(None, notes))])
    return lines


MEMORY_HEADER = ["train step", "backend", "dtype", "shape", "MiB", "unfused", "eager", "compile", "note"]


def memory_table(results: Sequence[Result]) -> list[list[str]]:
    """Peak extra memory, one line a case and backend; opponents as theirs and how many times more that is."""
    lines = []
    for result in results:
        for timing in result.backends:
            case, mine = result.case, timing.peak
            line = [case.neuron.upper(), timing.contender.implementation, case.dtype, case.size]
            line.append("" if mine is None else f"{mine / MIB:.1f}")
            for opponent in ("unfused", "eager", "compile"):
                other = result.peak(opponent)
                times = f" ({other / mine:.2f}x)" if other is not None and mine else ""
                line.append("" if other is None else f"{other / MIB:.1f}{times}")
            lines.append([*line, timing.error])
    return lines


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))

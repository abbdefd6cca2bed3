"""What the GPU kernels look like after compilation: a static estimate, nothing is run, no GPU is needed.

    python benchmarks/gpu_static_report.py                       # table of the main kernels, for an RTX 3090
    python benchmarks/gpu_static_report.py --all                 # limits of all kernels, all architectures: minutes
    python benchmarks/gpu_static_report.py --markdown > docs/gpu_static_estimate.md

Registers, local and shared memory come from ptxas; instructions are counted in the machine code. Bytes an element are
what a kernel has to move (read x, write s; backward: read x and the gradient of s, write that of x). The roofline share
is the part of the memory bandwidth that the kernel could reach if every other instruction issued without a stall:
the time for its bytes over the larger of this and the time to issue its instructions. Instructions are those of one
pass through the kernel's time loop with all its optional branches, so the share is a lower bound of that estimate.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from _gpu_code import ARCHITECTURES, Code, cuda_code
from _triton_code import triton_channel_code, triton_code

import stdano_kernels

# GeForce RTX 3090: 82 multiprocessors with 4 schedulers of 32 lanes at 1.695 GHz, 936 GB/s.
INSTRUCTIONS_PER_SECOND = 82 * 4 * 32 * 1.695e9
BYTES_PER_SECOND = 936e9
HEADER = [
    "backend",
    "kernel",
    "dtype",
    "registers",
    "occupancy",
    "local",
    "shared",
    "widest access",
    "bytes/element",
    "instructions/element",
    "roofline share",
]


def occupancy(registers: int, threads: int, shared: int) -> float:
    """The share of an sm_86 multiprocessor's 48 warps that fit: by registers, blocks (16) and shared memory."""
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256  # allocated in units of 256, from four partitions of 16384
    blocks = min(16, 48 // warps, 16384 // per_warp * 4 // warps, 102400 // -(-(shared + 1024) // 128 * 128))
    return blocks * warps / 48


def bytes_per_element(code: Code) -> int:
    return code.itemsize * (2 if code.forward else 3)


def row(code: Code) -> list[str]:
    """A line of the table."""
    moved = bytes_per_element(code)
    instructions = code.instructions_per_element
    memory, issue = moved / BYTES_PER_SECOND, instructions / INSTRUCTIONS_PER_SECOND
    return [
        code.backend,
        f"{code.neuron} {'forward' if code.forward else 'backward'}{code.note}",
        code.dtype,
        str(code.registers),
        f"{occupancy(code.registers, code.threads, code.shared):.0%}",
        str(code.local),
        str(code.shared),
        f"{code.widest_access} bit",
        str(moved),
        f"{instructions:.0f}",
        f"{memory / max(memory, issue):.0%}",
    ]


def markdown(header: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def text(header: list[str], lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in (header, *lines))


@dataclass
class Limits:
    """The largest numbers among the kernels of one kind."""

    kernels: int = 0
    registers: int = 0
    local: int = 0
    shared: int = 0
    barriers: int = 0

    def add(self, code: Code) -> None:
        self.kernels += 1
        for name in ("registers", "local", "shared", "barriers"):
            setattr(self, name, max(getattr(self, name), getattr(code, name)))


def limits(codes: Iterator[Code]) -> list[list[str]]:
    """Per backend, architecture and kind of kernel: how many there are, and their largest numbers."""
    found: dict[tuple[str, int, str], Limits] = defaultdict(Limits)
    for code in codes:
        found[code.backend, code.architecture, code.kind].add(code)
    return [
        [backend, f"sm_{architecture}", kind, *(str(getattr(v, n)) for n in vars(v))]
        for (backend, architecture, kind), v in sorted(found.items())
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A static estimate of the GPU kernels.", allow_abbrev=False)
    parser.add_argument("--all", action="store_true", help="the limits of all kernels on all architectures")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    options = parser.parse_args(argv)
    shape = markdown if options.markdown else text
    versions = f"torch {torch.__version__}, stdano {stdano_kernels.__version__}"
    print("# Static estimate of the GPU kernels\n")
    print(
        "**A static estimate, no GPU measurement.** Counted in the compiled code for sm_86 and set against an\n"
        "RTX 3090's data sheet (936 GB/s, 82 multiprocessors at 1.695 GHz); occupancy by registers and shared memory.\n"
        "Instructions include all optional branches of a pass through the time loop, so they are an upper bound.\n"
    )
    lines = [row(code) for code in (*cuda_code(86, main=True), *triton_code(86, main=True))]
    print(shape(HEADER, lines))
    if options.all:
        print("\n## Largest numbers over all kernels\n")
        sources = (cuda_code, triton_code, triton_channel_code)
        codes = (c for a in ARCHITECTURES for source in sources for c in source(a, main=False))
        header = ["backend", "architecture", "kind", "kernels", "registers", "local", "shared", "barriers"]
        print(shape(header, limits(codes)))
    command = "python benchmarks/gpu_static_report.py" + (" --all" if options.all else "")
    print(f"\nMade by `{command}{' --markdown' if options.markdown else ''}`; {versions}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

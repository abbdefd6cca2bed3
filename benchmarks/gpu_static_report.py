"""What the GPU kernels look like after compilation: a static estimate, nothing is run, no GPU is needed.

    python benchmarks/gpu_static_report.py             # the kernels of the paper's neurons, and those around channels
    python benchmarks/gpu_static_report.py --markdown > docs/gpu_static_estimate.md
    python benchmarks/gpu_static_report.py --all       # every CUDA kernel that the library has

Registers and spills come from ptxas; instructions are counted in the machine code, along the way that a plain call
takes through a kernel's loop over time (T = 4: through all of the kernel). The time for a million elements is the
longer one of what it takes to move their bytes and to issue their instructions at the data sheet's rates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import NamedTuple

import torch
from _gpu_code import MOVED, SUPER_NEURON, Code, built, cuda_code
from _triton_code import triton_channel_code, triton_code

import stdano_kernels


class Device(NamedTuple):
    name: str
    architecture: int
    bandwidth: float  # bytes a second
    multiprocessors: int  # each issues four instructions of 32 threads at a time
    clock: float

    def estimate(self, code: Code) -> str:
        """Microseconds for a million elements, and what they go for."""
        memory = code.bytes_per_element / self.bandwidth
        issue = code.instructions_per_element / (self.multiprocessors * 4 * 32 * self.clock)
        return f"{1e12 * max(memory, issue):.1f} {'memory' if memory >= issue else 'instructions'}"


# Data sheets: GeForce RTX 3090; A100 SXM with 80 GB, of whose code that for sm_86 is taken to be; H100 SXM.
DEVICES = (
    Device("RTX 3090", 86, 936e9, 82, 1.695e9),
    Device("A100", 86, 2039e9, 108, 1.41e9),
    Device("H100", 90, 3350e9, 132, 1.98e9),
)
ABOUT = """\
**A static estimate, no GPU measurement.** Of two numbers the first is that of the code for sm_86, the second for sm_90.
The last columns estimate the microseconds for a million elements, and say what bounds them, by data sheets: RTX 3090
(936 GB/s, 82 multiprocessors, 1.695 GHz), A100 SXM with 80 GB (2039 GB/s, 108, 1.41 GHz; by the code for sm_86), H100
SXM (3350 GB/s, 132, 1.98 GHz). A multiprocessor issues an instruction for four times 32 threads at every clock, and
nothing ever waits for memory or for a result. Of a plain call's instructions these are an upper bound.

*general*: kernels that serve every call, here one whose constants are numbers; *half*: float16 and bfloat16. A super
neuron's backward with T > 8 also goes forward once more, for states.
"""
COLUMNS = ["kernel", "T", "dtype", "registers", "spilled", "x's access", "bytes/element", "instructions/element"]


def name(code: Code) -> str:
    words = [code.backend, code.neuron if code.kind in ("forward", "backward") else "", code.kind]
    return " ".join(filter(None, words)) + (f", {code.setting}" if code.setting else "")


def row(codes: dict[int, Code]) -> list[str]:
    """A line of the table: a kernel for each architecture."""
    first = next(iter(codes.values()))

    def both(numbers: Iterable[object]) -> str:
        return " / ".join(dict.fromkeys(map(str, numbers)))

    return [
        name(first),
        first.length.removeprefix("T = "),
        first.dtype,
        both(c.usage.registers for c in codes.values()),
        both(c.usage.local for c in codes.values()),
        both(f"{c.x_bits} bit" for c in codes.values()),
        str(first.bytes_per_element),
        both(f"{c.instructions_per_element:.0f}" for c in codes.values()),
        *(d.estimate(codes[d.architecture]) for d in DEVICES if d.architecture in codes),
    ]


def text(lines: list[list[str]], markdown: bool) -> str:
    if markdown:
        rule = ["---"] * len(lines[0])
        return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def kernels(architecture: int, every: bool) -> list[Code]:
    paper = ("LIF", "LLIF", "SLIF", SUPER_NEURON, "")
    cuda = [c for c in cuda_code(architecture) if c.kind in MOVED and c.dtype != "float64"]
    if every:
        return cuda
    cuda = [c for c in cuda if c.neuron in paper and c.setting in ("", "general")]
    half = triton_code(architecture, lengths=(16,), dtypes=(torch.float16,))
    return [*cuda, *triton_code(architecture), *half, *triton_channel_code(architecture)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A static estimate of the GPU kernels.", allow_abbrev=False)
    parser.add_argument("--all", action="store_true", help="every CUDA kernel of the library")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    options = parser.parse_args(argv)
    architectures = [a for a in (86, 90) if a in built()]
    if not architectures:
        raise SystemExit("build the CUDA kernels with TORCH_CUDA_ARCH_LIST='8.6;9.0'")
    order = {kind: k for k, kind in enumerate(MOVED)}
    found: dict[tuple, dict[int, Code]] = {}
    for architecture in architectures:
        for code in kernels(architecture, options.all):
            length = (len(code.length), code.length)
            key = (code.backend, order[code.kind], code.neuron, code.setting, code.dtype, length)
            found.setdefault(key, {})[architecture] = code
    command = " ".join(["python benchmarks/gpu_static_report.py", *(argv if argv is not None else sys.argv[1:])])
    print("# Static estimate of the GPU kernels\n")
    print(f"Made by `{command}`; torch {torch.__version__}, stdano {stdano_kernels.__version__}.\n")
    print(ABOUT)
    lines = [row(codes) for _, codes in sorted(found.items())]
    print(
        text(
            [[*COLUMNS, *(f"{d.name}: µs" for d in DEVICES if d.architecture in architectures)], *lines],
            options.markdown,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The compiled CUDA kernels and what stands in their machine code, and that of Triton's; nothing is run.

Needs cuobjdump and ptxas, which Triton brings along.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import triton

import stdano_kernels

ARCHITECTURES = (80, 86, 89, 90, 120)
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
STEPS = 8  # that a backward kernel's loop takes at a time
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass
class Code:
    """One compiled kernel."""

    backend: str
    neuron: str
    kind: str  # forward or backward, with sums, and affine; encode and the like; sums, soft spikes, float64
    dtype: str
    architecture: int
    threads: int
    registers: int
    local: int  # bytes of stack and local memory a thread; 0: nothing is spilled
    shared: int
    opcodes: list[tuple[int, str, int | None]] = field(repr=False)  # address, opcode, target of a branch
    main: bool = False  # what a plain call runs
    aligned: bool = False
    steps: int = STEPS  # that one pass through a backward kernel's loop takes
    length: str = ""  # of the sequences that it serves, where not all

    @property
    def forward(self) -> bool:
        return self.kind == "forward"

    @property
    def note(self) -> str:
        learnable = ", learnable constants" if self.kind == "backward with sums" else ""
        return learnable + (f", {self.length}" if self.length else "")

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    @property
    def barriers(self) -> int:
        return sum(name.startswith("BAR") for _, name, _ in self.opcodes)

    @property
    def widest_access(self) -> int:
        return max(_bits(name) for _, name, _ in self.opcodes if name.startswith(("LDG", "STG")))

    @property
    def instructions_per_element(self) -> float:
        """Instructions of one pass through the time loop (the largest that loads and stores) for each element."""
        loops = [
            [name for at, name, _ in self.opcodes if target <= at <= address]
            for address, _, target in self.opcodes
            if target is not None and target < address
        ]
        loops = [names for names in loops if _count(names, "LDG") and _count(names, "STG")]
        names = max(loops, key=len) if loops else [name for _, name, _ in self.opcodes]
        loaded = sum(_bits(name) // 8 for name in names if name.startswith("LDG"))
        return len(names) / (loaded / self.itemsize if self.forward else self.steps)


def _count(names: list[str], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in names)


def _bits(opcode: str) -> int:
    match = re.search(r"\.[US]?(128|64|16|8)\b", opcode)
    return int(match[1]) if match else 32


def _tool(name: str, *arguments: str | Path) -> str:
    return subprocess.run([_TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def read(path: Path, *options: str) -> Iterator[tuple[str, dict[str, int], list]]:
    """(mangled name, usage, opcodes) of every kernel in a cubin, or with ``-arch`` in a shared object."""
    usage: dict[str, dict[str, int]] = {}
    function = ""
    for line in _tool("cuobjdump", "-res-usage", *options, path).splitlines():
        if match := re.search(r"Function (\S+):", line):
            function = match[1]
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            names = ("registers", "stack", "shared", "local")
            usage[function] = dict(zip(names, map(int, match.groups()), strict=True))
    opcodes: dict[str, list] = {}
    for line in _tool("cuobjdump", "-sass", *options, path).splitlines():
        if match := re.search(r"Function : (\S+)", line):
            function = match[1]
        elif match := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?\s*([A-Z][A-Z0-9_.]*)(.*)", line):
            target = re.search(r"\b0x([0-9a-f]+)", match[3].split("/*")[0]) if match[2].startswith("BRA") else None
            if match[2] != "NOP":
                entry = (int(match[1], 16), match[2], int(target[1], 16) if target else None)
                opcodes.setdefault(function, []).append(entry)
    for function, numbers in usage.items():
        yield function, numbers, opcodes[function]


# Kernels around neurons, and the others.
_MANGLED = re.compile(
    r"(\w+_kernel)INS0_\d([LS]*IF)I([fd])Lb([01])EEE(NS0_\d[a-z0-9]+E|[fd])[fd](?:Li(\d)E)?(?:LNS0_4KindE(\d)E)?"
    r"(?:LNS_9SurrogateE(\d)E)?"
)
_MANGLED_CHANNELS = re.compile(r"cuda\d+([a-z_]+)_kernelI(NS0_\d[a-z0-9]+E|[fd])([fd])(?:Li(\d)E)?E")


@cache
def _library() -> Path:
    files = sorted(Path(stdano_kernels.__file__).parent.glob("_C_cuda.*so"))
    if not files:
        raise SystemExit(f"the CUDA kernels are not built: {stdano_kernels.backends()['cuda'].reason}")
    return files[-1]


def cuda_code(architecture: int, main: bool) -> Iterator[Code]:
    """The kernels of the CUDA extension that such a device runs: compiled for it or for an older one of the same major
    version, else assembled from the PTX."""
    built = [int(a) // 10 for a in torch.ops.stdano.cuda_build().split("; ")[1].split(",")]
    code = max((a for a in built if a // 10 == architecture // 10 and a <= architecture), default=None)
    for name, usage, opcodes in read(_library(), "-arch", f"sm_{code}") if code else _assembled(architecture):
        code = _cuda_kernel(architecture, name, usage, opcodes)
        if code.main or not main:
            yield code


def _assembled(architecture: int) -> Iterator:
    texts = _tool("cuobjdump", "-ptx", _library()).split("\n.version")[1:]
    with tempfile.TemporaryDirectory() as folder:
        for i, text in enumerate(texts):
            ptx, cubin = Path(folder) / f"{i}.ptx", Path(folder) / f"{i}.cubin"
            ptx.write_text(".version" + text.split("\nFatbin")[0])
            ptxas = "ptxas-blackwell" if architecture >= 100 and (_TOOLS / "ptxas-blackwell").exists() else "ptxas"
            _tool(ptxas, f"-arch=sm_{architecture}", "-O3", ptx, "-o", cubin)
            yield from read(cubin)


def _cuda_kernel(architecture: int, name: str, usage: dict, opcodes: list) -> Code:
    neuron, real, main, threads, width = "", "", False, 128, None
    if match := _MANGLED.search(name):
        kernel, neuron, real, soft_reset, scalar, width, kind, surrogate = match.groups()
        label = "backward with sums" if "summing_backward_kernel" in kernel else "backward"
        if "forward_kernel" in kernel:
            label, threads = "forward", 256
        label = {"2": "soft spikes", "3": f"{label} and affine"}.get(kind, label)
        usual_reset = (soft_reset == "1") == (neuron == "SLIF")
        plain = kind in (None, "0") if label == "forward" else label in ("backward", "backward with sums")
        main = plain and usual_reset and (width != "1") and surrogate in (None, "0") and real != "d"
    elif match := _MANGLED_CHANNELS.search(name):
        kernel, scalar, real, width = match.groups()
        label, threads = kernel.replace("_", " "), 128 if kernel == "super_backward" else 256
    else:
        assert "sums_kernel" in name, name
        label, scalar, threads = "sums", "", 512
    dtype = {"f": "float32", "d": "float64"}.get(scalar) or re.sub(r"^NS0_\d+|E$", "", scalar) or "float32"
    return Code(
        "cuda",
        neuron,
        "float64" if real == "d" else label,
        dtype,
        architecture,
        threads,
        usage["registers"],
        usage["stack"] + usage["local"],
        usage["shared"],
        opcodes,
        main,
        width not in (None, "1"),
    )

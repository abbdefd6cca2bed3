"""The compiled GPU kernels and what stands in their machine code: both backends, nothing is run.

Needs cuobjdump and ptxas, which Triton brings along.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import stdano_kernels
from stdano_kernels import SURROGATES
from stdano_kernels.registration import NEURONS
from stdano_kernels.triton import channel_ops, launch, ops

ARCHITECTURES = (80, 86, 89, 90, 120)
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
STEPS = 8  # that a backward kernel's loop takes at a time
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.uint8: "*u8",
}


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

    @property
    def forward(self) -> bool:
        return self.kind == "forward"

    @property
    def note(self) -> str:
        return ", learnable constants" if self.kind == "backward with sums" else ""

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
        return len(names) / (loaded / self.itemsize if self.forward else STEPS)


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


class _Recorder:
    """Stands for a Triton kernel: keeps the arguments of a launch instead of launching it."""

    def __init__(self, kernel: Any, calls: list) -> None:
        self.kernel, self.calls = kernel, calls

    def __getitem__(self, grid: tuple) -> Callable:
        return lambda **arguments: self.calls.append((self.kernel, arguments))


CHANNEL_KERNELS = (
    "channel_sums",
    "channel_affine",
    "super_neuron_encode",
    "super_neuron_decode",
    "super_neuron_sums",
    "super_neuron_backward",
)


@contextmanager
def _recorded() -> Iterator[list]:
    calls: list = []
    before = ops._FORWARD_KERNELS, ops._BACKWARD_KERNELS, launch.sum_partials
    others = {name: getattr(channel_ops, name) for name in CHANNEL_KERNELS}
    ops._FORWARD_KERNELS, ops._BACKWARD_KERNELS = (
        {name: _Recorder(kernel, calls) for name, kernel in kernels.items()} for kernels in before[:2]
    )
    launch.sum_partials = _Recorder(before[2], calls)
    for name, kernel in others.items():
        setattr(channel_ops, name, _Recorder(kernel, calls))
    try:
        yield calls
    finally:
        ops._FORWARD_KERNELS, ops._BACKWARD_KERNELS, launch.sum_partials = before
        for name, kernel in others.items():
            setattr(channel_ops, name, kernel)


def recorded_calls(
    neuron: str,
    dtype: torch.dtype,
    surrogate: int,
    soft_reset: bool,
    sums: bool,
    offset: int,
    affine: Tensor | None = None,
) -> list:
    """The launches of a train step on a small tensor of four channels."""
    x = torch.zeros(9 * 64 + offset, dtype=dtype)[offset:].view(9, 2, 4, 8)
    tau = torch.ones(4) if sums else None
    settings = (1.7, 0.9, None if soft_reset else 0.0, 0.1, 1.05, False, False, surrogate, 1.0, False, False, False)
    with _recorded() as calls:
        *_, checkpoints = ops.forward(neuron, x, None, None, tau, tau, affine, *settings, True, False, False)
        ops.backward(neuron, x, None, None, None, x, None, None, checkpoints, tau, tau, affine, *settings)
    return calls


def recorded_channel_calls(dtype: torch.dtype, surrogate: int, soft_reset: bool, neurons: int, offset: int) -> list:
    """The launches of all passes around channels, but for the second stages of sums."""
    x = torch.zeros(9 * 64 + offset, dtype=dtype)[offset:].view(9, 2, 4, 8)
    resets = (None, 0.1) if soft_reset else (0.0, None)
    settings = (neurons, 1.7, 0.9, *resets, 0.1, 0.1, 1.05, False, False, surrogate, 1.0, False, False)
    with _recorded() as calls:
        codes, _ = channel_ops.encode(x, *settings)
        channel_ops.decode(codes, torch.ones(4, 4), x)
        channel_ops.sums_of_codes(codes, x)
        channel_ops.backward(x, x, codes, torch.ones(9, 4), *settings)
        channel_ops.sums_of_channels(x)
        channel_ops.affine_of_channels(x, x, torch.ones(3, 4))
    return [call for call in calls if call[0].__name__ in CHANNEL_KERNELS]


def _compile(kernel: Any, arguments: dict[str, Any], architecture: int) -> Any:
    constexpr = {n for n, p in inspect.signature(kernel.fn).parameters.items() if p.annotation is tl.constexpr}
    signature, constants = {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if name in constexpr or value is None:
            signature[name], constants[(i,)] = "constexpr", value
        else:
            signature[name] = (
                _TYPES[value.dtype] if isinstance(value, Tensor) else "i32" if isinstance(value, int) else "fp32"
            )
    options = {k: v for k, v in arguments.items() if k not in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options), options


def triton_code(architecture: int, main: bool) -> Iterator[Code]:
    """The Triton kernels: of plain calls (``main``), or with every surrogate, reset, alignment, and with sums."""
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for neuron in NEURONS:
        usual = neuron == "slif"
        for dtype in dtypes:
            variants = [(0, usual, False, 0), (0, usual, True, 0)]
            if not main:
                variants += [(s, r, False, 0) for s in range(len(SURROGATES)) for r in (False, True)]
                variants += [(0, not usual, True, 0), (0, usual, False, 1)]
            seen = set()
            for surrogate, soft_reset, sums, offset in variants:
                for kernel, arguments in recorded_calls(neuron, dtype, surrogate, soft_reset, sums, offset):
                    name = kernel.__name__
                    kind = "sums" if "sum" in name else "forward" if "forward" in name else "backward"
                    kind += " with sums" if kind == "backward" and sums else ""
                    key = (kind, soft_reset, offset, surrogate if "backward" in kind else 0)
                    if key in seen or (main and (kind == "sums" or (kind == "forward" and sums))):
                        continue
                    seen.add(key)
                    yield triton_kernel(neuron, kind, dtype, architecture, kernel, arguments, offset == 0)


def triton_channel_code(architecture: int, main: bool) -> Iterator[Code]:
    """The Triton kernels around channels, and the neurons' with an affine input."""
    variants = [(torch.float32, 0, False, 7, 0)]
    if not main:
        variants += [(torch.bfloat16, 0, False, 7, 0)]
        variants += [(torch.float32, s, s % 2 == 0, 7, s % 3) for s in range(1, len(SURROGATES))]
        variants += [(torch.float16, 0, soft_reset, n, 0) for n in (1, 2, 4) for soft_reset in (False, True)]
    seen = set()
    for dtype, surrogate, soft_reset, neurons, offset in variants:
        for kernel, arguments in recorded_channel_calls(dtype, surrogate, soft_reset, neurons, offset):
            options = (neurons, soft_reset) if "encode" in kernel.__name__ else ()
            options = (neurons, soft_reset, surrogate) if "backward" in kernel.__name__ else options
            key = (kernel.__name__, dtype, arguments.get("VECTOR"), options)
            if key not in seen:
                seen.add(key)
                yield triton_kernel("", kernel.__name__, dtype, architecture, kernel, arguments, False)
        if neurons != 7 or surrogate > 1:
            continue
        for neuron in NEURONS:
            calls = recorded_calls(neuron, dtype, surrogate, soft_reset, not main, offset, torch.ones(3, 4))
            for kernel, arguments in calls:
                if kernel is not launch.sum_partials:
                    kind = "forward and affine" if "forward" in kernel.__name__ else "backward with sums and affine"
                    yield triton_kernel(neuron, kind, dtype, architecture, kernel, arguments, False)


def triton_kernel(
    neuron: str, kind: str, dtype: torch.dtype, architecture: int, kernel: Any, arguments: dict, aligned: bool
) -> Code:
    compiled, options = _compile(kernel, arguments, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        ((_, usage, opcodes),) = read(Path(file.name))
    return Code(
        "triton",
        neuron.upper(),
        kind,
        str(dtype).removeprefix("torch."),
        architecture,
        32 * options["num_warps"],
        usage["registers"],
        usage["stack"] + usage["local"],
        compiled.metadata.shared,
        opcodes,
        aligned=aligned,
    )

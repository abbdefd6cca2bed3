"""The compiled CUDA kernels and what stands in their machine code; nothing is run.

A kernel is looked at as a plain call runs it: constants are numbers, no state is given or wanted, no BatchNorm stands
in front, time is the outermost dimension in memory, the surrogate is the triangle.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path

import torch
from _sass import Arguments, Instruction, Usage, Ways, read

import stdano_kernels
from stdano_kernels.define.cuda import DeviceSource, sizes
from stdano_kernels.define.shipped import device_plans
from stdano_kernels.neurons import NEURONS

# half: float16 and bfloat16, which share their kernels.
ITEMSIZE = {"float32": 4, "half": 2, "float16": 2, "bfloat16": 2, "float64": 8, "uint8": 1}
# Numbers of x's dtype, and of bytes for codes, that a kernel moves for an element.
MOVED = {
    "forward": (2, 0),
    "backward": (3, 0),
    "encode": (1, 1),
    "decode": (1, 1),
    "count": (0, 1),
    "super sums": (1, 1),
    "super backward": (3, 1),
    "channel sums": (1, 0),
    "channel affine": (3, 0),
}
SUPER_NEURON = "LIF+LLIF+SLIF"
ROOT = Path(__file__).parent.parent


@dataclass
class Code:
    """One compiled kernel."""

    backend: str
    kind: str  # a key of MOVED; "sums" is the second stage of all sums
    neuron: str
    setting: str  # its reset and options; "general": for every call, not for plain ones alone
    dtype: str
    length: str  # of the sequences that it serves
    architecture: int
    threads: int  # of a block
    usage: Usage
    code: list[Instruction] = field(repr=False)
    first: int = 0
    arguments: Arguments = field(default=lambda at: None, repr=False)

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    @property
    def bytes_per_element(self) -> int:
        numbers, codes = MOVED[self.kind]
        return numbers * self.itemsize + codes

    @property
    def barriers(self) -> int:
        return sum(i.name.startswith("BAR") for i in self.code)

    @cached_property
    def way(self) -> list[Instruction]:
        """The kernel as a plain call of four time steps runs it, or of others once through its loop over time. The
        count of spikes empties its bytes every 255 of them alone."""
        ways = Ways(self.code, self.first, self.arguments, shorter=self.kind == "count")
        return ways.whole() if self.length == "T = 4" else ways.one_pass(last=self.kind == "super backward")

    @property
    def _accesses(self) -> list[int]:
        """The bits of those from which elements can be counted: a neuron's backward also loads states, for example."""
        stores = self.kind in ("backward", "super backward", "channel affine", "decode")
        return [i.bits for i in self.way if i.name.startswith("STG" if stores else "LDG")]

    @property
    def x_bits(self) -> int:
        """Of an access to x, or to what is like it."""
        return max(self._accesses)

    @property
    def instructions_per_element(self) -> float:
        codes = {"count": 1, "super sums": 1}.get(self.kind, 0)
        size = (0 if self.kind == "count" else self.itemsize) + codes
        return len(self.way) / (sum(self._accesses) / 8 / size)


@cache
def library() -> Path:
    files = sorted(Path(stdano_kernels.__file__).parent.glob("_C_cuda.*so"))
    if not files:
        raise SystemExit(f"the CUDA kernels are not built: {stdano_kernels.backends()['cuda'].reason}")
    return files[-1]


def built() -> list[int]:
    """The architectures that the library has machine code for."""
    return [int(a) // 10 for a in torch.ops.stdano.cuda_build().split("; ")[1].split(",")]


def cuda_code(architecture: int, wanted: str = "", instructions: bool = True) -> Iterator[Code]:
    """The kernels of the CUDA extension that such a device runs, which are compiled for it or for an older one of the
    same major version: those in whose mangled names the expression ``wanted`` is found."""
    fitting = [a for a in built() if a // 10 == architecture // 10 and a <= architecture]
    if not fitting:
        raise SystemExit(f"the CUDA kernels are built for {built()}, not for {architecture}")
    for name, usage, code in read(library(), "-arch", f"sm_{max(fitting)}", wanted=wanted, instructions=instructions):
        yield _kernel(architecture, name, usage, code)


def _kernel(architecture: int, name: str, usage: Usage, code: list[Instruction]) -> Code:
    """From the mangled name. A neuron's kernel has its structs of stdano_kernels/define/cuda.py in it, and both kinds
    the type of x, the real type, and a number: of neighbours, or of steps backward."""
    kind = re.search(r"\d([a-z_]+)_kernel", name)[1].replace("_", " ")
    types = re.search(r"(?:(Half|AnyFloat)E|[fd])([fd])Li(\d)E", name)
    scalar, real, number = types.groups("") if types else ("", "", "")
    dtype = {"d": "float64", "": "uint8"}.get(real) or ("half" if scalar == "Half" else "float32")
    neuron, setting, length = "", "", "any T"
    threads = {"backward": 128, "sums": 512}.get(kind, 256)
    if kind in ("forward", "backward"):
        struct = re.search(rf"\d([A-Za-z]+_{'step' if kind == 'forward' else 'adjoint'}\d)", name)[1]
        neuron = "+".join(dict.fromkeys(re.findall(r"\d([A-Za-z]+)_step\d", name)))
        setting = _settings()[struct]
        if kind == "backward":
            length = {"4": "T = 4", "8": "T = 8, 16, ..", "0": "any T"}[number]
        if neuron == SUPER_NEURON:
            kind = {"forward": "encode", "backward": "super backward"}[kind]
    if scalar == "AnyFloat" or real == "d":
        setting = ", ".join(filter(None, (setting, "general")))
    first = 0x160 if architecture < 90 else 0x210 if architecture < 100 else 0x380
    arguments = partial(_argument, kind)
    return Code("cuda", kind, neuron, setting, dtype, length, architecture, threads, usage, code, first, arguments)


@cache
def _argument(kind: str, place: int) -> int | None:
    """What a plain call gives to a kernel: of a pointer that is not null each half is 1."""
    at = _places()
    if kind in ("decode", "channel affine", "super sums", "channel sums", "count", "sums"):
        pointers = {"decode": 2, "channel affine": 3}.get(kind, 0)
        return 0 if place == 8 * pointers + at["dtype"] else None  # float32
    given = at[{"forward": "spikes", "backward": "grad_x"}.get(kind, "coded.codes")]
    return None if place == at["steps"] else 1 if given <= place < given + 8 else 0


@cache
def _settings() -> dict[str, str]:
    """By the name of a struct, the first setting that it is for: nothing where that is the neuron's own."""
    found: dict[str, str] = {}
    for name in NEURONS:
        plans = device_plans(name)
        own = plans[0].step.variant.reset
        for plan, structs in zip(plans, DeviceSource(plans).types, strict=True):
            reset, options = plan.step.variant.reset, plan.step.variant.options
            setting = ", ".join([f"{reset} reset"] * (reset != own) + [option for option, on in options if on])
            found |= {struct: found.get(struct, setting) for struct in structs}
    return found


@cache
def _places() -> dict[str, int]:
    """Where in a kernel's arguments something lies, which a C++ compiler says."""
    members = {
        "steps": "Forward",
        "dtype": "Forward",
        "coded.codes": "Forward",
        "spikes": "Forward",
        "grad_x": "Backward",
    }
    of = [f'std::printf("%zu ", offsetof({of}Arguments<float>, {name}));' for name, of in members.items()]
    source = "#define STDANO_LAUNCH(...)\n#define STDANO_ISA host\n#include <cstdio>\n#include <cstddef>\n"
    source += f'#include "cuda/arguments.h"\nusing namespace stdano::host;\nint main() {{ {"".join(of)} }}\n'
    every = {name: device_plans(name) for name in NEURONS}
    with tempfile.TemporaryDirectory() as folder:
        together = [every[name.lower()][0] for name in SUPER_NEURON.split("+")]
        (Path(folder) / "device_sizes.h").write_text(sizes([p for plans in every.values() for p in plans], together))
        include = [f"-I{f}" for f in (folder, ROOT / "csrc", ROOT / "stdano_kernels" / "include")]
        program = f"{folder}/places"
        compiler = ["c++", "-w", "-std=c++17", *include, "-x", "c++", "-", "-o", program]
        subprocess.run(compiler, input=source, text=True, check=True)
        numbers = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(members, map(int, numbers), strict=True))

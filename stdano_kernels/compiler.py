"""CPU kernels that are compiled at their first use: printed to C++, compiled once, and found on disk from then on."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .define.cpp import kernel_name, namespace_source
from .define.neuron import Neuron
from .define.trace import Variant
from .spec import _lock, planned

INCLUDE = Path(__file__).parent / "include"
# As setup.py compiles what is shipped; see there for the reasons.
FLAGS = ["-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# float64 and soft spikes serve checks, for which a fast compiler counts more.
FAST, QUICK = ["-O3"], ["-O2", "-ftree-vectorize"]
LEVELS: dict[str, list[str]] = {
    "generic": [],
    "x86-64-v3": ["-mavx2", "-mfma", "-mbmi", "-mbmi2"],
    "x86-64-v4": ["-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mbmi"]
    + ["-mbmi2"],
}


class CannotCompile(RuntimeError):
    """Why a kernel cannot be had, in the words of whatever refused."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: STDANO_CACHE, else a folder of the user's own."""
    if os.environ.get("STDANO_CACHE"):
        return Path(os.environ["STDANO_CACHE"])
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        home = Path(tempfile.gettempdir()) / f"stdano-{os.getuid()}"
    return home / "stdano"


@cache
def _compiler() -> tuple[list[str], str]:
    """The command of the C++ compiler, and its version."""
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [["c++"], ["g++"], ["clang++"]]:
        found = shutil.which(command[0])
        if found is not None:
            command = [found, *command[1:]]
            return command, subprocess.run([*command, "--version"], capture_output=True, text=True).stdout
    raise CannotCompile(
        f"no C++ compiler was found ({' '.join(asked) or 'c++, g++, clang++'}); install g++, or set CXX"
    )


@cache
def _headers() -> str:
    return "".join((INCLUDE / name).read_text() for name in ("neuron_math.h", "rows.h"))


@cache
def name_of(neuron: type[Neuron], variant: Variant) -> str:
    """The name under which the kernels of a neuron are known."""
    with _lock:
        return kernel_name(planned(neuron, variant))


_errors: dict[tuple[Any, ...], str] = {}
# Kernels that were asked for before, by neuron and kind of call; for functional.py.
ready: dict[tuple[Any, ...], tuple[str, str | None]] = {}


def use_level(level: str) -> str:
    """Takes the CPU kernels of another instruction set ("generic", "x86-64-v3", ...) from now on, for checks; its
    name."""
    ready.clear()
    return torch.ops.stdano.cpu_capability(level)


def ensure(neuron: type[Neuron], variant: Variant, is_double: bool) -> str | None:
    """Sees to it that the CPU has a neuron's kernels; the reason where it cannot be."""
    name = name_of(neuron, variant)  # type: ignore[arg-type]
    with torch._C._DisableTorchDispatch():
        if torch.ops.stdano.has_kernel(name, is_double):
            return None
        level = torch.ops.stdano.cpu_capability()
        with _lock:
            key = (name, is_double, level)
            if key in _errors:
                return _errors[key]
            try:
                library = ctypes.CDLL(str(_built(neuron, variant, name, is_double, level)))
                library.stdano_neuron.restype = ctypes.c_void_p
                torch.ops.stdano.add_kernels(library.stdano_neuron())
            except (CannotCompile, OSError) as error:
                _errors[key] = str(error)
                return _errors[key]
    return None


def not_on_device(name: str, is_double: bool) -> str | None:
    """Why the CUDA kernels do not serve a neuron; None where they do."""
    with torch._C._DisableTorchDispatch():
        if torch.ops.stdano.has_cuda_kernel(name, is_double):
            return None
    return (
        "the CUDA kernels are compiled for the usual settings, of which these are none; Triton compiles others at "
        'their first use: backend="triton", or "auto", which takes what there is'
    )


def _built(neuron: type[Neuron], variant: Variant, name: str, is_double: bool, level: str) -> Path:
    """The compiled library, from disk where it is there and whole."""
    text, entry = namespace_source(planned(neuron, variant), "own", floats=not is_double, doubles=is_double)
    source = (
        '#include "rows.h"\nnamespace stdano {\nnamespace generic {\n'
        f"{text}\nconst NeuronKernels neuron = {entry};\n"
        '}\n}\nextern "C" __attribute__((visibility("default"))) const void* stdano_neuron() {\n'
        "  return &stdano::generic::neuron;\n}\n"
    )
    compiler, version = _compiler()
    flags = [*(QUICK if is_double or variant.soft else FAST), *FLAGS, *LEVELS.get(level, [])]
    if "Free Software Foundation" in version:
        flags += ["-fno-thread-jumps", "-fvect-cost-model=dynamic"] + (
            ["-mprefer-vector-width=512"] if level == "x86-64-v4" else []
        )
    if level == "generic" and platform.machine() in ("x86_64", "AMD64"):
        flags.append("-DSTDANO_EMULATE_FMA")
    digest = hashlib.sha256("\0".join([source, _headers(), *compiler, version, *flags]).encode()).hexdigest()[:32]
    folder = cache_folder()
    file = folder / f"{neuron.__name__}-{digest}.so"
    if _is_whole(file):
        return file
    _make_private(folder)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        (Path(own) / "neuron.cpp").write_text(source)
        command = [*compiler, *flags, f"-I{INCLUDE}", "neuron.cpp", "-o", "neuron.so"]
        run = subprocess.run(command, cwd=own, capture_output=True, text=True)
        if run.returncode:
            raise CannotCompile(f"{' '.join(command)} failed:\n{run.stderr.strip()}")
        built = Path(own) / "neuron.so"
        built.write_bytes(built.read_bytes() + hashlib.sha256(built.read_bytes()).digest())
        os.replace(built, file)
    return file


def _make_private(folder: Path) -> None:
    """A folder that nobody else can write to: what lies in it is executed."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        raise CannotCompile(f"the folder for compiled kernels cannot be made ({error}); set STDANO_CACHE") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise CannotCompile(
            f"the folder for compiled kernels, {folder}, must be this user's alone (chmod go-w); or set STDANO_CACHE"
        )


def _is_whole(file: Path) -> bool:
    """Whether a library is there as it was written: its own hash stands at its end, where no loader looks."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return len(content) > 32 and hashlib.sha256(content[:-32]).digest() == content[-32:]

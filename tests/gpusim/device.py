"""What a process does that runs on the simulated device (``python tests/gpusim ...``).

At the first CUDA allocation or launch runtime.cpp imports this module. It looks up each launched kernel in the PTX of
the shared object that registered it and executes that, redirects torch's own operators (torch_fallback.py) and becomes
Triton's driver (triton_driver.py). A kernel that fails makes its launch return an error whose text says what went wrong
where; it is kept in ERRORS too, for host code that does not look.
"""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

from .ptx import LOG, Memory, Module, PTXError

__all__ = ["ERRORS", "LOG", "active", "memory"]

ERRORS = []
ARCH = int(os.environ.get("GPUSIM_ARCH", "86"))  # compute capability of the simulated device

_kernels = {}  # (path, name) -> Kernel
_library = ctypes.CDLL(None)


def active():
    """Whether this process runs on the simulated device."""
    return hasattr(_library, "gpusim_set_callback")


def memory():
    """The device allocations of the moment."""
    count = _library.gpusim_allocations(None, None, 0)
    pointers, sizes = (ctypes.c_void_p * count)(), (ctypes.c_size_t * count)()
    count = min(count, _library.gpusim_allocations(pointers, sizes, count))
    mem = Memory()
    for p, n in sorted(zip(pointers[:count], sizes[:count], strict=True)):
        if n:
            mem.add(p, np.ctypeslib.as_array((ctypes.c_uint8 * n).from_address(p)))
    return mem


def _cuobjdump():
    """Triton brings one along; a toolkit may lack it."""
    triton = importlib.util.find_spec("triton")
    if triton and triton.origin:
        bundled = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        if bundled.exists():
            return bundled
    found = shutil.which("cuobjdump")
    if found is None:
        raise PTXError("cuobjdump was not found; Triton and the CUDA toolkit bring it along")
    return found


@cache
def _modules(path):
    """The PTX texts in a shared object: the newest that the device could run first, then the oldest of the others."""
    output = subprocess.run([_cuobjdump(), "-ptx", path], capture_output=True, text=True, check=True).stdout
    texts = [".version" + text for text in output.split("\n.version")[1:]]
    targets = [int(re.search(r"\.target\s+sm_(\d+)", text)[1]) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (targets[i] > ARCH, abs(ARCH - targets[i])))
    return [Module(texts[i]) for i in order]


def _find_kernel(path, name):
    if (path, name) not in _kernels:
        if os.path.basename(path).startswith("libtorch"):
            raise PTXError(f"{name} is a kernel of torch itself, which has no PTX")
        module = next((module for module in _modules(path) if name in module.entries), None)
        if module is None:
            raise PTXError(f"{path} has no PTX for {name}: build it with +PTX in TORCH_CUDA_ARCH_LIST")
        _kernels[path, name] = module.kernel(name)
    return _kernels[path, name]


@ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    *[ctypes.c_uint] * 6,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_size_t,
)
def _launch(name, path, gx, gy, gz, bx, by, bz, args, shared):
    try:
        kernel = _find_kernel(path.decode(), name.decode())
        values = [ctypes.string_at(args[i], size) for i, (_, size, _) in enumerate(kernel.params.values())]
        kernel.run(memory(), (gx, gy, gz), (bx, by, bz), values, shared=shared)
        return 0
    except BaseException as e:
        ERRORS.append(e)
        _library.gpusim_set_message(f"{type(e).__name__}: {e}".encode())
        return 700  # cudaErrorIllegalAddress


if active():
    from . import torch_fallback

    _library.gpusim_set_callback(_launch)
    torch_fallback.install()
    if importlib.util.find_spec("triton"):
        from . import triton_driver

        triton_driver.install(ARCH, memory)

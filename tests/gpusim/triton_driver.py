"""Triton kernels on the simulated device: Triton's own JIT and its PTX, executed by gpusim.ptx.

Specialisation, heuristics and autotuning take their usual course (every configuration is timed at 1 ms). Compilation
goes on to a cubin, so that what ptxas finds shows up.
"""

from functools import partial
from pathlib import Path

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from .ptx import Module

_functions = {}  # handle -> (Module, kernel name)
_next_ptx = None


class _Utils:
    def get_device_properties(self, device):
        return {
            "max_shared_mem": 101376,
            "multiprocessor_count": 82,
            "warpSize": 32,
            "max_num_regs": 65536,
            "sm_clock_rate": 1695000,
            "mem_clock_rate": 9751000,
            "mem_bus_width": 384,
        }

    def load_binary(self, name, cubin, shared, device):
        """Module, function, registers, spills and the most threads a block may have."""
        handle = len(_functions) + 1
        _functions[handle] = (Module(_next_ptx), name)
        return handle, handle, 0, 0, 1024

    def unload_module(self, handle):
        pass


def _passed(types, arguments):
    """What the kernel is given, with its type: no constants, and the elements of a tuple in its place."""
    for t, a in zip(types, arguments, strict=True):
        if isinstance(t, tuple):
            yield from _passed(t, a)
        elif t != "constexpr":
            yield t, a


class _Launcher:
    def __init__(self, memory, src, metadata):
        self.memory = memory
        self.types = list(src.signature.values())
        self.num_warps = metadata.num_warps
        self.shared = metadata.shared

    def __call__(self, gx, gy, gz, stream, function, packed, metadata, enter, leave, *args):
        if 0 in (gx, gy, gz):
            return
        module, name = _functions[function]
        values = []
        for t, a in _passed(self.types, args):
            if isinstance(a, torch.Tensor):
                if not a.is_cuda:
                    raise ValueError("a tensor on the CPU was given to a Triton kernel")
                values.append(a.data_ptr())
            else:
                values.append(float(a) if str(t).startswith("fp") else a)
        kernel = module.kernel(name)
        # Triton appends scratch pointers to the parameters
        values += [0] * (len(kernel.params) - len(values))
        kernel.run(self.memory(), (gx, gy, gz), (self.num_warps * 32,), values, shared=self.shared)


class SimDriver(DriverBase):
    def __init__(self, arch, memory):
        self.arch = arch
        self.utils = _Utils()
        self.launcher_cls = partial(_Launcher, memory)

    def is_active(self):
        return True

    def map_python_to_cpp_type(self, ty):
        return ty

    def get_current_target(self):
        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self):
        return torch.device("cpu")

    def get_current_device(self):
        return 0

    def set_current_device(self, device):
        pass

    def get_current_stream(self, device=0):
        return 0

    def get_device_interface(self):
        return torch.cpu

    def get_benchmarker(self):
        def bench(fn, quantiles=None, **kwargs):
            fn()
            return [1.0] * len(quantiles or [1])

        return bench

    def get_empty_cache_for_benchmark(self):
        return torch.empty(1)

    def clear_cache(self, cache):
        pass


def _remember_ptx(module, function, name, metadata_group, hash):
    global _next_ptx
    path = next(p for n, p in metadata_group.items() if n.endswith(".ptx"))
    _next_ptx = Path(path).read_text()


def install(arch, memory):
    """Make the simulator Triton's device, of compute capability ``arch``; ``memory()`` gives its allocations."""
    if knobs.runtime.interpret:
        raise RuntimeError("unset TRITON_INTERPRET")
    knobs.runtime.kernel_load_start_hook = _remember_ptx
    triton.runtime.driver.set_active(SimDriver(arch, memory))

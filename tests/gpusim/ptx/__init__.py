"""Runs PTX on the CPU with numpy, and checks every memory access.

    module = Module(ptx_text)
    memory = Memory()
    x = memory.alloc(x_array, writable=False)  # the kernel works on the array itself
    y = memory.alloc(y_array, uninit=True)  # reading before writing is an error
    module.kernel("name").run(memory, grid=(4,), block=(256,), args=[x, y, n, 0.5])
    LOG[-1].bytes_loaded

Checked are bounds, natural alignment (of the whole vector access), read-only buffers, threads that store different
values to one address in one instruction, blocks that touch one address with at least one plain store
(``launches.CHECK_BLOCK_RACES``), warps that touch one byte of shared memory without a barrier in between
(``launches.CHECK_SHARED_RACES``), divergent barriers, shuffles from threads that do not take part, launch bounds,
device assertions. What is wrong raises a PTXError that names block and thread.

Undefined values (registers never written, shared and local memory before the first store) read as all-ones bits: NaN as
a float, -1 as an integer.
"""

from . import arithmetic, bits, conversion, data, warp  # noqa: F401, they register the opcodes
from .launches import LOG, Launch, PTXError
from .memory import Memory
from .module import Module

__all__ = ["LOG", "Launch", "Memory", "Module", "PTXError"]

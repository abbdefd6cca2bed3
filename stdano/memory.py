"""What malloc does with memory that is freed."""

from __future__ import annotations

import ctypes
import sys

MMAP_LIMIT = 32 * 2**20  # bytes; the largest threshold that glibc takes: larger tensors are mapped anew each time
_TRIM, _MMAP = -1, -3  # of mallopt, in malloc.h


def keep_freed_memory() -> bool:
    """Makes malloc keep what is freed for later tensors, in the whole process and until it ends.

    By default glibc gives memory back to the system, depending on what was freed before, and the next tensor of the
    same size then pays a page fault for every 4 KiB, which can take longer than what is computed. The process holds on
    to the most memory that it ever had at once. Call it before the first large tensor is made. Tensors of more than
    32 MiB are not affected.

    Returns:
        Whether it works here: True with glibc (Linux), False elsewhere, where nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return bool(mallopt(_MMAP, MMAP_LIMIT)) and bool(mallopt(_TRIM, 2**31 - 1))

"""What a launch is and what can go wrong in one; the limits within which launches are simulated."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

MAX_LANES = 1 << 15  # threads simulated at once; blocks of a larger grid run slice after slice
MAX_SHARED = 1 << 26  # bytes of simulated shared memory at once
MAX_STEPS = 20_000_000  # instructions per slice before a kernel counts as not terminating
CHECK_BLOCK_RACES = True
CHECK_SHARED_RACES = True


class PTXError(Exception):
    """The kernel did something wrong, or uses something that is not modelled."""


class AccessError(PTXError):
    """A bad memory access; `lane` is the index of a guilty lane among the active ones."""

    def __init__(self, message, lane=None):
        super().__init__(message)
        self.lane = lane


@dataclass
class Launch:
    """One executed launch. Bytes are those requested by threads, not DRAM traffic."""

    name: str
    grid: tuple
    block: tuple
    ops: Counter = field(default_factory=Counter)  # executed instructions, summed over threads
    bytes_loaded: int = 0  # global memory
    bytes_stored: int = 0
    bytes_atomic: int = 0

    @property
    def threads(self):
        return int(np.prod(self.grid) * np.prod(self.block))


LOG = []  # one Launch per completed launch, in order

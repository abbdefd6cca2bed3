"""Helpers of the simulator's own tests."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gpusim.ptx import Memory

FOLDER = Path(__file__).parent / "gpusim"


def raises(text, function, *arguments, **keywords):
    """The message of the error that a call raises, which holds the text."""
    with pytest.raises(Exception, match=re.escape(text)) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


def lif_reference(x, decay, threshold):
    """Spikes of v = v * decay + x, with hard reset to 0."""
    v = torch.zeros(x.shape[1:], dtype=torch.float32)
    out = []
    for t in range(x.shape[0]):
        v = v * decay + x[t].float()
        spike = v >= threshold
        out.append(spike.to(x.dtype))
        v = torch.where(spike, torch.zeros_like(v), v)
    return torch.stack(out)


def launch(module, name, arrays, scalars=(), grid=1, block=64, shared=0, uninit=False):
    mem = Memory()
    args = [mem.alloc(a, uninit=uninit and i > 0) for i, a in enumerate(arrays)] + list(scalars)
    return module.kernel(name).run(mem, (grid,), (block,), args, shared=shared)


def blocks(n, block=64):
    return -(-n // block)


def numbers(n, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal(n) * np.exp(rng.uniform(-3, 3, n))).astype(dtype)
    return np.where(a == 0, dtype(1), a)

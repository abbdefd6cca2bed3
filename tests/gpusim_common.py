"""Helpers of the simulator's own tests."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gpusim.ptx import Memory
from tolerances import FLOAT_SUM, REDUCTION

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


def assert_sum(actual, terms):
    """Of the first dimension, within a share of the sum of magnitudes that depends on the result's dtype."""
    terms = np.asarray(terms, np.float64)
    share = FLOAT_SUM if np.asarray(actual).dtype == np.float32 else REDUCTION[torch.float64].rtol
    assert (np.abs(actual - terms.sum(0)) <= share * np.abs(terms).sum(0)).all()

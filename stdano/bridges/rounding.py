"""For steps that round where another library's do."""

from __future__ import annotations

from typing import Any

from stdano_kernels.define import where

#: The smallest normal number of float32. Less it, an exact 0 alone changes its sign: ``spike(u - SMALLEST)`` is
#: ``u > 0`` for differences of potentials.
SMALLEST = 1.1754943508222875e-38


def rounded(product: Any) -> Any:
    """A product that is rounded before anything is added to it, as by two operations of PyTorch. By itself it would
    become a part of an fma, which rounds once."""
    return where(product < product, 0.0, product)  # never less; compilers leave the comparison out

"""Surrogate functions: what stands in for the derivative of the spike, and its primitive (soft spikes).

``u`` is the distance of the potential to the threshold, ``alpha`` the sharpness. Each primitive is an integral of
its derivative, 1/2 at ``u = 0``. All are finite at every ``u``, infinite ones included; NaN gives NaN.

================== ============================== ===========================================
name               derivative                     primitive (for ``u >= 0``; odd about 1/2)
================== ============================== ===========================================
``triangle``       max(0, alpha - alpha^2 |u|)    1/2 + z - z^2/2, z = min(alpha u, 1)
``rectangle``      alpha where |u| < 1/(2 alpha)  1/2 + min(alpha u, 1/2)
``sigmoid``        alpha g (1 - g), g the value   1 / (1 + exp(-alpha u))
``atan``           alpha/2 / (1 + (pi/2 alpha u)^2)  1/2 + arctan(pi/2 alpha u) / pi
``piecewise_exp``  alpha/2 exp(-alpha |u|)        1 - exp(-alpha u) / 2
``fast_sigmoid``   1 / (1 + alpha |u|)^2          1/2 + u / (1 + alpha u)
================== ============================== ===========================================

``triangle`` is the paper's (eq. 12 and 13); ``fast_sigmoid`` is SuperSpike's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from .define.graph import symbol
from .define.surrogates import SHAPES
from .reference import printed

SURROGATES = tuple(SHAPES)


@cache
def _shape(name: str) -> Callable[..., Any]:
    if name not in SHAPES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {name!r}")
    u = symbol("u")
    return printed(name, [u], SHAPES[name](u, symbol("alpha")))


def derivative(name: str, u: Tensor, alpha: float) -> Tensor:
    """The surrogate derivative at ``u`` (any shape and floating dtype); see the table above."""
    return _shape(name)(u, alpha, u.new_zeros(()))[1]


def primitive(name: str, u: Tensor, alpha: float) -> Tensor:
    """The primitive of the surrogate derivative at ``u``, a smooth step from about 0 to about 1."""
    return _shape(name)(u, alpha, u.new_zeros(()))[0]

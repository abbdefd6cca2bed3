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

import math

import torch
from torch import Tensor

# The position in this tuple is the index that the compiled kernels know (csrc/surrogates.h).
SURROGATES = ("triangle", "rectangle", "sigmoid", "atan", "piecewise_exp", "fast_sigmoid")


def derivative(name: str, u: Tensor, alpha: float) -> Tensor:
    """The surrogate derivative at ``u`` (any shape and floating dtype); see the table above."""
    a = u.abs()
    if name == "triangle":
        return (alpha * (1 - alpha * a)).clamp(min=0)
    if name == "rectangle":
        return torch.where(a.isnan(), a, alpha * (alpha * a < 0.5).to(u.dtype))
    if name == "sigmoid":
        e = torch.exp(-alpha * a)
        return alpha * e / (1 + e) ** 2
    if name == "atan":
        return alpha / 2 / (1 + (math.pi / 2 * alpha * a) ** 2)
    if name == "piecewise_exp":
        return alpha / 2 * torch.exp(-alpha * a)
    if name == "fast_sigmoid":
        return 1 / (1 + alpha * a) ** 2
    raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {name!r}")


def primitive(name: str, u: Tensor, alpha: float) -> Tensor:
    """The primitive of the surrogate derivative at ``u``, a smooth step from about 0 to about 1."""
    a = u.abs()
    sign = torch.where(u < 0, -1.0, 1.0).to(u.dtype)
    if name == "triangle":
        z = (alpha * a).clamp(max=1)
        return 0.5 + sign * (z - z * z / 2)
    if name == "rectangle":
        return 0.5 + sign * (alpha * a).clamp(max=0.5)
    if name == "sigmoid":
        return torch.sigmoid(alpha * u)
    if name == "atan":
        return 0.5 + torch.atan(math.pi / 2 * alpha * u) / math.pi
    if name == "piecewise_exp":
        return 0.5 + sign * (0.5 - torch.exp(-alpha * a) / 2)
    if name == "fast_sigmoid":
        return 0.5 + torch.where(a.isinf(), sign / alpha, u / (1 + alpha * a))
    raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {name!r}")

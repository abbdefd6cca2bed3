"""Surrogate functions of u = h - theta, the twin of ``csrc/surrogates.h``: derivative and primitive.

``SURROGATE`` is a name from :data:`stdano_kernels.SURROGATES`, known when the kernel is compiled. Formulas:
:mod:`stdano_kernels.surrogate`.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .math import atan, exp_negative, exp_or_zero, reciprocal

FAR = tl.constexpr(1e15)  # its square is still in the reciprocal's range


@triton.jit
def derivative(u, alpha, SURROGATE: tl.constexpr):
    """Finite for every u, infinite ones included; NaN stays NaN."""
    a = tl.abs(u)
    if SURROGATE == "triangle":
        d = tl.fma(-alpha, alpha * a, alpha)  # alpha*alpha may overflow
        return tl.where(d < 0.0, 0.0, d)
    elif SURROGATE == "rectangle":
        return tl.where(a == a, tl.where(alpha * a < 0.5, alpha, 0.0), a)
    elif SURROGATE == "sigmoid":
        e = exp_or_zero(-alpha * a)
        d = reciprocal(1.0 + e)
        return alpha * e * d * d
    elif SURROGATE == "atan":
        z = 1.5707963267948966 * alpha * a
        return tl.where(z > FAR, 0.0, 0.5 * alpha * reciprocal(tl.fma(z, z, 1.0)))
    elif SURROGATE == "piecewise_exp":
        return 0.5 * alpha * exp_or_zero(-alpha * a)
    else:
        tl.static_assert(SURROGATE == "fast_sigmoid")
        d = tl.fma(alpha, a, 1.0)
        return tl.where(d > FAR, 0.0, reciprocal(d * d))


@triton.jit
def primitive(u, alpha, SURROGATE: tl.constexpr):
    """What a soft spike emits: an integral of the derivative, 1/2 at u = 0."""
    a = tl.abs(u)
    sign = tl.where(u < 0, -1.0, 1.0)
    if SURROGATE == "triangle":
        z = tl.where(alpha * a > 1.0, 1.0, alpha * a)
        return 0.5 + sign * (z - 0.5 * z * z)
    elif SURROGATE == "rectangle":
        z = tl.where(alpha * a > 0.5, 0.5, alpha * a)
        return 0.5 + sign * z
    elif SURROGATE == "sigmoid":
        e = exp_negative(-alpha * a)
        return tl.div_rn(tl.where(u < 0, e, 1.0), 1.0 + e)
    elif SURROGATE == "atan":
        return 0.5 + 0.3183098861837907 * atan(1.5707963267948966 * alpha * u)
    elif SURROGATE == "piecewise_exp":
        e = 0.5 * exp_negative(-alpha * a)
        return tl.where(u < 0, e, 1.0 - e)
    else:
        tl.static_assert(SURROGATE == "fast_sigmoid")
        limit = tl.div_rn(1.0, alpha)  # where |u| is too large for the quotient (inf/inf)
        z = tl.div_rn(a, tl.fma(alpha, a, 1.0))
        return 0.5 + sign * tl.where((z < limit) | (u != u), z, limit)

"""Scalar mathematics in float32, the twin of ``include/neuron_math.h``: the same operations in the same order.

One bit decides over a spike, so nothing here may be approximated or contracted by the compiler: an fma stands where
one is meant, divisions round correctly, and kernels are launched with ``enable_fp_fusion=False``. Tensors and scalars
alike. For ``-1.0 *`` see define/triton.py.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

LOWEST = tl.constexpr(-87.3)  # below this exp is a constant


@triton.jit
def bits(x):
    return tl.cast(x, tl.uint32, bitcast=True)


@triton.jit
def from_bits(x):
    return tl.cast(x, tl.float32, bitcast=True)


@triton.jit
def spread(value, like):
    """One value for each neuron."""
    return tl.full(like.shape, 1.0, tl.float32) * value


@triton.jit
def copysign(x, sign):
    return from_bits((bits(x) & 0x7FFFFFFF) | (bits(sign) & 0x80000000))


@triton.jit
def reciprocal(d):
    """1/d for 2^-100 < d < 2^100: two cubic steps from an integer estimate; at most 1 ulp off."""
    r = from_bits(0x7EF311C3 - bits(d))
    e = tl.fma(-1.0 * d, r, 1.0)
    r = tl.fma(r, tl.fma(e, e, e), r)
    e = tl.fma(-1.0 * d, r, 1.0)
    return tl.fma(r, tl.fma(e, e, e), r)


@triton.jit
def exponential(x):
    """(scale, fraction) with exp(x) = scale*(1 + fraction) for x <= 0.

    x is limited where normal numbers end, so that a decay factor never becomes 0, and 0 times infinity NaN.
    """
    x = tl.where(x < LOWEST, LOWEST, x)
    shifted = tl.fma(x, 1.44269504, 12582912.0)  # 1.5 * 2^23: the low bits hold n of x = n*ln(2) + r
    n = shifted - 12582912.0
    r = tl.fma(n, -0.693145751953125, x)  # ln 2 in two parts, the first short enough for an exact product
    r = tl.fma(n, -1.42860677e-6, r)
    square = r * r
    low = tl.fma(r, 0.166665436, 0.499999982)
    high = tl.fma(square, 0.00138825219, tl.fma(r, 0.0083665191, 0.0416671998))
    p = tl.fma(square, high, low)
    scale = (bits(shifted) << 23) + 0x3F800000
    return from_bits(scale), tl.fma(square, p, r)


@triton.jit
def exp_negative(x):
    """exp(x) for x <= 0; the smallest normal number, not 0, at the end."""
    scale, fraction = exponential(x)
    return tl.fma(scale, fraction, scale)


@triton.jit
def exp_or_zero(x):
    """exp(x) for x <= 0, with 0 at the end."""
    return tl.where(x < LOWEST, 0.0, exp_negative(x))


@triton.jit
def exp(x):
    """exp(x) for any x, the square of exp(x/2): 0 below the range of normal numbers, infinity above that of all."""
    too_large = x > 88.7228
    root = exp_negative(0.5 * tl.where(too_large, 88.7228, x))
    return tl.where(too_large, float("inf"), tl.where(x < LOWEST, 0.0, root * root))


@triton.jit
def log(x):
    """ln(x): x = 2^e * m with m around 1, and a polynomial of m - 1; at most 0.9 ulp off."""
    tiny = x < 1.17549435e-38
    scaled = bits(tl.where(tiny, x * 8388608.0, x))
    mantissa = from_bits((scaled & 0x7FFFFF) | 0x3F800000)
    large = mantissa > 1.41421356
    r = tl.where(large, 0.5 * mantissa, mantissa) - 1.0
    e = ((scaled >> 23).to(tl.int32) - 127).to(tl.float32) + (tl.where(large, 1.0, 0.0) - tl.where(tiny, 23.0, 0.0))
    p = tl.fma(r, 0.06915723, -0.11790077)
    p = tl.fma(p, r, 0.11872947)
    p = tl.fma(p, r, -0.12384298)
    p = tl.fma(p, r, 0.14218657)
    p = tl.fma(p, r, -0.16669254)
    p = tl.fma(p, r, 0.20002227)
    p = tl.fma(p, r, -0.24999987)
    p = tl.fma(p, r, 0.3333331)
    square = r * r
    y = tl.fma(r * square, p, tl.fma(e, -2.12194440e-4, -0.5 * square))
    value = tl.fma(e, 0.693359375, r + y)
    end = tl.where(x == 0, float("-inf"), tl.where(x < 0, float("nan"), x))
    return tl.where((x > 0) & (x < float("inf")), value, end)


@triton.jit
def sigmoid(x):
    """1/(1 + exp(-x)), with the exponential of a number that is not positive."""
    e = exp_or_zero(-1.0 * tl.abs(x))
    d = reciprocal(1.0 + e)
    return tl.where(x < 0, e * d, tl.where(x == x, d, x))


@triton.jit
def tanh(x):
    """tanh(x) = -w/(2 + w) with w = exp(-2|x|) - 1, which loses nothing near 0."""
    scale, fraction = exponential(-2.0 * tl.abs(x))
    w = tl.fma(scale, fraction, scale - 1.0)
    return copysign(w * reciprocal(w + 2.0), x)


@triton.jit
def atan(x):
    """An odd polynomial up to 1, beyond it pi/2 less that of 1/|x|; at most 2 ulp off."""
    a = tl.abs(x)
    most = tl.where(a > 1e8, 1e8, a)  # pi/2 to all bits from there on, and the reciprocal could not take it
    large = a > 1.0
    w = tl.where(large, reciprocal(most), most)
    z = w * w
    p = tl.fma(z, -0.00179362181, 0.010914606)
    p = tl.fma(z, p, -0.0311778467)
    p = tl.fma(z, p, 0.0579575934)
    p = tl.fma(z, p, -0.0840345025)
    p = tl.fma(z, p, 0.109521858)
    p = tl.fma(z, p, -0.142642424)
    p = tl.fma(z, p, 0.199985489)
    p = tl.fma(z, p, -0.333332986)
    r = tl.fma(w * z, p, w)
    return copysign(tl.where(large, 1.57079633 - r, r), x)


@triton.jit
def limited(tau):
    """A time constant from a tensor, whose values nobody has looked at: at these ends exp(-1/tau) is 0 and 1, and the
    square of 1/tau is still a number."""
    return tl.where(tau < 1e-19, 1e-19, tl.where(tau > 1e30, 1e30, tau))

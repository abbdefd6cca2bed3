"""Arithmetic with a GPU's roundings: numpy has neither fma nor directed rounding nor the upper half of a product."""

import numpy as np


def two_sum(a, b):
    """s + err == a + b exactly."""
    s = a + b
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def to_odd(s, err):
    """Round s + err to odd, so that a later rounding to a narrower format is exact."""
    fix = (err != 0) & np.isfinite(s) & ((s.view(np.uint64) & np.uint64(1)) == 0)
    return np.where(fix, np.nextafter(s, np.where(err > 0, np.inf, -np.inf)), s)


def narrow(s, err, dtype, mode="rn"):
    """Round the exact value s + err (float64) to dtype with PTX rounding mode rn, rz, rm or rp."""
    out = to_odd(s, err).astype(dtype)
    if mode in ("rn", "rna"):
        return out
    wide = out.astype(np.float64)
    above = (wide > s) | ((wide == s) & (err < 0))
    below = (wide < s) | ((wide == s) & (err > 0))
    down = np.nextafter(out, dtype.type(-np.inf))
    up = np.nextafter(out, dtype.type(np.inf))
    if mode == "rm":
        return np.where(above, down, out)
    if mode == "rp":
        return np.where(below, up, out)
    return np.where(above & (s >= 0), down, np.where(below & (s < 0), up, out))


def fma_narrow(a, b, c, dtype, mode="rn"):
    """fma for formats up to float32: the float64 product is exact."""
    s, err = two_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))
    return narrow(s, np.where(np.isfinite(s), err, 0.0), dtype, mode)


def two_product(a, b):
    """p + err == a * b exactly (no overflow or underflow assumed)."""

    def split(x):
        t = x * 134217729.0
        hi = t - (t - x)
        return hi, x - hi

    p = a * b
    ah, al = split(a)
    bh, bl = split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def fma64(a, b, c):
    """Correctly rounded float64 fma (plain a * b + c where an intermediate over- or underflows)."""
    uh, ul = two_product(a, b)
    th, tl = two_sum(c, ul)
    vh, vl = two_sum(uh, th)
    exact = vh + to_odd(*two_sum(tl, vl))
    plain = a * b + c
    big = np.maximum(np.abs(a), np.abs(b))
    safe = np.isfinite(exact) & (big < 2.0**990) & ((np.abs(uh) > 2.0**-960) | (uh == 0))
    return np.where(safe, exact, plain)


def mul_hi(a, b):
    """Upper half of the product of two integer arrays of one dtype."""
    if a.dtype.itemsize < 8:
        wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
        bits = wide.type(8 * a.dtype.itemsize)
        return ((a.astype(wide) * b.astype(wide)) >> bits).astype(a.dtype)
    ua, ub = a.view(np.uint64), b.view(np.uint64)
    low, s = np.uint64(0xFFFFFFFF), np.uint64(32)
    mid = (ua >> s) * (ub & low) + (((ua & low) * (ub & low)) >> s)
    mid2 = (ua & low) * (ub >> s) + (mid & low)
    hi = (ua >> s) * (ub >> s) + (mid >> s) + (mid2 >> s)
    if a.dtype.kind == "i":
        zero = np.uint64(0)
        hi = hi - np.where(a < 0, ub, zero) - np.where(b < 0, ua, zero)
    return hi.view(a.dtype)


def int_divide(a, b):
    """Quotient and remainder as in C (truncation); all ones where b is 0."""
    zero = b == 0
    safe = np.where(zero, b.dtype.type(1), b)
    q = a // safe
    r = a - q * safe
    if a.dtype.kind == "i":
        fix = (r != 0) & ((a < 0) != (safe < 0))
        q = np.where(fix, q + 1, q)
        r = a - q * safe
    ones = np.array(-1).astype(a.dtype)
    return np.where(zero, ones, q), np.where(zero, ones, r)


def float_min_max(a, b, largest, propagate_nan):
    fn = np.fmax if largest else np.fmin
    out = fn(a, b)
    first = np.signbit(a) != largest  # of two zeros: -0 is the minimum, +0 the maximum
    out = np.where((a == 0) & (b == 0), np.where(first, a, b), out)
    if propagate_nan:
        out = np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), out)
    return out

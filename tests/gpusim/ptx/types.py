"""PTX types as numpy types, and conversions that numpy lacks."""

import numpy as np

UINT = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8")}
DTYPE = {"bf16": UINT[2], "f16x2": UINT[4], "bf16x2": UINT[4], "f32x2": UINT[8]}
for _bytes in (1, 2, 4, 8):
    _bits = str(8 * _bytes)
    DTYPE["u" + _bits] = DTYPE["b" + _bits] = UINT[_bytes]
    DTYPE["s" + _bits] = np.dtype(f"i{_bytes}")
    if _bytes > 1:
        DTYPE["f" + _bits] = np.dtype(f"f{_bytes}")
PACKED = {"f16x2": ("f16", 2), "bf16x2": ("bf16", 2), "f32x2": ("f32", 4)}
COMPLEX = np.dtype("c16")  # stands for 16 raw bytes; copying keeps every bit


def is_float(t):
    return t[0] == "f" or t.startswith("bf")


def bf16_to_f32(a):
    return (a.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(a):
    """Round to nearest even; the result is the 16-bit pattern."""
    bits = a.astype(np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(a), np.uint16(0x7FFF), rounded)


def flush_subnormals(a):
    if a.dtype != np.float32:
        return a
    return np.where(np.abs(a) < np.float32(2.0**-126), np.copysign(np.float32(0), a), a)

"""Spikes as bits and back: ``pack_spikes`` and ``unpack_spikes`` of include/schemas.h.

A value is a whole number divided by ``scale``; bit i % 8 of byte i // 8 of a plane is a bit of the i-th number.
"""
# mypy: ignore-errors

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import kernel
from .launch import compiler_options, on_device, run

_BYTES = 256  # of a program
_THREADS = 128


@triton.jit
def _bytes(BYTES: tl.constexpr):
    """The bytes of a program, and its values: eight for each."""
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    return byte, byte[:, None] * 8 + tl.arange(0, 8)[None, :]


@kernel
def pack(x_ptr, bits_ptr, count, plane, scale, PLANES: tl.constexpr, BYTES: tl.constexpr):
    byte, at = _bytes(BYTES)
    value = tl.load(x_ptr + at, at < count, other=0.0).to(tl.float32)
    number = (value * scale + 0.5).to(tl.int32)
    for p in tl.static_range(PLANES):
        bits = tl.sum((number >> p & 1) << tl.arange(0, 8)[None, :], 1)
        tl.store(bits_ptr + p * plane + byte, bits.to(tl.uint8), byte * 8 < count)


@kernel
def unpack(bits_ptr, values_ptr, count, plane, scale, PLANES: tl.constexpr, BYTES: tl.constexpr):
    byte, at = _bytes(BYTES)
    number = tl.zeros((BYTES, 8), tl.int32)
    for p in tl.static_range(PLANES):
        bits = tl.load(bits_ptr + p * plane + byte, byte * 8 < count, other=0).to(tl.int32)
        number |= (bits[:, None] >> tl.arange(0, 8)[None, :] & 1) << p
    value = tl.div_rn(number.to(tl.float32), tl.zeros((BYTES, 8), tl.float32) + scale)
    tl.store(values_ptr + at, value.to(values_ptr.dtype.element_ty), at < count)


def pack_spikes(x: Tensor, scale: int, planes: int) -> tuple[Tensor, bool]:
    """Bits uint8 [planes, bytes] of values [n]. Whether they are exact is not looked at."""
    bits = x.new_empty(planes, -(-x.numel() // 8), dtype=torch.uint8)
    _launch(pack, x, bits, x.numel(), bits.stride(0), scale, planes)
    return bits, True


def unpack_spikes(bits: Tensor, scale: int, like: Tensor) -> Tensor:
    """All values of the bytes, in the dtype of ``like``."""
    values = like.new_empty(8 * bits.shape[1])
    _launch(unpack, bits, values, values.numel(), bits.stride(0), scale, bits.shape[0])
    return values


def _launch(kernel, source: Tensor, target: Tensor, count: int, plane: int, scale: int, planes: int) -> None:
    if count == 0:
        return
    names = ("x_ptr", "bits_ptr") if kernel is pack else ("bits_ptr", "values_ptr")
    given = dict(zip(names, (source, target), strict=True), count=count, plane=plane, scale=float(scale))
    with on_device(source.device):
        settings = dict(PLANES=planes, BYTES=_BYTES, **compiler_options(_THREADS, source.device))
        run(kernel, (-(-count // (8 * _BYTES)),), given | settings)


OPERATORS = {"pack_spikes": pack_spikes, "unpack_spikes": unpack_spikes}

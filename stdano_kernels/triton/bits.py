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


@triton.jit
def _values(number, scale, SPIKES: tl.constexpr):
    """``SPIKES``: numbers are 0 and 1, and nothing has to be divided."""
    if SPIKES:
        return number.to(tl.float32)
    else:
        return tl.div_rn(number.to(tl.float32), tl.zeros(number.shape, tl.float32) + scale)


@triton.jit
def _bits(value):
    size: tl.constexpr = value.dtype.primitive_bitwidth
    return value.to(tl.int16 if size == 16 else tl.int32, bitcast=True)


@kernel
def pack(
    x_ptr, bits_ptr, wrong_ptr, count, plane, scale, PLANES: tl.constexpr, SPIKES: tl.constexpr, BYTES: tl.constexpr
):
    byte, at = _bytes(BYTES)
    x = tl.load(x_ptr + at, at < count, other=0.0)
    number = (x.to(tl.float32) * scale + 0.5).to(tl.int32)
    for p in tl.static_range(PLANES):
        bits = tl.sum((number >> p & 1) << tl.arange(0, 8)[None, :], 1)
        tl.store(bits_ptr + p * plane.to(tl.int64) + byte, bits.to(tl.uint8), byte * 8 < count)
    wrong = (number >> PLANES != 0) | (_bits(_values(number, scale, SPIKES).to(x.dtype)) != _bits(x))
    group: tl.constexpr = 32
    of_group = tl.max(tl.reshape(wrong.to(tl.int32), (BYTES // group, 8 * group)), 1)
    number_of_group = tl.program_id(0).to(tl.int64) * (BYTES // group) + tl.arange(0, BYTES // group)
    tl.store(wrong_ptr + number_of_group, of_group.to(tl.uint8), number_of_group * 8 * group < count)


@kernel
def unpack(
    bits_ptr,
    values_ptr,
    wrong_ptr,
    count,
    plane,
    scale,
    PLANES: tl.constexpr,
    SPIKES: tl.constexpr,
    BYTES: tl.constexpr,
):
    byte, at = _bytes(BYTES)
    number = tl.zeros((BYTES, 8), tl.int32)
    for p in tl.static_range(PLANES):
        bits = tl.load(bits_ptr + p * plane.to(tl.int64) + byte, byte * 8 < count, other=0).to(tl.int32)
        number |= (bits[:, None] >> tl.arange(0, 8)[None, :] & 1) << p
    value = _values(number, scale, SPIKES)
    wrong = tl.load(wrong_ptr + byte // 32, byte * 8 < count, other=0)
    value = tl.where(wrong[:, None] != 0, float("nan"), value)
    tl.store(values_ptr + at, value.to(values_ptr.dtype.element_ty), at < count)


def pack_spikes(x: Tensor, scale: int, planes: int) -> tuple[Tensor, Tensor, bool]:
    """Bits uint8 [planes, bytes] of values [n]; and for each 256 of them whether one is no such value, which the host
    does not look at."""
    bits = x.new_empty(planes, -(-x.numel() // 8), dtype=torch.uint8)
    wrong = x.new_empty(-(-x.numel() // 256), dtype=torch.uint8)
    _launch(pack, dict(x_ptr=x, bits_ptr=bits, wrong_ptr=wrong), x.numel(), bits, scale)
    return bits, wrong, True


def unpack_spikes(bits: Tensor, wrong: Tensor, scale: int, like: Tensor) -> Tensor:
    """All values of the bytes, in the dtype of ``like``; NaN where one of a group is wrong."""
    values = like.new_empty(8 * bits.shape[1])
    _launch(unpack, dict(bits_ptr=bits, values_ptr=values, wrong_ptr=wrong), values.numel(), bits, scale)
    return values


def _launch(kernel, tensors: dict[str, Tensor], count: int, bits: Tensor, scale: int) -> None:
    if count == 0:
        return
    planes = bits.shape[0]
    given = tensors | dict(count=count, plane=bits.stride(0), scale=float(scale))
    given |= dict(PLANES=planes, SPIKES=planes == scale == 1, BYTES=_BYTES)
    with on_device(bits.device):
        run(kernel, (-(-count // (8 * _BYTES)),), given | compiler_options(_THREADS, bits.device))


OPERATORS = {"pack_spikes": pack_spikes, "unpack_spikes": unpack_spikes}

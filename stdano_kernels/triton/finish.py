"""What becomes of the sums of a channel, the twin of csrc/norm.h: a program adds up a channel's sums and makes of them
the numbers for the passes that follow, in double and in the same order of operations.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import kernel
from .memory import sum_of


@triton.jit
def number(pointer, at, otherwise: tl.constexpr):
    """A number in double, or what stands for it where there is no tensor."""
    if pointer is not None:
        return tl.load(pointer + at).to(tl.float64)
    else:
        return tl.full((), otherwise, tl.float64)


@triton.jit
def move(pointer, at, value, momentum):
    """torch.lerp of a running statistic, if there is one."""
    if pointer is not None:
        old = tl.load(pointer + at)
        new = value.to(tl.float32)
        near = (momentum < 0.5) & (momentum > -0.5)
        moved = tl.fma(tl.where(near, momentum, momentum - 1.0), new - old, tl.where(near, old, new))
        tl.store(pointer + at, moved)


@triton.jit
def move_both(mean_ptr, var_ptr, at, mean, variance, momentum, values):
    fewer = tl.where(values > 2, values - 1, 1.0)
    move(mean_ptr, at, mean, momentum)
    move(var_ptr, at, variance * (values / fewer), momentum)


@triton.jit
def inverse_of(variance, EPS: tl.constexpr):
    return 1.0 / tl.sqrt(variance + tl.full((), EPS, tl.float64))


@triton.jit
def store_moments(moments_ptr, at, rows, mean, variance, inverse, scale):
    tl.store(moments_ptr + at, mean)
    tl.store(moments_ptr + (rows + at), variance)
    tl.store(moments_ptr + (2 * rows + at), inverse)
    tl.store(moments_ptr + (3 * rows + at), scale)


@triton.jit
def load_moments(moments_ptr, at, rows):
    """Those that backward needs."""
    inverse = tl.load(moments_ptr + (2 * rows + at))
    scale = tl.load(moments_ptr + (3 * rows + at))
    return tl.load(moments_ptr + at), inverse, scale


@kernel
def norm_forward(
    parts_ptr,
    slabs,
    columns,
    channels,
    count,
    copies,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    momentum,
    affine_ptr,
    moments_ptr,
    TRAINING: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0)
    if TRAINING:
        values = count.to(tl.float64)
        mean = sum_of(parts_ptr, 0, c, slabs, columns, channels, BLOCK) / values
        variance = sum_of(parts_ptr, 1, c, slabs, columns, channels, BLOCK) / values - mean * mean
        variance = tl.where(variance < 0, 0.0, variance)
        move_both(mean_ptr, var_ptr, c, mean, variance, momentum, values * copies)
    else:
        mean = number(mean_ptr, c, 0.0)
        variance = number(var_ptr, c, 1.0)
    inverse = inverse_of(variance, EPS)
    scale = number(weight_ptr, c, 1.0) * inverse
    centre = mean.to(tl.float32)
    tl.store(affine_ptr + c, centre)
    tl.store(affine_ptr + (channels + c), scale.to(tl.float32))
    shift = scale * (centre.to(tl.float64) - mean) + number(bias_ptr, c, 0.0)
    tl.store(affine_ptr + (2 * channels + c), shift.to(tl.float32))
    store_moments(moments_ptr, c, channels, mean, variance, inverse, scale)


@kernel
def norm_backward(
    parts_ptr,
    slabs,
    columns,
    channels,
    count,
    affine_ptr,
    moments_ptr,
    table_ptr,
    of_weight_ptr,
    of_bias_ptr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0)
    values = -count.to(tl.float64)
    of_shift = sum_of(parts_ptr, 0, c, slabs, columns, channels, BLOCK).to(tl.float32).to(tl.float64)
    of_scale = sum_of(parts_ptr, 1, c, slabs, columns, channels, BLOCK).to(tl.float32).to(tl.float64)
    mean, inverse, scale = load_moments(moments_ptr, c, channels)
    centre = tl.load(affine_ptr + c)
    shifted = centre.to(tl.float64) - mean
    of_scale += shifted * of_shift
    slope = of_scale / values * scale * inverse * inverse
    offset = of_shift / values * scale + slope * shifted
    tl.store(table_ptr + c, centre)
    tl.store(table_ptr + (channels + c), slope.to(tl.float32))
    tl.store(table_ptr + (2 * channels + c), offset.to(tl.float32))
    tl.store(of_weight_ptr + c, (of_scale * inverse).to(tl.float32))
    tl.store(of_bias_ptr + c, of_shift.to(tl.float32))


@kernel
def mixture_forward(
    parts_ptr,
    slabs,
    columns,
    channels,
    count,
    weights_ptr,
    mean_ptr,
    var_ptr,
    momentum,
    table_ptr,
    moments_ptr,
    MEMBERS: tl.constexpr,
    TRAINING: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0)
    values = count.to(tl.float64)
    offset = tl.full((), 0.0, tl.float64)
    for k in tl.static_range(MEMBERS):
        at = k * channels + c
        if TRAINING:
            mean = sum_of(parts_ptr, k, c, slabs, columns, channels, BLOCK) / values
            variance = mean * (1.0 - mean)
            move_both(mean_ptr, var_ptr, at, mean, variance, momentum, values)
        else:
            mean = number(mean_ptr, at, 0.0)
            variance = number(var_ptr, at, 1.0)
        inverse = inverse_of(variance, EPS)
        scale = number(weights_ptr, k, 1.0) * inverse
        offset += scale * mean
        tl.store(table_ptr + ((1 + k) * channels + c), scale.to(tl.float32))
        store_moments(moments_ptr, at, MEMBERS * channels, mean, variance, inverse, scale)
    tl.store(table_ptr + c, (-offset).to(tl.float32))


@kernel
def mixture_backward(
    parts_ptr,
    slabs,
    columns,
    channels,
    count,
    moments_ptr,
    table_ptr,
    of_weights_ptr,
    ticket_ptr,
    grad_weights_ptr,
    MEMBERS: tl.constexpr,
    TRAINING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0)
    values = -count.to(tl.float64)
    total = sum_of(parts_ptr, 0, c, slabs, columns, channels, BLOCK)
    of_y = total / values
    for k in tl.static_range(MEMBERS):
        at = k * channels + c
        mean, inverse, scale = load_moments(moments_ptr, at, MEMBERS * channels)
        of_spikes = (sum_of(parts_ptr, 1 + k, c, slabs, columns, channels, BLOCK) - mean * total) * inverse
        tl.store(of_weights_ptr + at, of_spikes)
        silent = tl.full((), 0.0, tl.float64)
        fired = silent
        if TRAINING:
            slope = of_spikes / values * inverse
            silent = scale * (of_y - slope * mean)
            fired = silent + scale * slope
        tl.store(table_ptr + (3 * k * channels + c), scale.to(tl.float32))
        tl.store(table_ptr + ((3 * k + 1) * channels + c), silent.to(tl.float32))
        tl.store(table_ptr + ((3 * k + 2) * channels + c), fired.to(tl.float32))
    # The last program to come here sees what all have stored, and adds it up in the order of the channels.
    tl.debug_barrier()
    if tl.atomic_add(ticket_ptr, 1, sem="acq_rel") == channels - 1:
        for k in tl.static_range(MEMBERS):
            sums = tl.zeros([BLOCK], tl.float64)
            for first in range(0, channels, BLOCK):
                e = first + tl.arange(0, BLOCK)
                sums += tl.load(of_weights_ptr + (k * channels + e), e < channels, 0.0)
            tl.store(grad_weights_ptr + k, tl.sum(sums).to(tl.float32))

"""Small Triton kernels for the simulator's own tests."""

import torch
import triton
import triton.language as tl


@triton.jit
def lif_kernel(x_ptr, s_ptr, n, decay, threshold, T: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    v = tl.zeros((BLOCK,), dtype=tl.float32)
    for t in tl.static_range(T):
        x = tl.load(x_ptr + t * n + i, mask=mask, other=0.0).to(tl.float32)
        v = v * decay + x
        spike = v >= threshold
        tl.store(s_ptr + t * n + i, spike.to(s_ptr.dtype.element_ty), mask=mask)
        v = tl.where(spike, 0.0, v)


@triton.jit
def unmasked_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i))


@triton.jit
def channel_kernel(x_ptr, sum_ptr, max_ptr, total_ptr, n, BLOCK: tl.constexpr):
    c = tl.program_id(0)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    top = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    for first in range(0, n, BLOCK):
        i = first + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + c * n + i, mask=i < n, other=0.0)
        total += x
        top = tl.maximum(top, tl.where(i < n, x, float("-inf")))
    s = tl.sum(total)
    tl.store(sum_ptr + c, s)
    tl.store(max_ptr + c, tl.max(top))
    tl.atomic_add(total_ptr, s)


tuned_kernel = triton.autotune(
    configs=[triton.Config({"BLOCK": b}, num_warps=w) for b, w in ((256, 2), (1024, 4))],
    key=["n"],
)(lif_kernel)


def run_lif(x, T):
    s = torch.full_like(x, float("nan"))
    n = x.numel() // T
    lif_kernel[(triton.cdiv(n, 1024),)](x, s, n, 0.5, 1.0, T=T, BLOCK=1024)
    return s

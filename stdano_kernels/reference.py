"""The neurons in plain PyTorch, one time step after the other: the oracle that every kernel is held against, and
the fallback for devices without kernels. Any device, any floating dtype; half precision is computed in float32.

Symbols as everywhere: x input, v potential after the reset, h after the charge, u = h - theta, s spike, theta
threshold, p residual potential, r the reset potential (0 for the soft reset).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import surrogate
from .saved import saved_tensors
from .settings import SMALLEST, Settings


class _Spike(torch.autograd.Function):
    """Heaviside(u), u = 0 included, with the surrogate as derivative; or the surrogate's primitive, whose derivative
    at u = 0 autograd would get wrong."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, name: str, alpha: float, soft: bool) -> Tensor:
        return surrogate.primitive(name, u, alpha) if soft else (u >= 0).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        u, ctx.name, ctx.alpha, _ = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (u,) = saved_tensors(ctx)
        sigma = surrogate.derivative(ctx.name, u, ctx.alpha)
        return torch.where(sigma != 0, grad * sigma, torch.zeros_like(sigma)), None, None, None


class _Gate(torch.autograd.Function):
    """s*a for s in {0, 1}, where 0*inf is 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(s: Tensor, a: Tensor) -> Tensor:
        return torch.where(s > 0, a, torch.zeros_like(a))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        s, a = saved_tensors(ctx)
        return grad * a, torch.where(s > 0, grad, torch.zeros_like(grad))


def _fire(u: Tensor, k: Settings) -> Tensor:
    return _Spike.apply(u, k.surrogate, k.alpha, k.soft_spike)


def _times(s: Tensor, a: Tensor, k: Settings) -> Tensor:
    return s * a if k.soft_spike else _Gate.apply(s, a)


def _reset(h: Tensor, s: Tensor, theta: Tensor | float, k: Settings) -> Tensor:
    s = s.detach() if k.detach_reset else s
    if k.v_reset is None:
        return h - s * theta
    return _times(1 - s, h, k) + s * k.v_reset


def _per_channel(constant: Tensor | float, x: Tensor) -> Tensor | float:
    """A constant of shape [C] as it broadcasts against a time step [B, C, ...]."""
    if isinstance(constant, Tensor):
        constant = constant.to(x.dtype)
        return constant.reshape(-1, *[1] * (x.dim() - 3)) if constant.dim() == 1 else constant
    return constant


def _limited(tau: Tensor | float) -> Tensor | float:
    """A time constant no smaller than makes a difference; the gradient goes past the limit."""
    if isinstance(tau, Tensor):
        return tau + (tau.detach().clamp(min=SMALLEST) - tau.detach())
    return tau


def _decay_and_gain(tau: Tensor | float, k: Settings) -> tuple[Tensor | float, Tensor | float]:
    rate = 1 / tau
    if k.linear_decay:
        decay = 1 - rate
    else:
        decay = torch.exp(-rate) if isinstance(rate, Tensor) else math.exp(-rate)
    return decay, rate if k.decay_input else 1.0


def _charge(x: Tensor, v: Tensor, decay: Tensor | float, gain: Tensor | float, k: Settings) -> Tensor:
    r = k.v_reset or 0.0
    return decay * (v - r) + r + gain * x


def neuron(
    name: str,
    x: Tensor,  # [T, ...]
    v: Tensor | None,  # [...]
    adapt: Tensor | None,  # [...]: theta of LLIF, p of SLIF
    tau: Tensor | float,
    v_threshold: Tensor | float,
    affine: Tensor | None,  # [3, C]: centre, scale, shift
    k: Settings,
) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
    """Runs ``lif``, ``llif`` or ``slif`` over all steps: spikes, final v, final theta or p, and every v."""
    dtype = x.dtype
    x = x if dtype == torch.float64 else x.float()
    if affine is not None:
        centre, scale, shift = (_per_channel(row, x) for row in affine)
        x = scale * (x - centre) + shift
    tau, threshold = _limited(_per_channel(tau, x)), _per_channel(v_threshold, x)
    zero = x.new_zeros(x.shape[1:])
    v = zero + (k.v_reset or 0.0) if v is None else v
    adapt = adapt.detach() if adapt is not None and k.detach_adapt else adapt
    if adapt is None and name == "llif":
        adapt = zero + threshold
    elif adapt is None and name == "slif":
        adapt = zero
    decay, gain = _decay_and_gain(tau, k)

    spikes, potentials = [], []
    for xt in x.unbind(0):
        theta = threshold
        if name == "llif":
            assert adapt is not None
            theta = adapt.detach() if k.detach_adapt else adapt
            adapt = theta + k.rate * torch.tanh(torch.where(xt > 0, torch.zeros_like(xt), -xt))
        if name == "slif":
            assert adapt is not None
            # beyond 20 tanh is 1 in any precision; the limit keeps an infinite p from a derivative of 0*inf
            wanted = tau - k.rate * torch.tanh(adapt.clamp(-20, 20))
            decay, gain = _decay_and_gain(torch.where(wanted >= k.tau_min, wanted, k.tau_min).to(x.dtype), k)
        h = _charge(xt, v, decay, gain, k)
        u = h - theta
        s = _fire(u, k)
        v = _reset(h, s, theta, k)
        if name == "slif":
            adapt = _times(s, u, k)
        if adapt is not None and k.detach_adapt:
            adapt = adapt.detach()
        spikes.append(s.to(dtype))
        potentials.append(v.to(dtype))
    out = torch.stack(spikes) if spikes else torch.empty_like(x, dtype=dtype)
    return out, v, adapt, potentials

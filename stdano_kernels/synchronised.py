"""BatchNorm by the statistics of all processes, on the CPU as well, for which torch has none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import registration
from .backends import select
from .checks import check_input
from .moments import Moments, check_statistics, moments_of, total, update_running
from .settings import compute_dtype


def synchronised_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    momentum: float | Tensor,
    eps: float,
    process_group: dist.ProcessGroup,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` in training, by the statistics of the parts of a batch that the processes
    hold together; the parts may differ in size.

    Args:
        x: ``[N, C, ...]``, this process's part.
        running_mean, running_var: ``[C]``, updated in place; None: nothing is updated.
        weight, bias: ``[C]``, or None for 1 and 0.
        momentum: weight of the batch in the running statistics, from 0 to 1; a number or a tensor of shape ``[]``.
        eps: added to the variance.
        process_group: every process of it must call, forward and backward.

    Raises:
        ValueError, TypeError: an argument is wrong; no compiled kernels serve x.
    """
    check_input(x)
    if x.dim() < 2:
        raise ValueError(f"x must be [N, C, ...], got a tensor of shape {list(x.shape)}")
    shape = (x.shape[1],)
    momentum, eps = check_statistics(running_mean, running_var, shape, True, momentum, eps, process_group, x)
    backend = select("auto", x)
    if backend == "reference":
        raise ValueError("process_group must be None where no compiled kernels serve x; see stdano info")
    namespace = registration.NAMESPACES[backend]
    y, mean, variance, values = _BatchNorm.apply(x, weight, bias, eps, process_group, namespace)
    update_running(running_mean, running_var, Moments(mean, variance, values), momentum)
    return y


class _BatchNorm(torch.autograd.Function):
    """torch's own BatchNorm by given statistics, forward and backward, and around it what the statistics depend on."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        process_group: dist.ProcessGroup,
        namespace: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | int]:
        sums = registration.operator(namespace, "channel_sums")(x.unsqueeze(0))
        count = x.numel() // max(x.shape[1], 1)
        mean, variance, values = moments_of(sums, count, process_group)
        dtype = compute_dtype(x)
        arguments = (x, mean.to(dtype), variance.to(dtype), None if weight is None else weight.to(dtype))
        y = F.batch_norm(*arguments, None if bias is None else bias.to(dtype), eps=eps)
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.process_group, ctx.namespace, ctx.values = eps, process_group, namespace, values
        ctx.save_for_backward(*arguments)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance, values

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        x, mean, variance, weight = ctx.saved_tensors
        grad = torch.zeros_like(x) if grad is None else grad  # the other processes wait for this one's sums
        if x.numel() == 0:  # which torch's backward divides by
            of_weight = of_bias = torch.zeros_like(mean)
            of_x = grad
        else:
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, mean, variance, None, None, False, ctx.eps, (True, True, True)
            )
        if ctx.needs_input_grad[0]:
            inverse = torch.rsqrt(variance.double() + ctx.eps)
            sums = total(torch.stack((of_weight, of_bias)).double(), ctx.process_group) / -ctx.values
            slope, offset = sums * (inverse if weight is None else inverse * weight)
            table = torch.stack((mean.double(), slope * inverse, offset)).to(mean.dtype)
            operator = registration.operator(ctx.namespace, "channel_affine")
            of_x = operator(of_x.unsqueeze(0), x.unsqueeze(0), table).squeeze(0)
        wanted = ctx.needs_input_grad
        return of_x, of_weight if wanted[1] else None, of_bias if wanted[2] else None, None, None, None

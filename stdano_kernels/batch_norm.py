"""BatchNorm and the neuron behind it in one kernel: the normalised tensor is never stored.

Forward: one pass over x sums up each channel, and the neuron's kernel normalises x in registers. Backward: the neuron's
kernel writes the gradient of x as if the statistics were constants, together with the two sums of each channel from
which theirs follows; a last pass adds that. Kept for backward: x and three numbers a channel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import registration
from .backends import NAMES, select
from .checks import check_channels, check_input, check_tensor
from .define.neuron import Neuron
from .functional import FUNCTIONS, function
from .moments import (
    Moments,
    check_statistics,
    statistics_of_nothing,
    total,
    total_with_count,
    update_running,
    values_per_channel,
)
from .settings import choice, compute_dtype


def bn_neuron(
    neuron: str | type[Neuron],
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    process_group: dist.ProcessGroup | None = None,
    backend: str = "auto",
    **settings: Any,
) -> Any:
    """``torch.nn.functional.batch_norm`` over T, B and space, followed by a neuron, without the tensor in between.

    Args:
        neuron: the name of a neuron that comes with the library (``"lif"``, ...), or a declaration.
        x: ``[T, B, C, ...]``, usually the output of a convolution; dtypes and layouts as for
            :func:`stdano_kernels.lif`.
        running_mean, running_var: ``[C]``. Updated in place in training; used instead of the batch's statistics
            otherwise. None (in training alone): nothing is updated.
        weight, bias: ``[C]``, or None for 1 and 0. They may require grad.
        training: normalise by the batch's own statistics.
        momentum: weight of the batch in the running statistics, from 0 to 1; a number, or a tensor of shape ``[]``,
            whose value is not looked at.
        eps: added to the variance.
        process_group: statistics over all processes of this group (every one must call, forward and backward);
            None: over this process alone.
        backend: see :func:`stdano_kernels.backends`; ``"reference"`` runs ``batch_norm`` and then the neuron.
        settings: every other argument of the neuron's function.

    Returns:
        What the neuron's function returns.

    Raises:
        ValueError, TypeError: an argument is wrong; or in training a channel has one value alone.
    """
    run = function_of(neuron)
    check_input(x)
    channels = check_channels(x)
    momentum, eps = check_statistics(running_mean, running_var, (channels,), training, momentum, eps, process_group, x)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_tensor(name, value, (channels,), x, none="None or ")
    if settings.get("affine") is not None:
        raise ValueError("affine must be left out: it is made from weight, bias and the statistics")
    choice("backend", backend, ("auto", *NAMES))
    chosen = select(backend, x)
    count = values_per_channel(x, training, process_group)
    if training and count == 0 and process_group is None:
        training, (running_mean, running_var) = False, statistics_of_nothing((channels,), x)
    if chosen == "reference":
        if process_group is not None:
            raise ValueError("process_group must be None with the reference backend")
        images = x.flatten(0, 1)
        normalised = F.batch_norm(images, running_mean, running_var, weight, bias, training, float(momentum), eps)
        return run(normalised.unflatten(0, x.shape[:2]), backend=chosen, **settings)
    if not training:
        assert running_mean is not None and running_var is not None
        # In double, as in training: running statistics may be kept in half precision.
        inverse = torch.rsqrt(running_var.double() + eps)
        scale = inverse if weight is None else weight * inverse
        shift = torch.zeros_like(inverse) if bias is None else bias
        affine = torch.stack((running_mean.double(), scale.double(), shift.double())).to(compute_dtype(x))
        return run(x, affine=affine, backend=backend, **settings)
    registration.refuse_transforms(x, weight, bias)
    registration.refuse_vmap(x, weight, bias)
    namespace = registration.NAMESPACES[chosen]
    x, affine, mean, variance, all_values = _Normalise.apply(x, weight, bias, eps, count, process_group, namespace)
    out = run(x, affine=affine, backend=backend, **settings)
    # Last, so that a call with a wrong setting of the neuron changes nothing.
    update_running(running_mean, running_var, Moments(mean, variance, all_values), momentum)
    return out


def function_of(neuron: str | type[Neuron]) -> Any:
    """The function of a neuron that is named or declared."""
    if isinstance(neuron, type):
        return function(neuron)
    choice("neuron", neuron, tuple(FUNCTIONS))
    return FUNCTIONS[neuron]


class _Normalise(torch.autograd.Function):
    """From x to x itself and the neuron's ``affine``. Both gradients meet here, so that what the statistics add to x's
    is one pass over it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        count: int,
        process_group: dist.ProcessGroup | None,
        namespace: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | int]:
        sums = registration.operator(namespace, "channel_sums")(x)
        sums, all_values = total_with_count(sums, count, process_group)
        mean, square = sums / all_values
        variance = (square - mean * mean).clamp_(min=0)
        inverse = torch.rsqrt(variance + eps)
        scale = inverse if weight is None else weight * inverse
        # What the mean loses as a float goes into the shift: a large mean then costs no accuracy.
        centre = mean.to(compute_dtype(x))
        shift = scale * (centre - mean)
        affine = torch.stack((centre, scale, shift if bias is None else shift + bias)).to(centre.dtype)
        ctx.set_materialize_grads(False)
        ctx.process_group, ctx.namespace, ctx.all_values = process_group, namespace, all_values
        ctx.has_weight, ctx.has_bias = weight is not None, bias is not None
        ctx.save_for_backward(x, mean, inverse, scale, centre)
        ctx.mark_non_differentiable(mean, variance)
        return x.view_as(x), affine, mean, variance, all_values

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad_x: Tensor | None, grad_affine: Tensor | None, *_: Any) -> tuple:
        x, mean, inverse, scale, centre = ctx.saved_tensors
        if grad_affine is None:
            grad_affine = centre.new_zeros((3, centre.numel()))
        of_scale, of_shift = grad_affine[1].double(), grad_affine[2].double()
        shifted = centre - mean
        of_scale = of_scale + shifted * of_shift  # from centre to mean
        grad_weight = (of_scale * inverse).to(centre.dtype) if ctx.has_weight else None
        grad_bias = of_shift.to(centre.dtype) if ctx.has_bias else None
        out = None
        if grad_x is not None and ctx.needs_input_grad[0]:
            sums = total(torch.stack((of_scale, of_shift)), ctx.process_group) / -ctx.all_values
            slope = sums[0] * scale * inverse * inverse
            offset = sums[1] * scale + slope * shifted
            table = torch.stack((centre, slope, offset)).to(centre.dtype)
            if torch.compiler.is_compiling():
                out = registration.operator(ctx.namespace, "channel_affine")(grad_x, x, table)
            else:  # nobody else has the tensor, which comes from the neuron's backward
                registration.operator(ctx.namespace, "channel_affine_")(grad_x, x, table)
                out = grad_x
        return out, grad_weight, grad_bias, None, None, None, None

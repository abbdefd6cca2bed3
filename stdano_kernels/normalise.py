"""How BatchNorm in front of a neuron is computed: by one operator with the neuron, or apart from it, as a table of
numbers for each channel, where other processes have a part in the statistics or torch has to see the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from . import constant, registration, two_levels
from .checks import dense
from .moments import Moments, Statistics, moments_of, total
from .saved import saved_tensors
from .settings import compute_dtype


class Norm(NamedTuple):
    """The arguments of :func:`stdano_kernels.bn_neuron`, checked."""

    weight: Tensor | None
    bias: Tensor | None
    statistics: Statistics
    values: int  # of each channel, in this process
    process_group: dist.ProcessGroup | None
    namespace: str  # of the operators

    def is_joint(self, x: Tensor, *inputs: float | Tensor) -> bool:
        """Whether one operator serves norm and neuron, which has these inputs. It has no way back to running
        statistics, and keeps all checkpoints."""
        if torch.compiler.is_compiling() or registration.in_functorch():
            return False
        if two_levels.is_wanted(x):
            return False
        if self.statistics.training:
            return self.process_group is None
        tensors = (t for t in (x, *inputs) if isinstance(t, Tensor))
        return not registration.wants_grad(self.weight, self.bias, *tensors)


def apart(norm: Norm, x: Tensor, step: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor, Moments | None]:
    """x itself and its step (see constant.step_of), the table ``affine`` that normalises it, and in training its
    moments, for constant input those of one copy."""
    mean, var, training, _, eps = norm.statistics
    if training:
        registration.refuse_transforms(x, norm.weight, norm.bias)
        registration.refuse_vmap(x, norm.weight, norm.bias)
        own = (eps, norm.values, norm.process_group, norm.namespace)
        out, affine, *moments = _Normalise.apply(x, step, norm.weight, norm.bias, *own)
        x, step = (out, None) if step is None else (out.expand(x.shape), out)
        return x, step, affine, Moments(*moments)
    assert mean is not None and var is not None
    # In double, as in training: running statistics may be kept in half precision.
    inverse = torch.rsqrt(var.double() + eps)
    scale = inverse if norm.weight is None else norm.weight * inverse
    shift = torch.zeros_like(inverse) if norm.bias is None else norm.bias
    affine = torch.stack((mean.double(), scale.double(), shift.double())).to(compute_dtype(x))
    return x, step, affine, None


def joint(
    norm: Norm,
    namespace: str,
    kernel: str,
    x: Tensor,
    state: Sequence[Tensor],
    constants: Sequence[float | Tensor],
    alpha: float,
    return_state: bool,
    sequences: list[int],
    step: Tensor | None,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """As registration.call, with the norm."""
    registration.refuse_transforms(x, *state, *constants, norm.weight, norm.bias)
    own, tensors = registration.settle(kernel, x, constants, alpha, sequences)
    dtype = compute_dtype(x)
    weight, bias = (None if t is None else t.to(dtype).contiguous() for t in (norm.weight, norm.bias))
    given = (*norm.statistics.as_given(dtype), *own[:4])
    if registration.wants_grad(x, *state, *tensors, weight, bias):
        counts = (len(state), len(tensors))
        spikes, *out, moments = _Joint.apply(
            namespace, counts, own, return_state, given, x, step, weight, bias, *state, *tensors
        )
        count = len(out) - len(sequences)
        final, found = out[:count], out[count:]
    else:
        with torch._C._AutoDispatchBelowAutograd():
            spikes, final, found, _, _, moments = registration.operator(namespace, "norm_scan_forward")(
                x, list(state), tensors, weight, bias, *given, False, return_state, sequences
            )
    norm.statistics.move(moments, norm.values, dtype)
    return spikes, final, found


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        namespace: str,
        counts: tuple[int, int],
        own: registration.Call,
        return_state: bool,
        given: tuple[Any, ...],
        x: Tensor,
        step: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        x, kept = constant.remember(ctx, x, step)
        if step is None:
            x = kept = dense(x)  # once, for the way back too
        states, constants = list(tensors[: counts[0]]), list(tensors[counts[0] :])
        with torch._C._AutoDispatchBelowAutograd():
            spikes, final, found, checkpoints, affine, moments = registration.operator(namespace, "norm_scan_forward")(
                x, states, constants, weight, bias, *given, True, return_state, own.sequences
            )
        ctx.namespace, ctx.counts, ctx.own, ctx.states = namespace, counts, own, len(final)
        ctx.has_weight, ctx.has_bias = weight is not None, bias is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(kept, affine, moments, checkpoints, *tensors)
        ctx.mark_non_differentiable(moments)
        return spikes, *final, *found, moments

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad: Tensor | None, *grads: Tensor | None) -> tuple[Any, ...]:
        kept, affine, moments, checkpoints, *tensors = saved_tensors(ctx)
        x = constant.recall(ctx, kept)
        grads_given, settings = registration.incoming(x, ctx.own, grad, grads[: ctx.states], grads[ctx.states : -1])
        states, constants = tensors[: ctx.counts[0]], tensors[ctx.counts[0] :]
        with torch._C._AutoDispatchBelowAutograd():
            of_x, of_states, of_constants, of_weight, of_bias = registration.operator(
                ctx.namespace, "norm_scan_backward"
            )(*grads_given, x, states, checkpoints, constants, affine, moments, *settings)
        numbers = (of_weight if ctx.has_weight else None, of_bias if ctx.has_bias else None)
        return None, None, None, None, None, *constant.gradients(x, of_x), *numbers, *of_states, *of_constants


class _Normalise(torch.autograd.Function):
    """From x, or the step of constant input, to itself and the neuron's ``affine``. Both gradients meet here, so that
    what the statistics add to x's is one pass over it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        count: int,
        process_group: dist.ProcessGroup | None,
        namespace: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | int]:
        constant.remember(ctx, x, step)
        out, x = (x, x) if step is None else (step, step.unsqueeze(0))
        sums = registration.operator(namespace, "channel_sums")(x)
        if step is not None:
            sums *= ctx.steps  # copies count as such: another process may have other input
        mean, variance, all_values = moments_of(sums, count, process_group)
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
        return out.view_as(out), affine, mean, variance, all_values

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad_x: Tensor | None, grad_affine: Tensor | None, *_: Any) -> tuple[Any, ...]:
        if ctx.steps and constant.wants_all_steps(ctx):
            raise RuntimeError(
                "stdano: x is the same at every step and has no gradient of its own behind BatchNorm, only the tensor "
                "that was expanded has; call x.retain_grad() or x.register_hook() before bn_neuron"
            )
        x, mean, inverse, scale, centre = ctx.saved_tensors
        if grad_affine is None:
            grad_affine = centre.new_zeros((3, centre.numel()))
        of_scale, of_shift = grad_affine[1].double(), grad_affine[2].double()
        shifted = centre - mean
        of_scale = of_scale + shifted * of_shift  # from centre to mean
        grad_weight = (of_scale * inverse).to(centre.dtype) if ctx.has_weight else None
        grad_bias = of_shift.to(centre.dtype) if ctx.has_bias else None
        out = None
        if grad_x is not None and ctx.needs_input_grad[1 if ctx.steps else 0]:
            sums = total(torch.stack((of_scale, of_shift)), ctx.process_group) / -ctx.all_values
            if ctx.steps:
                sums *= ctx.steps  # each copy has its part in the statistics
            slope = sums[0] * scale * inverse * inverse
            offset = sums[1] * scale + slope * shifted
            table = torch.stack((centre, slope, offset)).to(centre.dtype)
            if torch.compiler.is_compiling():
                out = registration.operator(ctx.namespace, "channel_affine")(grad_x, x, table)
            else:  # nobody else has the tensor, which comes from the neuron's backward
                registration.operator(ctx.namespace, "channel_affine_")(grad_x.view_as(x), x, table)
                out = grad_x
        of_x, of_step = (None, out) if ctx.steps else (out, None)
        return of_x, of_step, grad_weight, grad_bias, None, None, None, None

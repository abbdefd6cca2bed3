"""The super neuron of the search: several neurons on one input, each normalised, and their weighted sum (eq. 10).

Spikes are 0 or 1, so BatchNorm's statistics of them are counts, and the sum takes a few values in each channel.
Forward: one pass over x writes a code a byte and counts, one pass turns codes into the result. Backward: one pass over
the codes and the gradient sums up, one pass runs the neurons' adjoints together. Kept for backward: x, the codes, and a
few numbers a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import registration
from .backends import NAMES, select
from .checks import check_channels, check_input, check_tensor, dense
from .constant import is_constant
from .define.neuron import Neuron
from .functional import function, kernels_for, settle
from .members import check_neurons, settings_for
from .moments import (
    Moments,
    Statistics,
    check_statistics,
    statistics_of_nothing,
    total,
    total_with_count,
    update_running,
    values_per_channel,
)
from .settings import choice, compute_dtype, number
from .spec import OF_THE_PAPER, spec_of


def super_neuron(
    x: Tensor,
    weights: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    neurons: Sequence[str | type[Neuron] | Neuron] = ("lif", "llif", "slif"),
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    slif_v_reset: float | None = None,
    decay: str = "exp",
    decay_input: bool = False,
    surrogate: str = "triangle",
    alpha: float = 1.0,
    detach_reset: bool = False,
    detach_adapt: bool = False,
    spike: str = "hard",
    gamma: float = 0.1,
    beta: float = 0.1,
    tau_min: float = 1.05,
    process_group: dist.ProcessGroup | None = None,
    backend: str = "auto",
) -> Tensor:
    """The weighted sum of normalised neurons, ``y = sum_k weights[k] * BatchNorm_k(S_k(x))`` (eq. 10 of the paper).

    Each call is a sequence of its own: all neurons start from their resting state.

    Args:
        x: input ``[T, B, C, ...]``; dtypes and layouts as for :func:`stdano_kernels.lif`.
        weights: ``[K]``, the softmax of the architecture parameters; may require grad.
        running_mean, running_var: ``[K, C]``, the statistics of each neuron's spikes. Updated in place in training;
            used instead of the batch's otherwise. None (in training alone): nothing is updated.
        neurons: one to eight different ones, in their order in ``weights``: names, declarations, or declarations with
            settings of their own such as ``LIF(tau=4.0)``, which the arguments below do not change. Their spikes must
            be 0 or 1.
        training: normalise by the batch's own statistics.
        momentum: weight of the batch in the running statistics, from 0 to 1; a number, or a tensor of shape ``[]``,
            whose value is not looked at.
        eps: added to the variance.
        tau, v_threshold: as for :func:`stdano_kernels.lif`, but numbers.
        v_reset: reset of LIF, LLIF and others whose default is the hard one; None: soft.
        slif_v_reset: reset of SLIF and others whose default is the soft one; None: soft.
        gamma: of LLIF, see :func:`stdano_kernels.llif`.
        beta, tau_min: of SLIF, see :func:`stdano_kernels.slif`.
        detach_adapt: the adaptation of LLIF and SLIF counts as a constant in the backward pass.
        spike: ``"soft"`` runs the neurons one by one, BatchNorm and the sum (for gradient checks), as
            ``backend="reference"`` does.
        process_group: statistics over all processes of this group (every one must call, forward and backward);
            None: over this process alone.
        decay, decay_input, surrogate, alpha, detach_reset, backend: as for :func:`stdano_kernels.lif`.

    Returns:
        ``y``, like ``x``.

    Raises:
        ValueError, TypeError: an argument is wrong; or in training a channel has one value alone.
    """
    check_input(x)
    channels = check_channels(x)
    members = check_neurons(neurons)
    check_tensor("weights", weights, (len(members),), x)
    momentum, eps = check_statistics(
        running_mean, running_var, (len(members), channels), training, momentum, eps, process_group, x
    )
    given: dict[str, Any] = dict(
        tau=tau,
        v_threshold=v_threshold,
        v_reset=v_reset,
        decay=decay,
        decay_input=decay_input,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        detach_adapt=detach_adapt,
        spike=spike,
        gamma=gamma,
        beta=beta,
        tau_min=tau_min,
    )
    for name in ("tau", "v_threshold", "v_reset", "gamma", "beta", "tau_min"):
        if isinstance(value := given[name], Tensor):
            raise TypeError(f"{name} must be a number in a super neuron, got a tensor of shape {list(value.shape)}")
    if slif_v_reset is not None:
        number("slif_v_reset", slif_v_reset)
    own = [settings_for(type(member), given, slif_v_reset) | member.own for member in members]
    settled = [settle(spec_of(type(member)), settings, x) for member, settings in zip(members, own, strict=True)]
    for neuron in OF_THE_PAPER:  # the settings of neurons that are not there as well
        settle(spec_of(neuron), settings_for(neuron, given, None), x)
    choice("backend", backend, ("auto", *NAMES))
    chosen = select(backend, x)
    count = values_per_channel(x, training, process_group)
    if training and count == 0 and process_group is None:
        training, (running_mean, running_var) = False, statistics_of_nothing((len(members), channels), x)

    kernels: list[str] = []
    missing = None
    if chosen != "reference" and spike == "hard":
        chosen, kernels, missing = kernels_for([member for member, _ in settled], chosen, backend != "auto", x)
    if chosen == "reference" or spike == "soft" or missing is not None:
        if process_group is not None:
            raise ValueError('process_group must be None with soft spikes and with backend="reference"')
        outputs = [
            function(type(member))(x, backend=chosen, **settings) for member, settings in zip(members, own, strict=True)
        ]
        return _compose(outputs, weights, running_mean, running_var, training, float(momentum), eps)

    registration.refuse_transforms(x, weights)
    registration.refuse_vmap(x, weights)
    values = [float(value) for member, constants in settled for value in (*constants, member.alpha)]
    call = _Call(kernels, values, count, eps, process_group, registration.NAMESPACES[chosen])
    if not torch.compiler.is_compiling() and (process_group is None or not training):
        statistics = Statistics(running_mean, running_var, training, momentum, eps)
        y, moments = _Joint.apply(x, weights, statistics, call)
        statistics.move(moments, count, compute_dtype(x))
        return y
    y, mean, variance, all_values = _Apart.apply(
        x, weights, None if training else running_mean, None if training else running_var, call
    )
    if training:
        update_running(running_mean, running_var, Moments(mean, variance, all_values), momentum)
    return y


def _compose(
    outputs: list[Tensor],
    weights: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """The definition, one operation after the other."""
    y = torch.zeros_like(outputs[0])
    for k, spikes in enumerate(outputs):
        mean, var = (None if t is None else t[k] for t in (running_mean, running_var))
        normalised = F.batch_norm(spikes.flatten(0, 1), mean, var, None, None, training, momentum, eps)
        y = y + (weights[k] * normalised).to(y.dtype).unflatten(0, y.shape[:2])
    return y


class _Call(NamedTuple):
    """What a call is told besides tensors."""

    kernels: list[str]
    constants: list[float]  # of each neuron and behind them its alpha, one neuron after the other
    values: int  # of each channel, in this process
    eps: float
    process_group: dist.ProcessGroup | None
    namespace: str

    def operator(self, name: str) -> Any:
        return registration.operator(self.namespace, name)


class _Joint(torch.autograd.Function):
    """By one operator each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, statistics: Statistics, call: _Call) -> tuple[Tensor, Tensor]:
        x, dtype = x if is_constant(x) else dense(x), compute_dtype(x)  # of constant input no copies are kept
        given = (weights.to(dtype).contiguous(), *statistics.as_given(dtype))
        y, codes, moments = call.operator("super_neuron_forward")(x, *given, *call[:2])
        ctx.call, ctx.training = call, statistics.training
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, codes, moments)
        ctx.mark_non_differentiable(moments)
        return y, moments

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        call: _Call = ctx.call
        x, codes, moments = ctx.saved_tensors
        grad = torch.zeros_like(x) if grad is None else grad
        of_x, of_weights = call.operator("super_neuron_gradients")(grad, x, codes, moments, ctx.training, *call[:2])
        return of_x, of_weights, None, None


class _Apart(torch.autograd.Function):
    """By one operator a pass, for several processes, and for compiled graphs, which mutate nothing. Running statistics
    are None where the batch's own are taken."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, running_mean: Tensor | None, running_var: Tensor | None, call: _Call
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | int]:
        codes, counts = call.operator("super_neuron_encode")(x, *call[:2])
        all_values: Tensor | int = call.values
        if running_mean is None or running_var is None:
            counts, all_values = total_with_count(counts, call.values, call.process_group)
            mean = counts / all_values
            variance = mean * (1 - mean)
        else:
            mean, variance = running_mean.double(), running_var.double()
        inverse = torch.rsqrt(variance + call.eps)
        scale = weights.double()[:, None] * inverse
        offset = -(scale * mean).sum(0, keepdim=True)
        table = torch.cat((offset, scale))
        y = call.operator("super_neuron_decode")(codes, table.to(compute_dtype(x)), x)
        ctx.call, ctx.all_values, ctx.own_statistics = call, all_values, running_mean is None
        ctx.weights_dtype = weights.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, codes, mean, inverse, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance, all_values

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        call: _Call = ctx.call
        x, codes, mean, inverse, scale = ctx.saved_tensors
        grad = torch.zeros_like(x) if grad is None else grad  # other processes may wait for this one's sums
        sums = call.operator("super_neuron_sums")(codes, grad, len(call.kernels))
        of_y = sums[:1]
        of_spikes = (sums[1:] - mean * of_y) * inverse  # sum of grad times the normalised spikes
        grad_weights = of_spikes.sum(1).to(ctx.weights_dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            if ctx.own_statistics:
                totals = total(torch.cat((of_y, of_spikes)), call.process_group) / -ctx.all_values
                slope = totals[1:] * inverse
                silent = scale * (totals[:1] - slope * mean)
                fired = silent + scale * slope
            else:
                silent = fired = torch.zeros_like(scale)
            table = torch.stack((scale, silent, fired), 1).flatten(0, 1)
            grad_x = call.operator("super_neuron_backward")(grad, x, codes, table.to(compute_dtype(x)), *call[:2])
        return grad_x, grad_weights, None, None, None

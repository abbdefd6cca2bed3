"""The super neuron of the search: several neurons on one input, each normalised, and their weighted sum (eq. 10).

Spikes are 0 or 1, so BatchNorm's statistics of them are counts, and the sum takes one of eight values in each channel.
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
from .batch_norm import FUNCTIONS
from .checks import check_channels, check_input, check_tau, check_tensor
from .fakes import NEURONS
from .moments import (
    Moments,
    check_statistics,
    statistics_of_nothing,
    total,
    total_with_count,
    update_running,
    values_per_channel,
)
from .settings import Settings, choice, compute_dtype, make_settings, number


def super_neuron(
    x: Tensor,
    weights: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    neurons: Sequence[str] = NEURONS,
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
        neurons: which ones, and in which order in ``weights``: one to three of ``"lif"``, ``"llif"``, ``"slif"``.
        training: normalise by the batch's own statistics.
        momentum: weight of the batch in the running statistics, from 0 to 1; a number, or a tensor of shape ``[]``,
            whose value is not looked at.
        eps: added to the variance.
        tau, v_threshold: as for :func:`stdano_kernels.lif`, but numbers.
        v_reset: reset of LIF and LLIF; None: soft.
        slif_v_reset: reset of SLIF; None: soft.
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
    order = _check_neurons(neurons)
    check_tensor("weights", weights, (len(order),), x)
    momentum, eps = check_statistics(
        running_mean, running_var, (len(order), channels), training, momentum, eps, process_group, x
    )
    common: dict[str, Any] = dict(
        decay=decay,
        decay_input=decay_input,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        spike=spike,
        tau_min=tau_min,
        detach_adapt=detach_adapt,
    )
    settings = make_settings(v_reset=v_reset, rate=gamma, rate_name="gamma", **common)
    if slif_v_reset is not None:
        number("slif_v_reset", slif_v_reset)
    slif_settings = make_settings(v_reset=slif_v_reset, rate=beta, rate_name="beta", **common)
    for name, value in (("tau", tau), ("v_threshold", v_threshold)):
        if isinstance(value, Tensor):
            raise TypeError(f"{name} must be a number in a super neuron, got a tensor of shape {list(value.shape)}")
    tau = check_tau(tau, x, settings)  # type: ignore[assignment]
    v_threshold = number("v_threshold", v_threshold)
    choice("backend", backend, ("auto", *NAMES))
    chosen = select(backend, x)
    count = values_per_channel(x, training, process_group)
    if training and count == 0 and process_group is None:
        training, (running_mean, running_var) = False, statistics_of_nothing((len(order), channels), x)

    if chosen == "reference" or settings.soft_spike:
        if process_group is not None:
            raise ValueError('process_group must be None with soft spikes and with backend="reference"')
        outputs = []
        for name in neurons:
            own: dict[str, Any] = {"v_reset": slif_v_reset if name == "slif" else v_reset}
            own |= {"lif": {}, "llif": {"gamma": gamma}, "slif": {"beta": beta, "tau_min": tau_min}}[name]
            shared = {k: v for k, v in common.items() if k != "tau_min" and not (k == "detach_adapt" and name == "lif")}
            outputs.append(FUNCTIONS[name](x, tau=tau, v_threshold=v_threshold, backend=chosen, **shared, **own))
        return _compose(outputs, weights, running_mean, running_var, training, float(momentum), eps)

    registration.refuse_transforms(x, weights)
    registration.refuse_vmap(x, weights)
    call = _Call(
        order,
        _operator_settings(order, tau, v_threshold, settings, slif_settings),
        count,
        eps,
        process_group,
        registration.NAMESPACES[chosen],
    )
    y, mean, variance, all_values = _SuperNeuron.apply(
        x, weights, None if training else running_mean, None if training else running_var, call
    )
    if training:
        update_running(running_mean, running_var, Moments(mean, variance, all_values), momentum)
    return y


def _check_neurons(neurons: Sequence[str]) -> tuple[int, ...]:
    names = tuple(neurons) if isinstance(neurons, Sequence) and not isinstance(neurons, str) else ()
    if not names or any(name not in NEURONS for name in names) or len(set(names)) != len(names):
        raise ValueError(f"neurons must be one to three different ones of {', '.join(NEURONS)}, got {neurons!r}")
    return tuple(NEURONS.index(name) for name in names)


def _operator_settings(
    order: tuple[int, ...], tau: float, v_threshold: float, settings: Settings, slif: Settings
) -> tuple:
    """The operators' arguments from ``neurons`` on, as csrc/ops.cpp has them."""
    present = sum(1 << k for k in order)
    _, _, tau_min, linear, decay_input, surrogate, alpha, _, detach_reset, detach_adapt = settings.as_arguments()
    resets = (settings.v_reset, slif.v_reset)
    rates = (settings.rate, slif.rate)
    return (
        *(present, tau, v_threshold, *resets, *rates, tau_min),
        *(linear, decay_input, surrogate, alpha, detach_reset, detach_adapt),
    )


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

    order: tuple[int, ...]  # of each weight, the neuron's number: 0 LIF, 1 LLIF, 2 SLIF
    settings: tuple
    values: int  # of each channel, in this process
    eps: float
    process_group: dist.ProcessGroup | None
    namespace: str

    def operator(self, name: str) -> Any:
        return registration.operator(self.namespace, name)

    @property
    def in_order(self) -> bool:
        return self.order == tuple(range(len(NEURONS)))

    # A list as an index would become a tensor of the CPU's, whose copy to a GPU is waited for.
    def pick(self, rows: Tensor) -> Tensor:
        """Rows of LIF, LLIF and SLIF in the order of the weights."""
        return rows if self.in_order else torch.stack([rows[k] for k in self.order])

    def place(self, rows: Tensor) -> Tensor:
        """The reverse; zeros for a neuron that is not there."""
        if self.in_order:
            return rows
        none = torch.zeros_like(rows[0])
        return torch.stack([rows[self.order.index(k)] if k in self.order else none for k in range(len(NEURONS))])


class _SuperNeuron(torch.autograd.Function):
    """Running statistics are None where the batch's own are taken."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, running_mean: Tensor | None, running_var: Tensor | None, call: _Call
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | int]:
        codes, counts = call.operator("super_neuron_encode")(x, *call.settings)
        all_values: Tensor | int = call.values
        if running_mean is None or running_var is None:
            counts, all_values = total_with_count(counts, call.values, call.process_group)
            mean = call.pick(counts) / all_values
            variance = mean * (1 - mean)
        else:
            mean, variance = running_mean.double(), running_var.double()
        inverse = torch.rsqrt(variance + call.eps)
        scale = weights.double()[:, None] * inverse
        offset = -(scale * mean).sum(0, keepdim=True)
        table = torch.cat((offset, call.place(scale)))
        y = call.operator("super_neuron_decode")(codes, table.to(compute_dtype(x)), x)
        ctx.call, ctx.all_values, ctx.own_statistics = call, all_values, running_mean is None
        ctx.weights_dtype = weights.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, codes, mean, inverse, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance, all_values

    @staticmethod
    @registration.differentiable_once
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple:
        call: _Call = ctx.call
        x, codes, mean, inverse, scale = ctx.saved_tensors
        grad = torch.zeros_like(x) if grad is None else grad  # other processes may wait for this one's sums
        sums = call.operator("super_neuron_sums")(codes, grad)
        of_y = sums[:1]
        of_spikes = (call.pick(sums[1:]) - mean * of_y) * inverse  # sum of grad times the normalised spikes
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
            table = call.place(torch.stack((scale, silent, fired), 1)).flatten(0, 1)
            grad_x = call.operator("super_neuron_backward")(grad, x, codes, table.to(compute_dtype(x)), *call.settings)
        return grad_x, grad_weights, None, None, None

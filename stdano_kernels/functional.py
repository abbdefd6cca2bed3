"""The neurons as functions: tensors in, tensors out, no state but what the caller passes.

Arguments are checked here, once, before anything is computed; the backends trust them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import reference, registration
from .backends import NAMES, select
from .checks import check_affine, check_constant, check_input, check_state, check_tau
from .settings import Settings, choice, flag, make_settings


class LIFState(NamedTuple):
    """State of :func:`lif` between two calls: ``v``, the potential after the reset, of shape ``x.shape[1:]``."""

    v: Tensor


class LLIFState(NamedTuple):
    """State of :func:`llif`: potential ``v`` and threshold ``theta`` of the next step, each ``x.shape[1:]``."""

    v: Tensor
    theta: Tensor


class SLIFState(NamedTuple):
    """State of :func:`slif`: potential ``v`` and residual potential ``p`` of the last step, each ``x.shape[1:]``."""

    v: Tensor
    p: Tensor


torch.serialization.add_safe_globals([LIFState, LLIFState, SLIFState])  # for torch.load(weights_only=True)

State = LIFState | LLIFState | SLIFState
Output = Tensor | tuple[Tensor, State] | tuple[Tensor, Tensor] | tuple[Tensor, State, Tensor]


def lif(
    x: Tensor,
    *,
    tau: float | Tensor = 2.0,
    v_threshold: float | Tensor = 1.0,
    v_reset: float | None = 0.0,
    decay: str = "exp",
    decay_input: bool = False,
    surrogate: str = "triangle",
    alpha: float = 1.0,
    detach_reset: bool = False,
    spike: str = "hard",
    affine: Tensor | None = None,
    state: LIFState | tuple[Tensor] | None = None,
    return_state: bool = False,
    return_v_seq: bool = False,
    backend: str = "auto",
) -> Output:
    """Leaky integrate-and-fire over all time steps in one kernel (eqs. 1 to 3 of the paper).

    With ``r = v_reset`` (0 for the soft reset)::

        h[t] = a*(v[t-1] - r) + r + c*x[t];   s[t] = 1 if h[t] >= v_threshold else 0
        v[t] = r where s[t] else h[t]         (hard)    or    h[t] - s[t]*v_threshold    (soft)

    Args:
        x: input ``[T, ...]``, float32, float64, float16 or bfloat16, in any memory layout. Half precision is
            computed in float32. T or any other size may be 0.
        tau: time constant in time steps, above 0 (above 1 with ``decay="linear"``). A number, or a tensor of shape
            ``[]`` or ``[C]`` with C the size of dimension 2 of ``x: [T, B, C, ...]``, which may require grad. The
            number ``float("inf")`` is no leak, integrate-and-fire: a = 1 exactly (not with ``decay_input``).
        v_threshold: threshold; a number or a tensor as for ``tau``.
        v_reset: potential after a spike (hard reset), or None for the soft reset.
        decay: ``"exp"``: a = exp(-1/tau), the paper's eq. 3; ``"linear"``: a = 1 - 1/tau, SpikingJelly's.
        decay_input: c = 1/tau instead of 1.
        surrogate, alpha: stands in for the derivative of the spike; see :mod:`stdano_kernels.surrogate`.
        detach_reset: no gradient through the spike in the reset.
        spike: ``"soft"`` emits the surrogate's primitive, which makes the whole function differentiable.
        affine: ``[3, C]``, the rows centre, scale and shift: the neuron's input is then ``scale*(x - centre) + shift``
            with the numbers of each channel (dimension 2 of ``x: [T, B, C, ...]``), computed in registers and never
            stored. It may require grad. This is how :func:`stdano_kernels.bn_neuron` normalises.
        state: continues a sequence, exactly, in values and gradients. None starts from ``v = r``.
        return_state: also return the state after the last step.
        return_v_seq: also return the potentials after the reset, ``[T, ...]``.
        backend: ``"auto"``, or a name from :func:`stdano_kernels.backends`, which then never falls back.

    Returns:
        Spikes like ``x``; with options a tuple of spikes, state and potentials, in this order. States are float32
        (float64 for float64 input).

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it, its value and what is allowed.
        RuntimeError: the backend is not available here.
    """
    settings = make_settings(
        v_reset=v_reset,
        decay=decay,
        decay_input=decay_input,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        spike=spike,
        rate=0.0,
        rate_name="rate",
        tau_min=2.0,
        detach_adapt=False,
    )
    return _neuron("lif", x, tau, v_threshold, affine, settings, state, return_state, return_v_seq, backend)


def llif(
    x: Tensor,
    *,
    tau: float | Tensor = 2.0,
    v_threshold: float | Tensor = 1.0,
    v_reset: float | None = 0.0,
    decay: str = "exp",
    decay_input: bool = False,
    surrogate: str = "triangle",
    alpha: float = 1.0,
    detach_reset: bool = False,
    spike: str = "hard",
    gamma: float = 0.1,
    detach_adapt: bool = False,
    affine: Tensor | None = None,
    state: LLIFState | tuple[Tensor, Tensor] | None = None,
    return_state: bool = False,
    return_v_seq: bool = False,
    backend: str = "auto",
) -> Output:
    """Long-LIF: inhibitory input accumulates in the threshold (eqs. 6 and 7 of the paper)::

        theta[t+1] = theta[t] + gamma*tanh(I[t]),   I = max(x, 0) - x,   theta[0] = v_threshold

    Arguments, results and errors as for :func:`lif`, and:

    Args:
        gamma: how much inhibitory input raises the threshold.
        detach_adapt: theta counts as a constant in the backward pass; then v_threshold gets no gradient either.
    """
    settings = make_settings(
        v_reset=v_reset,
        decay=decay,
        decay_input=decay_input,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        spike=spike,
        rate=gamma,
        rate_name="gamma",
        tau_min=2.0,
        detach_adapt=detach_adapt,
    )
    return _neuron("llif", x, tau, v_threshold, affine, settings, state, return_state, return_v_seq, backend)


def slif(
    x: Tensor,
    *,
    tau: float | Tensor = 2.0,
    v_threshold: float | Tensor = 1.0,
    v_reset: float | None = None,
    decay: str = "exp",
    decay_input: bool = False,
    surrogate: str = "triangle",
    alpha: float = 1.0,
    detach_reset: bool = False,
    spike: str = "hard",
    beta: float = 0.1,
    tau_min: float = 1.05,
    detach_adapt: bool = False,
    affine: Tensor | None = None,
    state: SLIFState | tuple[Tensor, Tensor] | None = None,
    return_state: bool = False,
    return_v_seq: bool = False,
    backend: str = "auto",
) -> Output:
    """Short-LIF: a spike's residual potential shortens the next time constant (eqs. 8 and 9 of the paper)::

        p[t] = s[t]*(h[t] - v_threshold);   tau[t+1] = max(tau_min, tau - beta*tanh(p[t]))

    Soft reset by default. Arguments, results and errors as for :func:`lif`, and:

    Args:
        beta: how much the residual potential shortens the time constant.
        tau_min: lower bound of the time constant, in time steps.
        detach_adapt: p counts as a constant in the backward pass.
    """
    settings = make_settings(
        v_reset=v_reset,
        decay=decay,
        decay_input=decay_input,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        spike=spike,
        rate=beta,
        rate_name="beta",
        tau_min=tau_min,
        detach_adapt=detach_adapt,
    )
    return _neuron("slif", x, tau, v_threshold, affine, settings, state, return_state, return_v_seq, backend)


_STATES: dict[str, type[State]] = {"lif": LIFState, "llif": LLIFState, "slif": SLIFState}


def _neuron(
    name: str,
    x: Tensor,
    tau: float | Tensor,
    v_threshold: float | Tensor,
    affine: Tensor | None,
    settings: Settings,
    state: tuple[Tensor, ...] | None,
    return_state: bool,
    return_v_seq: bool,
    backend: str,
) -> Output:
    check_input(x)
    tau = check_tau(tau, x, settings)
    v_threshold = check_constant("v_threshold", v_threshold, x)
    affine = check_affine(affine, x)
    states = check_state(_STATES[name].__name__, _STATES[name]._fields, state, x)
    flag("return_state", return_state)
    flag("return_v_seq", return_v_seq)
    choice("backend", backend, ("auto", *NAMES))
    backend = select(backend, x)

    v, adapt = (*states, None, None)[:2]
    arguments = (name, x, v, adapt, tau, v_threshold, affine, settings, return_state, return_v_seq)
    if backend == "reference":
        spikes, final, v_seq = reference_call(*arguments)
    else:
        spikes, final, v_seq = registration.call(*arguments, namespace=registration.NAMESPACES[backend])
    if not (return_state or return_v_seq):
        return spikes
    extras: list = [_STATES[name](*final[: len(_STATES[name]._fields)])] if return_state else []
    return (spikes, *extras, v_seq) if return_v_seq else (spikes, *extras)


def reference_call(
    name: str,
    x: Tensor,
    v: Tensor | None,
    adapt: Tensor | None,
    tau: float | Tensor,
    v_threshold: float | Tensor,
    affine: Tensor | None,
    settings: Settings,
    return_state: bool,
    return_v_seq: bool,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """The reference backend in the form of :func:`stdano_kernels.registration.call`."""
    spikes, v, adapt, potentials = reference.neuron(name, x, v, adapt, tau, v_threshold, affine, settings)
    v_seq = torch.stack(potentials) if potentials else torch.empty_like(spikes)
    return spikes, (v,) if adapt is None else (v, adapt), v_seq

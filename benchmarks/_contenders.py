"""What is timed against what: the backends of stdano, and the same work by PyTorch and by SpikingJelly.

PyTorch and SpikingJelly each get two tries, and the table shows the faster one, so that no opponent is weak by the way
it is written: the reference backend and the plain equations below; LIFNode as it comes and with LIF's equations.
_composed.py has the contenders of what stands around a neuron: BatchNorm, and the super neuron; _own.py those of a
neuron that is declared there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

import stdano_kernels

NEURONS = ("lif", "llif", "slif")  # the paper's
# unfused: stdano's neurons beside F.batch_norm; shipped_lif: stdano's LIF, for a neuron of one's own
OPPONENTS = ("eager", "compile", "spikingjelly", "unfused", "shipped_lif")

Function = Callable[..., Tensor]  # of x and the case's further leaves


@dataclass(frozen=True)
class Contender:
    """One implementation of a neuron; ``build`` makes its function and may raise where it does not work here."""

    implementation: str  # a backend's name or one of OPPONENTS
    variant: str  # which of several ways, "" where there is one
    build: Callable[[], Function]


class _Spike(torch.autograd.Function):
    """Heaviside with the triangle surrogate, alpha = 1."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad * (1 - u.abs()).clamp(min=0)


fire = _Spike.apply


def computed_in(x: Tensor) -> Tensor:
    """Half precision is computed in float32 by every contender that lets us choose."""
    return x if x.dtype == torch.float64 else x.float()


def plain_lif(x: Tensor, tau: float = 2.0, threshold: float = 1.0) -> Tensor:
    """LIF as one writes it down: h = a*v + x, s = h >= threshold, v = (1 - s)*h."""
    a, spikes = math.exp(-1 / tau), []
    v: Tensor | float = 0.0
    for xt in computed_in(x).unbind(0):
        h = a * v + xt
        s = fire(h - threshold)
        v = (1 - s) * h
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype)


def plain_llif(x: Tensor, tau: float = 2.0, threshold: float = 1.0, gamma: float = 0.1) -> Tensor:
    """LIF whose threshold grows by gamma*tanh(I), I = max(x, 0) - x, with every step's inhibitory input."""
    a, spikes = math.exp(-1 / tau), []
    v: Tensor | float = 0.0
    theta: Tensor | float = threshold
    for xt in computed_in(x).unbind(0):
        h = a * v + xt
        s = fire(h - theta)
        v = (1 - s) * h
        theta = theta + gamma * torch.tanh(torch.relu(-xt))
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype)


def plain_slif(x: Tensor, tau: float = 2.0, threshold: float = 1.0, beta: float = 0.1, tau_min: float = 1.05) -> Tensor:
    """Soft-reset LIF whose time constant is tau - beta*tanh(p), at least tau_min, p = s*u of the step before."""
    a: Tensor | float = math.exp(-1 / tau)
    v: Tensor | float = 0.0
    spikes = []
    for xt in computed_in(x).unbind(0):
        h = a * v + xt
        u = h - threshold
        s = fire(u)
        v = h - s * threshold
        a = torch.exp(-1 / (tau - beta * torch.tanh(s * u)).clamp(min=tau_min))
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype)


PLAIN: dict[str, Function] = {"lif": plain_lif, "llif": plain_llif, "slif": plain_slif}


def available_backends(device: str) -> list[str]:
    """The compiled backends that serve a device; the reference where there is none."""
    names = []
    for name, status in stdano_kernels.backends().items():
        if name == "reference" or not status.available:
            continue
        try:
            stdano_kernels.lif(torch.zeros(1, 1, device=device), backend=name)
        except (ValueError, RuntimeError):
            continue  # for another device
        names.append(name)
    return names or ["reference"]


def spikingjelly_version() -> str:
    """The installed version of SpikingJelly, "" where there is none."""
    try:
        return metadata.version("spikingjelly")
    except metadata.PackageNotFoundError:
        return ""


def contenders(neuron: str, device: str, training: bool, compiled: bool, spikingjelly: bool) -> list[Contender]:
    """Everything that is timed for one neuron and pass, stdano's backends first."""
    public = getattr(stdano_kernels, neuron)
    sources = {"reference backend": partial(public, backend="reference"), "plain equations": PLAIN[neuron]}
    out = [ready(name, "", partial(public, backend=name)) for name in available_backends(device)]
    out += eager_and_compiled(sources, compiled)
    if spikingjelly and neuron == "lif" and spikingjelly_version():
        out += [
            Contender("spikingjelly", "LIFNode()", partial(_spikingjelly, device, training, False)),
            Contender("spikingjelly", "LIFNode, equations of lif", partial(_spikingjelly, device, training, True)),
        ]
    return out


def ready(implementation: str, variant: str, function: Function) -> Contender:
    """A contender whose function needs no building."""
    return Contender(implementation, variant, lambda: function)


def eager_and_compiled(sources: dict[str, Function], compiled: bool) -> list[Contender]:
    """PyTorch's two tries, one a variant, as they are and (if asked for) compiled."""
    out = [ready("eager", variant, f) for variant, f in sources.items()]
    return out + [Contender("compile", variant, partial(_compile, f)) for variant, f in sources.items() if compiled]


def _compile(function: Function) -> Function:
    def own(*inputs: Tensor) -> Tensor:  # torch.compile wants a function where this may be a partial
        return function(*inputs)

    return torch.compile(own, dynamic=False, fullgraph=True)


def _spikingjelly(device: str, training: bool, same_equations: bool) -> Function:
    from spikingjelly.activation_based import neuron, surrogate

    options: dict[str, Any] = {}  # on a GPU it chooses its fused kernels itself
    if same_equations:  # but for a = 1 - 1/tau, which costs the same
        options = {"decay_input": False, "surrogate_function": surrogate.PiecewiseQuadratic(alpha=1.0)}
    node = neuron.LIFNode(step_mode="m", **options).to(device).train(training)

    def run(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return run

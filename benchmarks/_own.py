"""A neuron of one's own: what a dozen lines of a declaration cost against the same written in PyTorch and SpikingJelly.

It is declared here and not taken from the library, so what is timed is a kernel compiled at first use. Among the
opponents is stdano's LIF: what the declared threshold costs beyond that.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from _contenders import (
    Contender,
    Function,
    available_backends,
    computed_in,
    eager_and_compiled,
    fire,
    ready,
    spikingjelly_version,
)
from _timing import Case
from torch import Tensor

import stdano_kernels
from stdano_kernels import Constant, Neuron, State
from stdano_kernels.define import spike

KAPPA, TAU_ADAPT = 0.1, 20.0


class ALIF(Neuron):
    """Adaptive LIF: each spike raises the threshold by kappa, and the rise decays."""

    v = State()
    b = State(0.0)
    tau_adapt = Constant(TAU_ADAPT, above=0.0)
    kappa = Constant(KAPPA)

    def step(n, x, v, b):
        h = n.charge(x, v)
        theta = n.v_threshold + n.kappa * b
        s = spike(h - theta)
        return s, n.reset(h, s, theta), n.decay(n.tau_adapt) * b + s


alif = stdano_kernels.function(ALIF)


def plain_alif(x: Tensor, tau: float = 2.0, threshold: float = 1.0) -> Tensor:
    """The same as one writes it down."""
    a, decay, spikes = math.exp(-1 / tau), math.exp(-1 / TAU_ADAPT), []
    v: Tensor | float = 0.0
    b: Tensor | float = 0.0
    for xt in computed_in(x).unbind(0):
        h = a * v + xt
        s = fire(h - (threshold + KAPPA * b))
        v = (1 - s) * h
        b = decay * b + s
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype)


def spikingjelly_alif(device: str, training: bool) -> Function:
    """The same as its users write a neuron: a subclass with the charge, the spike and the reset of one step."""
    from spikingjelly.activation_based import neuron, surrogate

    class Node(neuron.SimpleBaseNode):
        def __init__(self) -> None:
            super().__init__(surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0), step_mode="m")
            self.register_memory("b", 0.0)
            self.a, self.decay = math.exp(-1 / 2.0), math.exp(-1 / TAU_ADAPT)

        def neuronal_charge(self, x: Tensor) -> None:
            self.v = self.a * self.v + x

        def neuronal_fire(self) -> Tensor:
            return self.surrogate_function(self.v - (self.v_threshold + KAPPA * self.b))

        def neuronal_reset(self, spike: Tensor) -> None:
            super().neuronal_reset(spike)
            self.b = self.decay * self.b + spike

    node = Node().to(device).train(training)

    def run(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return run


def own_case(passes: str, dtype: str, shape: tuple[int, ...], device: str) -> Case:
    return Case("own_alif", passes, dtype, shape, device)


def own_contenders(case: Case, compiled: bool, spikingjelly: bool) -> list[Contender]:
    """Everything that is timed for a case of :func:`own_case`, stdano's backends first."""
    backends = available_backends(case.device)
    sources = {"reference backend": partial(alif, backend="reference"), "plain equations": plain_alif}
    out = [ready(name, "", partial(alif, backend=name)) for name in backends]
    out += eager_and_compiled(sources, compiled)
    if spikingjelly and spikingjelly_version():
        build = partial(spikingjelly_alif, case.device, case.passes == "train")
        out.append(Contender("spikingjelly", "a SimpleBaseNode", build))
    return [*out, ready("shipped_lif", "", stdano_kernels.lif)]

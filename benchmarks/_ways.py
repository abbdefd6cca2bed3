"""The ways in which training.py computes a network: the same weights, the same equations, other code.

The neuron is LIF with tau = 2 and the triangle surrogate. SpikingJelly's LIFNode decays by ``1 - 1/tau``, so its tau is
the one that decays as fast; then the ways differ by rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from _networks import NETWORKS, NetworkCase, NeuronMaker
from _options import LAYOUTS
from _timing import DTYPES
from torch import Tensor, nn

import stdano
from stdano.nodes.neurons import SPIKINGJELLY_NEURONS, is_spikingjellys

TAU = 2.0
LEARNING_RATE = 1e-6  # so small that each step does the work of the first
Built = tuple[nn.Module, Callable[[Tensor], Tensor]]  # the network, and what is called


def _network(case: NetworkCase, neuron: NeuronMaker) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[case.network].build(case, neuron).to(case.device, memory_format=LAYOUTS[case.layout])


def _plain(case: NetworkCase) -> Built:
    net = _network(case, lambda _: stdano.LIFNode(tau=TAU))
    return net, net


def _fused(case: NetworkCase) -> Built:
    net, _ = _plain(case)
    stdano.fuse(net)
    return net, net


def _compiled(case: NetworkCase) -> Built:
    torch.compiler.reset()
    net = _network(case, lambda _: stdano.LIFNode(tau=TAU, backend="reference"))
    return net, torch.compile(net, dynamic=False, fullgraph=True)


def _spikingjelly(case: NetworkCase) -> Built:
    from spikingjelly.activation_based import neuron, surrogate

    def node(_: int) -> nn.Module:
        triangle = surrogate.PiecewiseQuadratic(alpha=1.0)
        tau = 1 / (1 - math.exp(-1 / TAU))
        return neuron.LIFNode(tau=tau, decay_input=False, surrogate_function=triangle, step_mode="m")

    net = _network(case, node)
    return net, net


def _memopt(case: NetworkCase) -> Built:
    """Level 1: every block is computed again in the backward pass, and its input is kept as bits where it is binary.
    The levels above it search by trial for a split, on a GPU alone."""
    from spikingjelly.activation_based import memopt

    net, _ = _spikingjelly(case)
    images = torch.randn(case.batch, 3, case.size, case.size, device=case.device)
    memopt.optimize_memory(net, NETWORKS[case.network].block(), lambda model: model(images), level=1)
    stdano.reset_net(net)
    return net, net


# How a network is built, and what its steps run within.
WAYS: dict[str, tuple[Callable[[NetworkCase], Built], Callable[[], AbstractContextManager]]] = {
    "plain": (_plain, nullcontext),
    "fused": (_fused, nullcontext),
    "packed": (_fused, stdano.packed_spikes),
    "compiled": (_compiled, nullcontext),
    "spikingjelly": (_spikingjelly, nullcontext),
    "spikingjelly-memopt": (_memopt, nullcontext),
}


class Step:
    """A train step of one way: forward, loss, backward, SGD with momentum. Each begins with neurons at rest, and
    leaves neither gradients nor states behind.

    Attributes:
        context: makes what all of it is called within.
        neurons: SpikingJelly's, which have no operator of their own on a CPU.
    """

    def __init__(self, case: NetworkCase, way: str) -> None:
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(case.batch, 3, case.size, case.size, generator=generator)
        self.images = images.to(case.device, memory_format=LAYOUTS[case.layout])
        self.labels = torch.randint(case.classes, (case.batch,), generator=generator).to(case.device)
        build, self.context = WAYS[way]
        self.net, self.call = build(case)
        self.neurons = [m for m in self.net.modules() if is_spikingjellys(m, *SPIKINGJELLY_NEURONS)]
        self.autocast = torch.autocast(
            torch.device(case.device).type, DTYPES[case.dtype], enabled=case.dtype != "float32"
        )
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def loss(self) -> Tensor:
        """The forward pass, to be called within :attr:`context` as the backward pass is."""
        with stdano.stateless(self.net), self.autocast:
            return F.cross_entropy(self.call(self.images).mean(0), self.labels)

    def release(self) -> None:
        self.optimiser.zero_grad()
        stdano.reset_net(self.net)

    def __call__(self) -> None:
        with self.context():
            self.loss().backward()
            self.optimiser.step()
            self.release()

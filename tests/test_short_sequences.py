"""Sequences of 4 steps have loops of their own, for constant tau and v_threshold: they must give the bits of the
general loops, which a tau given as a tensor takes."""

import pytest
import torch

import stdano_kernels
from stdano_kernels.registration import NEURONS

STEPS = 4  # kShort in csrc/cpu/passes.h


@pytest.mark.parametrize("surrogate", stdano_kernels.SURROGATES)
@pytest.mark.parametrize("v_reset", [0.0, 0.25, None], ids=["hard", "hard 0.25", "soft"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("shape", [(7,), (2, 3, 1111)], ids=str)
def test_the_same_bits_as_the_general_loops(neuron, v_reset, surrogate, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, *shape, generator=generator) * 1.5
    gs = torch.randn(x.shape, generator=generator)
    states = [torch.rand(shape, generator=generator) for _ in range(1 if neuron == "lif" else 2)]

    def run(tau, steps):
        inputs = [t.clone().requires_grad_() for t in (x[:steps], *states)]
        function = getattr(stdano_kernels, neuron)
        s = function(
            inputs[0], tau=tau, v_reset=v_reset, surrogate=surrogate, state=tuple(inputs[1:]), decay_input=True
        )
        s.backward(gs[:steps])
        with torch.no_grad():
            without_grad = function(inputs[0], tau=tau, v_reset=v_reset, state=tuple(inputs[1:]), decay_input=True)
        return [s, without_grad, *(t.grad for t in inputs)]

    short, general = run(1.7, STEPS), run(torch.tensor(1.7), STEPS)
    assert 0 < short[0].mean() < 1 and short[2].abs().max() > 0
    for a, b in zip(short, general, strict=True):
        assert torch.equal(a, b)

"""Random declarations: compiled kernels against the reference, and against each other."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from kernels_common import LEVELS, assert_same_bits, make_x
from random_neurons import declarations

from stdano_kernels import compiler, function

# Each example costs two or three compilations, so a failing one is not made smaller.
FEW = dict(phases=(Phase.explicit, Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck), deadline=None)


def results(neuron, settings, x, backend, learned=()):
    """Spikes, final states, states after every step, and the gradients of x and of the constants ``learned``."""
    leaves = [x.detach().requires_grad_()]
    leaves += [torch.tensor(float(settings[name]), dtype=x.dtype).requires_grad_() for name in learned]
    tensors = {**settings, **dict(zip(learned, leaves[1:], strict=True))}
    spikes, final, sequences = function(neuron)(
        leaves[0], return_state=True, return_sequences=tuple(neuron.states), backend=backend, **tensors
    )
    weight = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view(x.shape)
    outputs = [(spikes, weight), *[(t, weight.sum(0).cos().expand(t.shape)) for t in sequences]]
    outputs += [(t, torch.ones(t.shape)) for t in final]
    # Computed on the CPU, so that they are the same everywhere.
    roots, cotangents = zip(*((t, w.to(t)) for t, w in outputs if t.requires_grad), strict=True)
    grads = torch.autograd.grad(roots, leaves, cotangents, materialize_grads=True)
    names = ["spikes", *neuron.states, *[f"{name} after every step" for name in neuron.states]]
    names += [f"grad {name}" for name in ("x", *learned)]
    return dict(zip(names, [t.detach() for t in (spikes, *final, *sequences, *grads)], strict=True))


def check(neuron, settings):
    hard = {**settings, "alpha": 0.75}
    x = make_x((9, 2, 3, 5), torch.float64)
    defaults = {name: c.default for name, c in neuron.constants.items() if name.startswith("c")}
    soft = {**defaults, **hard, "spike": "soft"}
    learned = ["tau", "v_threshold", *[name for name in defaults if name in function(neuron).__signature__.parameters]]
    # Values within float64's rounding through nine steps, whose derivatives may grow by 4 a step.
    for own, names in ((soft | {"v_threshold": 0.9}, learned), (hard, ())):
        ours, theirs = (results(neuron, own, x, backend, names) for backend in ("cpu", "reference"))
        for name, expected in theirs.items():
            scale = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(ours[name], expected, rtol=1e-8, atol=1e-9 * scale, msg=lambda m, n=name: n + m)
    try:
        by_level = []
        for level in LEVELS:
            compiler.use_level(level)
            by_level.append(results(neuron, hard, x.float(), "cpu"))
    finally:
        compiler.use_level(LEVELS[-1])
    for other in by_level[1:]:
        assert_same_bits(other, by_level[0])


@hypothesis_settings(max_examples=3, derandomize=True, **FEW)
@given(declarations())
def test_random_declarations(drawn):
    check(*drawn)


@pytest.mark.exhaustive
@hypothesis_settings(max_examples=6, **FEW)
@given(declarations())
def test_more_random_declarations(drawn):
    check(*drawn)

"""What is not a number stays so: a NaN in the input of a neuron shows in its gradient, as in the reference, and in no
other neuron's. And the smallest time constants have finite gradients."""

import pytest
import torch
from kernels_common import FUNCTIONS, every_neuron, every_neuron_of_the_paper, every_surrogate

from stdano_kernels import super_neuron

SHORT, LONG = 4, 19  # loops of their own, and checkpoints


def gradient(neuron, x, **settings):
    x = x.clone().requires_grad_()
    FUNCTIONS[neuron](x, **settings).sum().backward()
    return x.grad


@every_neuron
@every_surrogate
@pytest.mark.parametrize("spike", ("hard", "soft"))
@pytest.mark.parametrize("steps", (SHORT, LONG))
@pytest.mark.parametrize("v_reset", (None, 0.0))
def test_a_gradient_is_nan_where_the_references_is(neuron, surrogate, spike, steps, v_reset):
    x = 0.3 * torch.randn(steps, 40)
    x[steps // 2, 3] = float("nan")
    settings = dict(surrogate=surrogate, spike=spike, v_reset=v_reset)
    ours, reference = (gradient(neuron, x, backend=backend, **settings) for backend in ("cpu", "reference"))
    assert torch.equal(ours.isnan(), reference.isnan())
    assert ours[steps // 2, 3].isnan() and not ours[:, :3].isnan().any() and not ours[:, 4:].isnan().any()


@every_surrogate
def test_through_a_super_neuron(surrogate):
    x = 0.5 * torch.randn(SHORT, 2, 3, 5)
    x[1, 1, 1, 1] = float("nan")
    found = []
    for backend in ("cpu", "reference"):
        leaf = x.clone().requires_grad_()
        y = super_neuron(leaf, torch.ones(3) / 3, None, None, training=True, surrogate=surrogate, backend=backend)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        assert leaf.grad[1, 1, 1, 1].isnan() and leaf.grad[0].isnan().sum() <= 1
        found.append(leaf.grad.isnan())
    assert torch.equal(*found)


@every_neuron_of_the_paper
@pytest.mark.parametrize("decay_input", (False, True))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("tau", (1e-38, 1e-30, 1e-19, 1e-18, 1e-10, 1e-3))
def test_the_gradient_of_a_time_constant_ends(neuron, tau, dtype, decay_input):
    """exp(-1/tau) is constant there, and an input of 0 leaves 1/tau without effect as well."""
    x = torch.tensor([0.6, 0.0, 0.6], dtype=dtype)[:, None] * (not decay_input)
    settings = {"tau_min": tau} if neuron == "slif" else {}
    for backend in ("cpu", "reference"):
        constant = torch.tensor(tau, dtype=dtype, requires_grad=True)
        out = FUNCTIONS[neuron](
            x, tau=constant, decay_input=decay_input, return_v_seq=True, backend=backend, **settings
        )
        sum(t.sum() for t in out).backward()
        assert constant.grad.item() == 0

"""Constant input, x that is one step, expanded over time: it has the CPU's bits, is read once, and its gradient is
written once."""

import pytest
import torch
from constant_common import CASES, case, constant
from gpu_common import every_backend
from kernels_common import DECLARED, assert_close, assert_same_bits, by_dtype, make_x
from tolerances import REDUCTION

from stdano_kernels import bn_neuron, lif


@every_backend
@pytest.mark.parametrize("neuron", ("lif", "llif"))
@by_dtype((torch.float32, torch.bfloat16))
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_the_cpu(backend, neuron, dtype, name):
    step, steps, given = case(neuron, name, dtype)
    actual = constant(neuron, step, steps, given, "cuda", backend=backend)
    expected = constant(neuron, step, steps, given)
    sums = [n for n in expected if n.startswith(("grad affine", *(f"grad {c} " for c in DECLARED[neuron].constants)))]
    assert_same_bits(actual, expected, [n for n in expected if n not in sums])
    assert_close(actual, expected, REDUCTION[dtype], sums)


@every_backend
@pytest.mark.parametrize("steps", (4, 16))
def test_x_and_its_gradient_are_moved_once(launches, backend, steps):
    step = make_x((3, 64)).cuda().requires_grad_()
    spikes = lif(step.expand(steps, 3, 64), backend=backend)
    gs = torch.ones_like(spikes)
    torch.autograd.grad(spikes, step, gs)  # compiles what is compiled late
    with launches() as forward:
        spikes = lif(step.expand(steps, 3, 64), backend=backend)
    with launches() as backward:
        torch.autograd.grad(spikes, step, gs)
    assert (len(forward), len(backward)) == (1, 1)
    if forward[0].loaded is None:
        return  # a real device does not say
    once, kept = 4 * step.numel(), 4 * step.numel() * ((steps - 1) // 8)
    assert (forward[0].loaded, forward[0].stored) == (once, steps * once + kept)
    assert (backward[0].loaded, backward[0].stored) == (once + steps * once + kept, once)


@every_backend
def test_batch_norm_in_three_launches_each_way(launches, backend):
    step = make_x((2, 3, 8, 8)).cuda().requires_grad_()

    def numbers(device):
        """Running statistics, weight and bias."""
        return [make(3, device=device) for make in (torch.zeros, torch.ones, torch.ones, torch.zeros)]

    def call(x, numbers):
        return bn_neuron("lif", x, *numbers, training=True)

    call(step.expand(4, *step.shape), numbers("cuda")).sum().backward()
    step.grad = None
    on_device, expected = numbers("cuda"), numbers("cpu")
    with launches() as forward:
        y = call(step.expand(4, *step.shape), on_device)
    gs = torch.ones_like(y)
    with launches() as backward:
        y.backward(gs)
    assert (len(forward), len(backward)) == (3, 3)
    on_cpu = step.detach().cpu().requires_grad_()
    z = call(on_cpu.expand(4, *step.shape), expected)
    z.backward(gs.cpu())
    assert torch.equal(y.cpu(), z)
    for a, b in zip((step.grad, *on_device), (on_cpu.grad, *expected), strict=True):
        torch.testing.assert_close(a.cpu(), b)

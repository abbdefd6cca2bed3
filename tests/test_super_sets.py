"""Super neurons of any neurons: one of them again with other constants, surrogates, alphas and resets of their own, and
a declaration from outside of the library."""

import pytest
import torch
from channels_common import ANY, bits_of_codes, compose_super, draw, members, start_statistics
from kernels_common import DENSE_LAYOUTS, assert_close, assert_same_bits, by_dtype, make_x
from tolerances import TOLERANCES

from stdano_kernels import function

COUNTS = tuple(range(2, 9))
every_count = pytest.mark.parametrize("count", COUNTS)


def run(x, neurons, training):
    """The operators' y, codes, running statistics and gradients."""
    ops, own, weights = torch.ops.stdano, members(neurons, x), given(x, neurons)
    mean, var = start_statistics((len(neurons), x.shape[2]), weights.dtype)
    y, codes, moments = ops.super_neuron_forward(x, weights, mean, var, training, 0.1, 1e-5, *own)
    of_x, of_weights = ops.super_neuron_gradients(draw(x.shape, 6, x.dtype), x, codes, moments, training, *own)
    return {"y": y, "codes": codes, "mean": mean, "var": var, "grad x": of_x, "grad weights": of_weights}


def given(x, neurons):
    """Weights in the dtype of the states."""
    return torch.softmax(draw((len(neurons),), 5), 0).to(torch.float64 if x.dtype == torch.float64 else torch.float32)


@every_count
@pytest.mark.parametrize("training", (True, False), ids=("training", "eval"))
@pytest.mark.parametrize("steps", (4, 17))
def test_float64_is_the_composition(count, steps, training):
    layout = DENSE_LAYOUTS["channels_last" if count % 2 else "contiguous"]
    x, neurons = layout(make_x((steps, 3, 3, 5, 7), torch.float64)), ANY[-count:]
    actual = run(x, neurons, training)
    codes = actual.pop("codes")
    leaves = [t.clone().requires_grad_() for t in (x, given(x, neurons))]
    mean, var = start_statistics((count, x.shape[2]), torch.float64)
    y = compose_super(*leaves, mean, var, neurons, training)
    grads = torch.autograd.grad(y, leaves, draw(x.shape, 6))
    expected = {"y": y.detach(), "mean": mean, "var": var, "grad x": grads[0], "grad weights": grads[1]}
    assert_close(actual, expected, TOLERANCES[torch.float64])
    for (neuron, own), bits in zip(neurons, bits_of_codes(codes, count), strict=True):
        assert torch.equal(function(neuron)(x, backend="reference", **own).to(torch.uint8), bits) and bits.any()


@every_count
@by_dtype((torch.float32, torch.bfloat16))
@pytest.mark.parametrize("layout", ("contiguous", "channels_last"))
def test_codes_and_gradient_are_those_of_the_neurons_own_kernels(layout, count, dtype):
    """Of gs = a*gy + (fired or silent), whose terms are exact."""
    x, neurons, ops = DENSE_LAYOUTS[layout](make_x((9, 2, 3, 5, 37), dtype)), ANY[:count], torch.ops.stdano
    own, table, grad = members(neurons, x), draw((3 * count, 3), 1, torch.float32), draw(x.shape, 2, dtype)
    codes, _ = ops.super_neuron_encode(x, *own)
    total = torch.zeros(x.shape)
    for k, ((neuron, settings), bits) in enumerate(zip(neurons, bits_of_codes(codes, count), strict=True)):
        leaf = x.float().requires_grad_()
        spikes = function(neuron)(leaf, **settings)
        assert torch.equal(spikes.detach().to(torch.uint8), bits)
        a, silent, fired = (row.reshape(3, 1, 1) for row in table[3 * k : 3 * k + 3])
        total = total + torch.autograd.grad(spikes, leaf, a * grad.float() + torch.where(bits == 1, fired, silent))[0]
    actual = ops.super_neuron_backward(grad, x, codes, table, *own)
    assert_same_bits({"grad x": actual + 0}, {"grad x": total.to(dtype) + 0})  # the sign of zero apart


@pytest.mark.parametrize("count", (4, 8))
def test_bfloat16_is_float32_rounded(count):
    x = make_x((4, 2, 3, 11, 13), torch.bfloat16)
    half, single = run(x, ANY[:count], True), run(x.float(), ANY[:count], True)
    for name, value in single.items():
        assert torch.equal(half[name], value.to(x.dtype) if name in ("y", "grad x") else value), name

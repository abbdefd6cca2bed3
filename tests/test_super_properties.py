"""Random shapes, strides, dtypes and settings: the super neuron against its neurons' own kernels, in all bits;
BatchNorm and the super neuron against the compositions of PyTorch's modules."""

import torch
from channels_common import (
    EIGHT,
    NEURONS,
    SOME_OPTIONS,
    SUBSETS,
    bits_of_codes,
    compose_bn,
    compose_super,
    draw,
    members,
    own_settings,
    run_bn,
    run_super,
)
from hypothesis import given
from hypothesis import strategies as st
from kernels_common import FUNCTIONS, assert_close, assert_same_bits, compute_dtype, make_x
from tolerances import TOLERANCES


@st.composite
def images(draw_, dtypes=(torch.float32, torch.float64, torch.bfloat16, torch.float16), smallest=1):
    """x [T, B, C, ...] in any order of dimensions in memory, dense or every second element of one."""
    shape = [draw_(st.sampled_from((1, 2, 3, 4, 4, 9, 17))), draw_(st.integers(smallest, 4)), draw_(st.integers(1, 7))]
    shape += draw_(st.lists(st.integers(1, 21), max_size=2))
    order = draw_(st.permutations(range(len(shape))))
    step = draw_(st.sampled_from((1, 1, 1, 2)))
    sizes = [n * (step if d == len(shape) - 1 else 1) for d, n in enumerate(shape)]
    x = make_x([sizes[d] for d in order], draw_(st.sampled_from(dtypes)), draw_(st.integers(0, 2**16)))
    return x.permute([order.index(d) for d in range(len(order))])[..., ::step]


def not_zero(low, high):
    """A reset to 0 has kernels of its own."""
    return st.floats(low, high).filter(bool)


@st.composite
def settings(draw_):
    """Numbers of any size, and a few of the settings that change the kernels: each is one to compile."""
    options = draw_(st.sampled_from([{"v_reset": 0.0, "slif_v_reset": None}, *SOME_OPTIONS]))
    resets = {k: draw_(not_zero(-0.5, 0.25)) for k in ("v_reset", "slif_v_reset") if options[k]}
    return dict(
        options,
        **resets,
        tau=draw_(st.floats(1.01, 20)),
        v_threshold=draw_(st.floats(0.3, 2)),
        gamma=draw_(st.floats(-0.5, 0.5)),
        beta=draw_(st.floats(-0.5, 1.5)),
        tau_min=draw_(st.floats(1.01, 2)),
        alpha=draw_(st.floats(0.25, 4)),
    )


@given(x=images(), options=settings(), neurons=st.sampled_from([*SUBSETS[3:15], EIGHT]))
def test_the_operators_are_the_neurons_own_kernels(x, options, neurons):
    """Codes, counts and the gradient for gs = a*gy + (fired or silent), whose terms are exact in any dtype."""
    if neurons == EIGHT:
        options = {k: options[k] for k in ("tau", "v_threshold", "alpha")}
    own, ops, count = members(neurons, x, **options), torch.ops.stdano, len(neurons)
    codes, counts = ops.super_neuron_encode(x, *own)
    real, channels = compute_dtype(x.dtype), x.shape[2]
    table, grad = draw((3 * count, channels), 1, real), draw(x.shape, 2, x.dtype)
    total = torch.zeros(x.shape, dtype=real)
    for k, (name, bit) in enumerate(zip(neurons, bits_of_codes(codes, count), strict=True)):
        leaf, fired = x.to(real).requires_grad_(), bit.bool()
        spikes = FUNCTIONS[name](leaf, **own_settings(name, **options))
        assert torch.equal(spikes.detach() != 0, fired)
        assert torch.equal(counts[k], fired.double().transpose(0, 2).flatten(1).sum(1))
        a, silent, when_fired = (row.reshape(-1, *[1] * (x.dim() - 3)) for row in table[3 * k : 3 * k + 3])
        gs = a * grad.to(real) + torch.where(fired, when_fired, silent)
        total = total + torch.autograd.grad(spikes, leaf, gs)[0]
    actual = ops.super_neuron_backward(grad, x, codes, table, *own)
    assert_same_bits({"grad x": actual + 0}, {"grad x": total.to(x.dtype) + 0})  # the sign of zero apart


@given(x=images((torch.float64,), smallest=2), neurons=st.sampled_from(SUBSETS[:15]), training=st.booleans(),
       options=settings())  # fmt: skip
def test_super_neuron_against_the_composition(x, neurons, training, options):
    options = {**options, "neurons": neurons, "training": training}
    assert_close(run_super(x, **options), run_super(x, compose_super, **options), TOLERANCES[torch.float64])


@given(x=images((torch.float64,), smallest=2), neuron=st.sampled_from(NEURONS), training=st.booleans(),
       options=settings())  # fmt: skip
def test_batch_norm_against_the_composition(x, neuron, training, options):
    """A channel of few values may have next to no variance, which magnifies all rounding errors: eps limits that."""
    options = {**own_settings(neuron, **options), "training": training, "eps": 0.1}
    assert_close(run_bn(neuron, x, **options), run_bn(neuron, x, compose_bn, **options), TOLERANCES[torch.float64])

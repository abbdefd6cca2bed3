"""Random shapes, strides, dtypes and settings: the super neuron against its neurons' own kernels, in all bits;
BatchNorm and the super neuron against the compositions of PyTorch's modules."""

import torch
from channels_common import RESETS, SUBSETS, compose_bn, compose_super, draw, own_settings, run_bn, run_super
from hypothesis import given
from hypothesis import strategies as st
from kernels_common import FUNCTIONS, NEURONS, assert_close, assert_same_bits, compute_dtype, make_x
from tolerances import TOLERANCES

from stdano_kernels import SURROGATES


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


@st.composite
def settings(draw_):
    return dict(
        tau=draw_(st.floats(1.01, 20)),
        v_threshold=draw_(st.floats(0.3, 2)),
        v_reset=draw_(st.one_of(st.none(), st.floats(-0.5, 0.25))),
        slif_v_reset=draw_(st.one_of(st.none(), st.floats(-0.5, 0.25))),
        gamma=draw_(st.floats(-0.5, 0.5)),
        beta=draw_(st.floats(-0.5, 1.5)),
        tau_min=draw_(st.floats(1.01, 2)),
        decay=draw_(st.sampled_from(("exp", "linear"))),
        decay_input=draw_(st.booleans()),
        surrogate=draw_(st.sampled_from(SURROGATES)),
        alpha=draw_(st.floats(0.25, 4)),
        detach_reset=draw_(st.booleans()),
        detach_adapt=draw_(st.booleans()),
    )


@given(x=images(), options=settings(), present=st.integers(1, 7))
def test_the_operators_are_the_neurons_own_kernels(x, options, present):
    """Codes, counts and the gradient for gs = a*gy + (fired or silent), whose terms are exact in any dtype."""
    o, ops = options, torch.ops.stdano
    arguments = (
        present,
        *(o[k] for k in ("tau", "v_threshold", "v_reset", "slif_v_reset", "gamma", "beta", "tau_min")),
    )
    arguments += (o["decay"] == "linear", o["decay_input"], SURROGATES.index(o["surrogate"]), o["alpha"])
    arguments += (o["detach_reset"], o["detach_adapt"])
    codes, counts = ops.super_neuron_encode(x, *arguments)
    real, channels = compute_dtype(x.dtype), x.shape[2]
    table, grad = draw((9, channels), 1, real), draw(x.shape, 2, x.dtype)
    total = torch.zeros(x.shape, dtype=real)
    for k, name in enumerate(NEURONS):
        fired = (codes >> k & 1).bool()
        if not present >> k & 1:
            assert not fired.any()
            continue
        leaf = x.to(real).requires_grad_()
        spikes = FUNCTIONS[name](leaf, **own_settings(name, **options))
        assert torch.equal(spikes.detach() != 0, fired)
        assert torch.equal(counts[k], fired.double().transpose(0, 2).flatten(1).sum(1))
        a, silent, when_fired = (row.reshape(-1, *[1] * (x.dim() - 3)) for row in table[3 * k : 3 * k + 3])
        gs = a * grad.to(real) + torch.where(fired, when_fired, silent)
        total = total + torch.autograd.grad(spikes, leaf, gs)[0]
    actual = ops.super_neuron_backward(grad, x, codes, table, *arguments)
    assert_same_bits({"grad x": actual}, {"grad x": total.to(x.dtype)})


@given(x=images((torch.float64,), smallest=2), neurons=st.sampled_from(SUBSETS), training=st.booleans(),
       resets=st.sampled_from(RESETS), options=settings())  # fmt: skip
def test_super_neuron_against_the_composition(x, neurons, training, resets, options):
    options = {**options, **resets, "neurons": neurons, "training": training}
    assert_close(run_super(x, **options), run_super(x, compose_super, **options), TOLERANCES[torch.float64])


@given(x=images((torch.float64,), smallest=2), neuron=st.sampled_from(NEURONS), training=st.booleans(),
       options=settings())  # fmt: skip
def test_batch_norm_against_the_composition(x, neuron, training, options):
    """A channel of few values may have next to no variance, which magnifies all rounding errors: eps limits that."""
    options = {**own_settings(neuron, **options), "training": training, "eps": 0.1}
    assert_close(run_bn(neuron, x, **options), run_bn(neuron, x, compose_bn, **options), TOLERANCES[torch.float64])

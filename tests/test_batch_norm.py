"""bn_neuron is nn.BatchNorm2d over the merged T*B followed by the neuron: every output, running statistics and the
gradients of everything that goes in."""

from functools import partial

import pytest
import torch
from channels_common import (
    STEPS,
    assert_sums_close,
    compose_bn,
    distances,
    draw,
    run_bn,
    run_super,
    start_statistics,
)
from kernels_common import (
    DENSE_LAYOUTS,
    FUNCTIONS,
    HALF,
    OPTIONS,
    assert_close,
    assert_same_bits,
    by_dtype,
    constant_tensors,
    every_backend,
    every_neuron,
    make_state,
    make_x,
    one_thread,
    options_of,
    short,
)
from tolerances import LARGE_MEAN, ROUNDING, SPIKE_BAND, TOLERANCES

from stdano_kernels import bn_neuron

GIVEN = ((), ("weight",), ("bias",), ("weight", "bias"))
training_and_eval = pytest.mark.parametrize("training", (True, False), ids=("training", "eval"))


def assert_equals_composition(neuron, x, tolerance=TOLERANCES[torch.float64], **settings):
    with one_thread():
        expected = run_bn(neuron, x, compose_bn, **settings)
    actual = run_bn(neuron, x, backend="cpu", **settings)
    assert torch.equal(actual["spikes"], expected["spikes"]) or settings.get("spike") == "soft"
    assert_close(actual, expected, tolerance)


@every_neuron
@training_and_eval
@pytest.mark.parametrize("options", OPTIONS, ids=short)
def test_every_option_in_float64(neuron, options, training):
    """With states, learnable tau and v_threshold, all outputs and their gradients."""
    steps = 4 + 14 * options["detach_reset"]
    x = make_x((steps, 2, 3, 5, 3), torch.float64)
    kind = ("both []", "tau, v_threshold [C]")[options["decay_input"]]
    settings = options_of(neuron, {**options, **constant_tensors(kind, x)})
    assert_equals_composition(neuron, x, training=training, state=make_state(neuron, x), **settings)


@every_neuron
@training_and_eval
@pytest.mark.parametrize("given", GIVEN, ids="-".join)
@pytest.mark.parametrize("statistics", ("given", None))
def test_weight_bias_and_statistics(neuron, given, statistics, training):
    if statistics or training:
        settings = dict(given=given, statistics=statistics, training=training, momentum=0.3, eps=0.01)
        assert_equals_composition(neuron, make_x((4, 2, 3, 5), torch.float64), **settings)


@pytest.mark.parametrize("backend", ("cpu", "reference"))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=short)
def test_momentum_may_be_a_tensor(backend, dtype):
    """So that one that a device computes need not be waited for; to the last bit the number that it holds."""
    momentum = torch.tensor(3, dtype=dtype).reciprocal()
    runs = [
        run(make_x((4, 2, 3, 5), dtype), momentum=value, backend=backend)
        for run in (run_super, partial(run_bn, "lif"))
        for value in (momentum, momentum.item())
    ]
    for given, number in (runs[:2], runs[2:]):
        assert all(torch.equal(given[name], number[name]) for name in number)


@every_neuron
@training_and_eval
@pytest.mark.parametrize("spike", ("hard", "soft"))
@pytest.mark.parametrize("steps", STEPS)
def test_lengths(neuron, steps, spike, training):
    assert_equals_composition(neuron, make_x((steps, 2, 3, 7), torch.float64), spike=spike, training=training)


@every_neuron
@training_and_eval
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize(
    "shape", ((4, 2, 3, 5, 7), (4, 5, 3), (5, 2, 1, 3, 4), (4, 1, 2, 33, 35), (6, 2, 1031)), ids=str
)
def test_layouts(neuron, shape, layout, training):
    x = make_x(shape, torch.float64)
    with one_thread():
        expected = run_bn(neuron, x, compose_bn, training=training)
    assert_close(run_bn(neuron, DENSE_LAYOUTS[layout](x), training=training), expected, TOLERANCES[torch.float64])


@every_neuron
@training_and_eval
@pytest.mark.parametrize("steps", (4, 17))
def test_float32(neuron, steps, training):
    """Spikes up to the first that is in doubt; gradients, where neurons in doubt get none from outside."""
    x = make_x((steps, 2, 3, 250))
    with one_thread():
        statistics = start_statistics((3,), torch.float64)
        own = (x.double().mean((0, 1, 3)), x.double().var((0, 1, 3), correction=0))
        mean, var = own if training else statistics
        scale = torch.linspace(0.7, 1.6, 3, dtype=torch.float64) / (var + 1e-5).sqrt()
        affine = torch.stack((mean, scale, torch.linspace(-0.2, 0.6, 3, dtype=torch.float64)))
        doubtful = distances(neuron, x, affine=affine) < SPIKE_BAND[torch.float32]
    sure, sure_so_far = ~doubtful.any(0), ~doubtful.cummax(0).values
    assert sure.float().mean() > 0.95, "the band must not hide the test"
    cotangents = {"spikes": draw(x.shape, 1) * sure, "v_seq": draw(x.shape, 2) * sure}
    with one_thread():
        expected = run_bn(neuron, x.double(), compose_bn, training=training, cotangents=cotangents)
    actual = run_bn(neuron, x, training=training, cotangents=cotangents)
    assert torch.equal(actual["spikes"][sure_so_far], expected["spikes"][sure_so_far].float())
    for name in ("v_seq", "final0"):
        assert_close({name: actual[name] * sure}, {name: expected[name] * sure}, TOLERANCES[torch.float32])
    assert_close(actual, expected, TOLERANCES[torch.float32], ["grad x", "mean", "var"])
    # two cotangents below 2, and a share of those of later steps; inputs are of order 1
    magnitude = torch.full((), 8.0 * x.numel() / 3, dtype=torch.float64)
    for name in ("grad weight", "grad bias"):
        assert_sums_close(actual[name], expected[name], magnitude, torch.float32)


@every_neuron
@by_dtype(HALF)
@training_and_eval
@pytest.mark.parametrize("steps", (4, 18))
def test_half_precision_is_float32_rounded(neuron, dtype, steps, training):
    """Spikes, states, statistics and sums are those of the same input in float32, in all bits; the gradient of x is
    rounded once where statistics are constant and twice where a second pass adds theirs."""
    x = make_x((steps, 2, 3, 5, 7), dtype)
    cotangents = {"spikes": draw(x.shape, 1), "v_seq": draw(x.shape, 2)}
    arguments = dict(training=training, state=make_state(neuron, x), cotangents=cotangents)
    half, single = run_bn(neuron, x, **arguments), run_bn(neuron, x.float(), **arguments)
    for name in ("spikes", "v_seq"):
        single[name] = single[name].to(dtype)
    assert_same_bits(half, single, [name for name in single if name != "grad x"])
    # Before the second pass: the gradient with the statistics held constant.
    images = x.float().transpose(0, 2).flatten(1)
    mean, inverse = images.mean(1), (images.var(1, correction=0) + 1e-5).rsqrt()
    affine = torch.stack((mean, inverse * torch.linspace(0.7, 1.6, 3), torch.linspace(-0.2, 0.6, 3)))
    first = torch.zeros_like(single["grad x"])
    if training:
        leaf = x.float().requires_grad_()
        spikes, _, v_seq = FUNCTIONS[neuron](
            leaf, affine=affine, state=arguments["state"], return_state=True, return_v_seq=True
        )
        (first,) = torch.autograd.grad((spikes, v_seq), leaf, [cotangents[k].float() for k in ("spikes", "v_seq")])
    once, result = ROUNDING[dtype] * first.abs(), single["grad x"]
    allowed = once + ROUNDING[dtype] * (result.abs() + once) + TOLERANCES[torch.float32].atol
    assert ((half["grad x"].float() - result).abs() <= allowed).all()


@every_neuron
@training_and_eval
def test_statistics_and_weights_in_half_precision(neuron, training):
    """A whole model in bfloat16: the arithmetic stays in float32, so eps and small variances do not vanish."""
    x = make_x((4, 2, 3, 5, 7), torch.bfloat16)
    mean, var = (t.bfloat16() for t in start_statistics((3,), torch.float32))
    weight, bias = torch.tensor([0.7, 1.1, 1.6]).bfloat16(), torch.tensor([-0.2, 0.1, 0.6]).bfloat16()
    wide = [t.float() for t in (mean, var, weight, bias)]
    spikes = bn_neuron(neuron, x, mean, var, weight, bias, training=training)
    assert torch.equal(spikes, bn_neuron(neuron, x, *wide, training=training))
    if training:
        assert mean.dtype == torch.bfloat16 and torch.equal(mean, wide[0].bfloat16())


@every_neuron
@by_dtype((torch.float32, torch.float64))
def test_a_large_mean_against_a_small_deviation(neuron, dtype):
    """Mean 1000, deviation 1: float32 sums of x and x*x would have no digit of the variance left. The input's own
    rounding (6e-5) is the same for both sides."""
    x = (make_x((4, 3, 2, 40), torch.float64) + 1000).to(dtype)
    settings = dict(spike="soft", surrogate="sigmoid", statistics=None)
    with one_thread():
        expected = run_bn(neuron, x.double(), compose_bn, **settings)
    assert_close(run_bn(neuron, x, **settings), expected, LARGE_MEAN[dtype], ["spikes", "v_seq", "grad x"])


@every_backend
@every_neuron
@training_and_eval
@pytest.mark.parametrize("steps", (3, 4))
def test_gradcheck(neuron, backend, training, steps):
    """Soft spikes through the kernels: x, weight, bias, tau, v_threshold and the state."""
    x = make_x((steps, 2, 2, 2), torch.float64)
    constants = options_of(neuron, {"tau": 1.8, "v_threshold": 0.9})
    tensors = [torch.tensor(v, dtype=torch.float64) for v in ([0.8, 1.2], [0.1, 0.3], *constants.values())]
    tensors = [t.requires_grad_() for t in (x, *tensors, *make_state(neuron, x))]

    def function(x, weight, bias, *others):
        given, state = others[: len(constants)], others[len(constants) :]
        spikes, final, v_seq = bn_neuron(
            neuron, x, *start_statistics((2,), torch.float64), weight, bias, training=training, state=state,
            spike="soft", surrogate="sigmoid", alpha=2.0, return_state=True, return_v_seq=True, backend=backend,
            **dict(zip(constants, given, strict=True)),
        )  # fmt: skip
        return (spikes, *final, v_seq)

    assert torch.autograd.gradcheck(function, tensors)


@every_neuron
@by_dtype((torch.float32, torch.bfloat16))
def test_chunks_in_evaluation_equal_the_whole_sequence(neuron, dtype):
    x = make_x((12, 2, 3, 5, 7), dtype)
    arguments = (*start_statistics((3,), torch.float32), torch.tensor([0.7, 1.1, 1.6]), torch.tensor([-0.2, 0.1, 0.6]))
    whole, final = bn_neuron(neuron, x, *arguments, return_state=True)
    state, parts = None, []
    for part in x.split(5):
        spikes, state = bn_neuron(neuron, part, *arguments, state=state, return_state=True)
        parts.append(spikes)
    assert torch.equal(torch.cat(parts), whole) and all(torch.equal(a, b) for a, b in zip(state, final, strict=True))


@every_neuron
@by_dtype(HALF)
@training_and_eval
def test_autocast(neuron, dtype, training):
    """The layer before gives half precision, which the kernel takes as it is; parameters and statistics stay."""
    layer, x = torch.nn.Conv2d(2, 3, 3), make_x((4, 2, 2, 6, 6))
    weight, bias = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    mean, var = start_statistics((3,), torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x.flatten(0, 1)).unflatten(0, (4, 2))
        spikes = bn_neuron(neuron, y, mean, var, weight, bias, training=training)
    outside = bn_neuron(neuron, y.detach(), *start_statistics((3,), torch.float32), weight, bias, training=training)
    assert spikes.dtype == dtype and torch.equal(spikes, outside)
    (spikes * draw(spikes.shape, 1, dtype)).sum().backward()
    assert mean.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32
    assert layer.weight.grad.abs().sum() > 0


@training_and_eval
def test_special_values_stay_in_their_channel(training):
    """In training NaN and infinities reach their channel's statistics, as in nn.BatchNorm2d, and no other channel's."""
    for value in (float("nan"), float("inf")):
        x = make_x((4, 2, 3, 5, 7))
        broken = x.clone()
        broken[1, 0, 1, 2, 3] = value
        clean, dirty = run_bn("llif", x, training=training), run_bn("llif", broken, training=training)
        for name in ("spikes", "v_seq", "grad x"):
            assert torch.equal(clean[name][:, :, [0, 2]], dirty[name][:, :, [0, 2]])
        for name in ("grad weight", "grad bias", "mean", "var"):
            assert torch.equal(clean[name][[0, 2]], dirty[name][[0, 2]])
        if training:
            assert not dirty["spikes"][:, :, 1].any(), "no spike from NaN"
        else:
            touched = torch.zeros(x.shape, dtype=torch.bool)
            touched[:, 0, 1, 2, 3] = True
            assert torch.equal(clean["spikes"][~touched], dirty["spikes"][~touched])


def test_a_constant_channel_has_a_finite_gradient():
    x = make_x((4, 2, 3, 5), torch.float64)
    x[:, :, 1] = 0.3
    assert_equals_composition("lif", x, tolerance=TOLERANCES[torch.float64])
    assert run_bn("lif", x.float())["grad x"].isfinite().all()


@pytest.mark.parametrize("shape", ((4, 0, 3, 2), (0, 2, 3), (4, 2, 0)), ids=str)
@pytest.mark.parametrize("training", (False, True))
def test_empty_tensors(shape, training):
    """As torch.nn.BatchNorm does: in training, too, they pass and move no statistics."""
    result = run_bn("slif", make_x(shape), training=training)
    assert result["spikes"].shape == result["grad x"].shape == shape
    assert not result["grad bias"].any() and not result["grad weight"].any()
    mean, var = start_statistics((shape[2],), torch.float32)
    bn_neuron("slif", make_x(shape), mean, var, training=training)
    assert all(torch.equal(a, b) for a, b in zip((mean, var), start_statistics((shape[2],), mean.dtype), strict=True))


def test_a_wrong_setting_leaves_the_statistics_alone():
    mean, var = start_statistics((3,), torch.float32)
    with pytest.raises(ValueError, match="tau must be"):
        bn_neuron("lif", make_x((4, 2, 3)), mean, var, training=True, tau=-1.0)
    assert all(torch.equal(a, b) for a, b in zip((mean, var), start_statistics((3,), torch.float32), strict=True))


def test_backward_twice_over_one_graph():
    x = make_x((4, 2, 3, 5)).requires_grad_()
    loss = (bn_neuron("lif", x, None, None, training=True) * draw(x.shape, 1, torch.float32)).sum()
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)

"""The super neuron is the composition of reference neurons, nn.BatchNorm2d without affine and a weighted sum (eq. 10):
values, running statistics, gradients of x and of the weights."""

import pytest
import torch
from channels_common import (
    RESETS,
    SOME_OPTIONS,
    STEPS,
    SUBSETS,
    assert_sums_close,
    compose_super,
    draw,
    run_super,
    start_statistics,
    without_doubt,
)
from kernels_common import (
    HALF,
    assert_close,
    by_dtype,
    every_backend,
    every_surrogate,
    make_x,
    one_thread,
    short,
)
from tolerances import TOLERANCES

from stdano_kernels import super_neuron

training_and_eval = pytest.mark.parametrize("training", (True, False), ids=("training", "eval"))


def assert_equals_composition(x, **settings):
    with one_thread():
        expected = run_super(x.double(), compose_super, **settings)
    assert_close(run_super(x, backend="cpu", **settings), expected, TOLERANCES[x.dtype])


@training_and_eval
@pytest.mark.parametrize("steps", (4, 18))
@pytest.mark.parametrize("options", SOME_OPTIONS, ids=short)
def test_every_setting_reaches_the_neurons(options, steps, training):
    x = make_x((steps, 2, 3, 5, 3), torch.float64)
    assert_equals_composition(x, training=training, alpha=1.3, tau=1.7, v_threshold=0.9, **options)


@training_and_eval
@pytest.mark.parametrize("neurons", SUBSETS, ids="-".join)
@pytest.mark.parametrize("steps", (3, 4))
def test_every_choice_and_order_of_neurons(neurons, steps, training):
    """The rows of weights and statistics belong to the neurons in the order of the call."""
    x = make_x((steps, 2, 3, 7, 2), torch.float64)
    settings = dict(neurons=neurons, training=training, gamma=0.3, beta=0.2, tau_min=1.4, tau=1.5)
    assert_equals_composition(x, **settings)
    x = without_doubt(x.float(), **{k: v for k, v in settings.items() if k != "training"})
    assert_float32(x, **settings)


def assert_float32(x, **settings):
    """y, statistics and the gradient of x element by element; sums by the magnitude of what they sum up."""
    with one_thread():
        expected = run_super(x.double(), compose_super, **settings)
    actual = run_super(x, backend="cpu", **settings)
    assert_close(actual, expected, TOLERANCES[x.dtype], ["y", "grad x"])
    assert_close(actual, expected, TOLERANCES[torch.float32], ["mean", "var"])
    # |gy| is at most 2, and the normalised spikes have a deviation of 1: the Cauchy-Schwarz bound of sum |gy*shat|
    magnitude = torch.full((), 2.0 * x.numel(), dtype=torch.float64)
    for name in ("grad weights", "grad alpha"):
        assert_sums_close(actual[name], expected[name], magnitude, torch.float32)


@training_and_eval
@pytest.mark.parametrize("resets", RESETS, ids=short)
@pytest.mark.parametrize("steps", STEPS)
def test_float32(steps, resets, training):
    """N = 2*3*210 neurons: a whole block of 1024 and a part of one."""
    settings = dict(alpha=1.25, tau=1.8, **resets)
    x = without_doubt(make_x((steps, 2, 3, 210)), **settings)
    assert_float32(x, training=training, **settings)


@every_surrogate
def test_every_surrogate(surrogate):
    """Of one neuron: a surrogate is the neurons' own, and each that takes it would be compiled."""
    settings = dict(surrogate=surrogate, alpha=1.25, neurons=("lif",))
    assert_float32(without_doubt(make_x((4, 2, 3, 210)), **settings), **settings)


@training_and_eval
@by_dtype(HALF)
@pytest.mark.parametrize("steps", (2, 4, 17))
def test_half_precision(steps, dtype, training):
    """The numbers of the same input in float64, rounded once: codes, statistics and sums know nothing of the dtype."""
    x = without_doubt(make_x((steps, 2, 3, 6, 7), dtype))
    assert_float32(x, training=training)


@training_and_eval
@by_dtype(HALF)
def test_half_precision_is_float32_rounded(dtype, training):
    x = make_x((4, 2, 3, 11, 13), dtype)
    half, single = run_super(x, training=training), run_super(x.float(), training=training)
    for name, value in single.items():
        assert torch.equal(half[name], value.to(dtype) if name in ("y", "grad x") else value), name


@training_and_eval
@pytest.mark.parametrize(
    "shape",
    ((4, 2, 3, 1, 1), (4, 2, 3), (5, 3, 1), (4, 3, 1, 5, 5), (3, 1, 7, 41, 27), (4, 2, 3, 33, 37), (2, 1, 37, 13, 11),
     (4, 1, 2, 1, 1), (4, 2, 1031), (1, 2, 3, 2, 2, 2), (4, 5, 3, 17)),
    ids=str,
)  # fmt: skip
def test_shapes_in_float64(shape, training):
    """From one value a channel and step to channels over several blocks of 1024 and blocks over many channels."""
    assert_equals_composition(make_x(shape, torch.float64), training=training)


@pytest.mark.parametrize("momentum", (0.0, 0.3, 1.0))
def test_momentum_and_eps(momentum):
    x = make_x((4, 3, 3, 5), torch.float64)
    for training in (True, False):
        assert_equals_composition(x, momentum=momentum, eps=0.01, training=training)


def test_without_running_statistics():
    assert_equals_composition(make_x((4, 3, 3, 5), torch.float64), statistics=None)


def test_evaluation_changes_no_statistics():
    x = make_x((4, 3, 3, 5))
    mean, var = start_statistics((3, 3), torch.float32)
    super_neuron(x, torch.ones(3), mean, var)
    assert all(torch.equal(a, b) for a, b in zip((mean, var), start_statistics((3, 3), torch.float32), strict=True))


def test_several_calls_accumulate_the_statistics():
    """Three training calls and then evaluation with what they left behind."""
    mean, var = start_statistics((3, 4), torch.float64)
    expected_mean, expected_var = mean.clone(), var.clone()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    for i in range(3):
        x = make_x((4, 2, 4, 6), torch.float64, seed=i)
        super_neuron(x, weights, mean, var, training=True, momentum=0.2)
        compose_super(x, weights, expected_mean, expected_var, training=True, momentum=0.2)
    actual = {"mean": mean, "var": var, "y": super_neuron(x, weights, mean, var)}
    expected = {"mean": expected_mean, "var": expected_var}
    expected["y"] = compose_super(x, weights, expected_mean, expected_var)
    assert_close(actual, expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("channel", ("never", "always"))
@pytest.mark.parametrize("steps", (4, 5))
def test_a_channel_that_never_or_always_fires(channel, steps):
    """Its variance is 0 and eps alone stands below it; its gradient is finite and that of the composition."""
    x = make_x((steps, 3, 3, 5), torch.float64)
    x[:, :, 1] = -1.0 if channel == "never" else 30.0
    assert_equals_composition(x)
    result = run_super(x.float())
    expected = start_statistics((3, 3), torch.float64)[0][:, 1] * 0.9 + (0.1 if channel == "always" else 0.0)
    assert_close({"mean": result["mean"][:, 1]}, {"mean": expected}, TOLERANCES[torch.float32])
    assert (result["y"][:, :, 1] == result["y"][0, 0, 1, 0]).all() and result["grad x"].isfinite().all()
    assert_close({"y": result["y"][:, :, 1]}, {"y": torch.zeros(steps, 3, 5)}, TOLERANCES[torch.float32])


@every_backend
@pytest.mark.parametrize("training", (True, False), ids=("training", "eval"))
@pytest.mark.parametrize("steps", (4, 3))
def test_gradcheck(backend, training, steps):
    """Soft spikes, float64: x and weights through neurons, BatchNorm and the sum."""
    x = make_x((steps, 2, 2, 2), torch.float64).requires_grad_()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)

    def function(x, weights):
        statistics = start_statistics((3, 2), torch.float64)
        return super_neuron(
            x, weights, *statistics, training=training, spike="soft", surrogate="sigmoid", alpha=2.0, backend=backend
        )

    assert torch.autograd.gradcheck(function, (x, weights))


@training_and_eval
def test_the_reference_backend_is_the_composition(training):
    x = make_x((4, 2, 3, 5), torch.float64)
    settings = dict(training=training, neurons=("slif", "lif"), gamma=0.2, **RESETS[1])
    actual, expected = run_super(x, backend="reference", **settings), run_super(x, compose_super, **settings)
    assert_close(actual, expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("wanted", ("x", "weights"))
def test_one_gradient_alone(wanted):
    x, weights = make_x((4, 2, 3, 5)), torch.tensor([0.2, 0.5, 0.3])
    tensors = {"x": x.clone().requires_grad_(), "weights": weights.clone().requires_grad_()}
    cotangent = draw(x.shape, 6, torch.float32)
    both = torch.autograd.grad(super_neuron(*tensors.values(), None, None, training=True), tensors.values(), cotangent)
    alone = {**{"x": x, "weights": weights}, wanted: tensors[wanted]}
    (actual,) = torch.autograd.grad(
        super_neuron(*alone.values(), None, None, training=True), tensors[wanted], cotangent
    )
    assert torch.equal(actual, both[("x", "weights").index(wanted)])


def test_weights_may_have_another_dtype():
    x = make_x((4, 2, 3, 5))
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.bfloat16, requires_grad=True)
    y = super_neuron(x, weights, None, None, training=True)
    assert torch.equal(y, super_neuron(x, weights.detach().double(), None, None, training=True))
    y.sum().backward()
    assert weights.grad.dtype == torch.bfloat16

"""The super neuron's operators bit by bit: memory layouts, threads, instruction sets, empty tensors, special values."""

import itertools

import pytest
import torch
from channels_common import (
    EIGHT,
    NEURONS,
    bits_of_codes,
    compose_super,
    draw,
    members,
    own_settings,
    run_super,
    start_statistics,
)
from kernels_common import (
    DENSE_LAYOUTS,
    DTYPES,
    FUNCTIONS,
    LEVELS,
    assert_close,
    assert_same_bits,
    by_dtype,
    compute_dtype,
    make_x,
)
from tolerances import REDUCTION, TOLERANCES

from stdano_kernels import super_neuron

NOT_DENSE = {
    "every second": lambda x: torch.empty(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)[..., ::2].copy_(x),
    "batch of a larger one": lambda x: (
        torch.empty(x.shape[0], x.shape[1] + 3, *x.shape[2:]).to(x)[:, 1 : 1 + x.shape[1]].copy_(x)
    ),
    "one step expanded": lambda x: x[:1].expand(x.shape),
    "one channel expanded": lambda x: x[:, :, :1].expand(x.shape),
}
LAYOUTS = {**DENSE_LAYOUTS, **NOT_DENSE}
SHAPES = {
    "whole and partial block": (3, 2, 5, 37),  # N = 1110: the block ends within a channel's 185
    "many channels": (2, 1031, 1, 1),
    "large images": (1, 2, 33, 35),
    "one channel": (3, 1, 19, 20),
    "small": (2, 3, 1, 1),
    "without space": (7, 3),
}


# Neurons of a call: the paper's, one, two in another order, and as many as there can be.
CHOICES = (NEURONS, ("slif",), ("alif", "lif"), EIGHT)
every_choice = pytest.mark.parametrize("neurons", CHOICES, ids=len)


def operators(x, neurons=NEURONS, **settings):
    """Every number the operators give: codes, counts, y, sums, the gradient of x, moments, the affine map."""
    ops, real, channels, count = torch.ops.stdano, compute_dtype(x.dtype), x.shape[2], len(neurons)
    own = members(neurons, x, **{"tau": 1.8, "v_threshold": 0.9, "alpha": 1.25, **settings})
    codes, counts = ops.super_neuron_encode(x, *own)
    grad = draw(x.shape, 3, x.dtype)
    return {
        "codes": codes,
        "counts": counts,
        "y": ops.super_neuron_decode(codes, draw((1 + count, channels), 4, real), x),
        "sums": ops.super_neuron_sums(codes, grad, count),
        "grad x": ops.super_neuron_backward(grad, x, codes, draw((3 * count, channels), 5, real), *own),
        "moments": ops.channel_sums(x),
        "affine": ops.channel_affine(grad, x, draw((3, channels), 6, real)),
    }


@by_dtype((torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("steps", (1, 4, 6))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_layout_gives_the_same_numbers(shape, layout, steps, dtype):
    """Element by element in all bits; sums, whose order follows the memory, within the table; counts exactly."""
    x = LAYOUTS[layout](make_x((steps, *SHAPES[shape]), dtype))
    actual, expected = operators(x), operators(x.contiguous())
    assert_same_bits(actual, expected, ["codes", "counts", "y", "grad x", "affine"])
    for name in ("sums", "moments"):
        magnitude = x.numel() / x.shape[2] * 4
        assert (actual[name] - expected[name]).abs().max() <= REDUCTION[dtype].rtol * magnitude


@by_dtype((torch.float32, torch.float16, torch.float64))
@pytest.mark.parametrize("steps", (1, 2, 4, 5, 17))
@every_choice
def test_codes_are_the_neurons_spikes(neurons, steps, dtype):
    """Bit k is the k-th neuron's own kernel's spike, bits beyond are 0, and counts are sums of spikes."""
    x = make_x((steps, 2, 3, 7, 31), dtype)
    result = operators(x, neurons)
    bits = bits_of_codes(result["codes"], 8)
    for k, name in enumerate(neurons):
        spikes = FUNCTIONS[name](x, **own_settings(name, tau=1.8, v_threshold=0.9))
        assert torch.equal(bits[k], spikes.to(torch.uint8))
        assert torch.equal(result["counts"][k], spikes.double().sum((0, 1, 3, 4)))
    assert not any(bit.any() for bit in bits[len(neurons) :])


@by_dtype()
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", (1, 2, 3, 4, 8))
def test_y_is_the_sum_of_its_codes_rows(count, shape, layout, dtype):
    """((0 + 1) + 2) + 3 in the dtype of arithmetic, rounded once; thirds, so that another order would show."""
    x = DENSE_LAYOUTS[layout](make_x((4, *SHAPES[shape]), dtype))
    real, channels = compute_dtype(dtype), x.shape[2]
    codes = torch.empty_like(x, dtype=torch.uint8).copy_(torch.randint(0, 2**count, x.shape))
    table = draw((1 + count, channels), 1, real) / 3
    rows = table.reshape(1 + count, channels, *[1] * (x.dim() - 3))
    expected = rows[0].expand(x.shape)
    for row, bit in zip(rows[1:], bits_of_codes(codes, count), strict=True):
        expected = expected + torch.where(bit == 1, row, torch.zeros_like(row))
    actual = torch.ops.stdano.super_neuron_decode(codes, table, x)
    assert_same_bits({"y": actual}, {"y": expected.to(dtype)})


@by_dtype((torch.float32, torch.bfloat16, torch.float64))
@pytest.mark.parametrize("steps", (1, 4, 5, 17))
@every_choice
def test_the_gradient_is_that_of_the_neurons_own_kernels(neurons, steps, dtype):
    """((1st + 2nd) + 3rd) + ..., each for its own gs = fma(a, gy, fired ? .. : ..), rounded once."""
    x, real = make_x((steps, 2, 3, 5, 37), dtype), compute_dtype(dtype)
    result, table, grad = operators(x, neurons), draw((3 * len(neurons), 3), 5, real), draw(x.shape, 3, real)
    total = torch.zeros(x.shape, dtype=real)
    for k, (name, bit) in enumerate(zip(neurons, bits_of_codes(result["codes"], len(neurons)), strict=True)):
        a, silent, fired = (row.reshape(3, 1, 1) for row in table[3 * k : 3 * k + 3])
        # products of multiples of 1/32 are exact, and so is their sum: no rounding to tell an fma by
        gs = a * grad + torch.where(bit == 1, fired, silent)
        leaf = x.to(real).requires_grad_()
        settings = own_settings(name, tau=1.8, v_threshold=0.9, alpha=1.25)
        total = total + torch.autograd.grad(FUNCTIONS[name](leaf, **settings), leaf, gs)[0]
    # the sign of zero apart
    assert_same_bits({"grad x": result["grad x"] + 0}, {"grad x": total.to(dtype) + 0})


@by_dtype((torch.float32, torch.float64, torch.float16))
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@every_choice
def test_sums_and_moments(neurons, shape, layout, dtype):
    """Against float64 over the whole tensor; multiples of 1/32 make the sums of the gradient exact."""
    x = DENSE_LAYOUTS[layout](make_x((4, *SHAPES[shape]), dtype))
    result, others = operators(x, neurons), tuple(d for d in range(x.dim()) if d != 2)
    grad = draw(x.shape, 3)
    masked = [grad, *(grad * bit for bit in bits_of_codes(result["codes"], len(neurons)))]
    assert torch.equal(result["sums"], torch.stack([g.sum(others) for g in masked]))
    moments = torch.stack((x.double().sum(others), x.double().square().sum(others)))
    torch.testing.assert_close(
        result["moments"], moments, **REDUCTION[torch.float64]._asdict(), msg="squares and sums are taken in double"
    )


@by_dtype()
@every_choice
@pytest.mark.parametrize("steps", (4, 5))
def test_instruction_sets_agree_in_all_bits(steps, neurons, dtype, cpu_capability):
    for layout in ("contiguous", "channels_last"):
        x = DENSE_LAYOUTS[layout](make_x((steps, 2, 3, 5, 37), dtype))
        results = []
        for level in LEVELS:
            cpu_capability(level)
            results.append(operators(x, neurons))
        for result in results[1:]:
            assert_same_bits(result, results[0])


@by_dtype((torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("steps", (4, 6))
def test_threads_agree_in_all_bits(steps, layout, dtype, set_threads):
    """69,264 neurons: 68 blocks, more than the 64 slabs of partial sums, which cut channels anywhere."""
    x = DENSE_LAYOUTS[layout](make_x((steps, 8, 37, 13, 18), dtype))
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(operators(x) | run_super(x))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@by_dtype(DTYPES)
@pytest.mark.parametrize(
    "shape", ((0, 2, 3, 4), (4, 0, 3, 4), (4, 2, 0, 4), (4, 2, 3, 0), (0, 2, 3), (0, 0, 0)), ids=str
)
def test_empty_tensors(shape, dtype):
    """Nothing to say for the neurons; in training, as by torch's BatchNorm, statistics stay as they are."""
    x = make_x(shape, dtype)
    result = run_super(x, training=False)
    assert result["y"].shape == result["grad x"].shape == shape and result["y"].dtype == dtype
    assert torch.equal(result["grad weights"], torch.zeros(3, dtype=compute_dtype(dtype)))
    numbers = operators(x)
    assert not numbers["counts"].any() and not numbers["sums"].any() and not numbers["moments"].any()
    trained = run_super(x, training=True)
    assert trained["y"].shape == trained["grad x"].shape == shape
    for name in ("mean", "var"):
        assert torch.equal(trained[name], result[name])


@pytest.mark.parametrize("value", (float("nan"), float("inf"), -float("inf")))
@pytest.mark.parametrize("steps", (4, 5))
@by_dtype((torch.float32, torch.float64))
def test_special_values_stay_in_their_neuron(dtype, steps, value):
    """The spikes of every other neuron, and with them all results of the other channels, are untouched; in evaluation
    the other neurons of the same channel, too."""
    x = make_x((steps, 2, 3, 5, 37), dtype)
    broken = x.clone()
    broken[1, 0, 1, 2, 3] = value
    settings = dict(training=False, surrogate="triangle")
    clean, dirty = run_super(x, **settings), run_super(broken, **settings)
    touched = torch.zeros(x.shape, dtype=torch.bool)
    touched[:, 0, 1, 2, 3] = True
    for name in ("y", "grad x"):
        assert torch.equal(clean[name][~touched], dirty[name][~touched])
    codes = operators(broken)["codes"][1:, 0, 1, 2, 3]
    assert codes[0] == (7 if value == float("inf") else 0)
    if value != value:
        assert not codes.any(), "NaN stays in the state and never fires"
    clean, dirty = run_super(x), run_super(broken)
    for name, channel in itertools.product(("y", "grad x"), (0, 2)):
        assert torch.equal(clean[name][:, :, channel], dirty[name][:, :, channel])
    for name in ("mean", "var"):
        assert dirty[name].isfinite().all() and torch.equal(clean[name][:, [0, 2]], dirty[name][:, [0, 2]])
    assert dirty["y"].isfinite().all()


@pytest.mark.parametrize("value", (float("inf"), -float("inf"), 3e38, -3e38))
@pytest.mark.parametrize("steps", (4, 5))
def test_infinite_input_is_a_value_like_others(value, steps):
    """As the reference has it, gradients included: nothing turns into NaN by 0*inf."""
    x = make_x((steps, 2, 3, 5), torch.float64)
    x[1, 0, 1, 2] = value
    assert_close(run_super(x), run_super(x, compose_super), TOLERANCES[torch.float64])
    assert run_super(x)["grad x"].isfinite().all()


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_results_lie_as_x_does(layout):
    x = DENSE_LAYOUTS[layout](make_x((4, 2, 3, 5, 7))).requires_grad_()
    y = super_neuron(x, torch.ones(3), *start_statistics((3, 3), torch.float32), training=True)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.stride() == x.stride() and grad.stride() == x.stride()

"""The super neuron's operators on CUDA and Triton against the CPU kernels, bit for bit, and what they move."""

from itertools import product

import pytest
import torch
from channels_common import ANY, EIGHT, declared
from gpu_common import every_backend, operators, super_arguments
from kernels_common import (
    DENSE_LAYOUTS,
    HALF,
    PAPER,
    assert_close,
    assert_same_bits,
    by_dtype,
    compute_dtype,
    make_cotangents,
    make_x,
    short,
)
from tolerances import REDUCTION, TOLERANCES

import stdano_kernels
from stdano_kernels import SURROGATES

FLOAT = (torch.float32, *HALF)
CPU = torch.ops.stdano


def make_table(rows, x, seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, x.shape[2], generator=generator, dtype=torch.float64).to(compute_dtype(x.dtype))


def make_grad(x):
    """Like x, in its layout."""
    return torch.empty_like(x).copy_(make_cotangents("lif", x)["spikes"])


def run(ops, x, grad, own, place=lambda t: t):
    """All of a super neuron's passes, with tables that are the same everywhere; ``own``: kernels, constants."""
    x, grad, count = place(x), place(grad), len(own[0])
    codes, counts = ops.super_neuron_encode(x, *own)
    return {
        "codes": codes.cpu(),
        "counts": counts.cpu(),
        "y": ops.super_neuron_decode(codes, place(make_table(1 + count, x)), x).cpu(),
        "sums": ops.super_neuron_sums(codes, grad, count).cpu(),
        "grad x": ops.super_neuron_backward(grad, x, codes, place(make_table(3 * count, x)), *own).cpu(),
    }


def is_near(backend, x, neurons=PAPER, v_reset=0.0, slif_v_reset=None, **settings):
    """Whether the gradient of x has not the CPU's bits: CUDA kernels of several neurons together take a device's
    approximations for tanh and 1/x."""
    together = tuple(neurons) == PAPER and v_reset == 0 and slif_v_reset is None
    plain = settings.keys() <= {"surrogate", "alpha", "tau", "v_threshold", "gamma", "beta"}
    lengths = len(x) == 4 or len(x) % 8 == 0
    return backend == "cuda" and together and plain and lengths and x.dtype != torch.float64


def assert_near(actual, expected):
    """To 1e-6 of the largest, and to a rounding of half precision."""
    rounding = 0 if expected.dtype == torch.float32 else torch.finfo(expected.dtype).eps
    size = expected.double().nan_to_num(posinf=0, neginf=0).abs().max().item() if expected.numel() else 0
    torch.testing.assert_close(actual, expected, rtol=rounding, atol=1e-6 * size, equal_nan=True)


def assert_equals_cpu(backend, x, grad=None, place=lambda t: t.cuda(), neurons=PAPER, **settings):
    grad = make_grad(x) if grad is None else grad
    own = super_arguments(x, neurons, **settings)
    if backend == "cuda" and not all(torch.ops.stdano.has_cuda_kernel(k, x.dtype == torch.float64) for k in own[0]):
        pytest.skip("settings that Triton serves")
    expected = run(CPU, x, grad, own)
    actual = run(operators(backend), x, grad, own, place)
    near = is_near(backend, x, neurons, **settings)
    assert_same_bits(actual, expected, ["codes", "counts", "y", *([] if near else ["grad x"])])
    if near:
        assert_near(actual["grad x"], expected["grad x"])
    assert_close(actual, expected, REDUCTION[x.dtype], ["sums"])
    bits = [(expected["codes"] >> k & 1).double().sum((0, 1, *range(3, x.dim()))) for k in range(len(neurons))]
    assert torch.equal(actual["counts"], torch.stack(bits)), "the counts are those of the codes"
    return actual


SETS = (PAPER, ("lif",), ("slif", "alif"), EIGHT, ("llif",), PAPER, ("if_", "cuba_lif", "integer_lif"), ("slif",))
SETTINGS = (
    dict(v_reset=None, slif_v_reset=None),
    dict(v_reset=0.1, slif_v_reset=-0.1, decay="linear", decay_input=True),
    dict(),
    dict(v_reset=None, detach_reset=True, detach_adapt=True),
)


@every_backend
@pytest.mark.parametrize("index", range(8))
def test_settings(backend, index):
    """Sets of neurons, settings, surrogates, dtypes and lengths take turns."""
    x = make_x(((8, 3, 11, 5)[index % 4], 2, 3, 4), FLOAT[index % 3], seed=index)
    surrogate = SURROGATES[(index + 1) % len(SURROGATES)]
    settings = {**SETTINGS[index % 3 + index // 6], "surrogate": surrogate, "alpha": 1.3}
    actual = assert_equals_cpu(backend, x, neurons=SETS[index], **settings)
    assert actual["counts"].sum() > 0 and actual["grad x"].abs().sum() > 0


@pytest.mark.parametrize("count, steps", ((4, 9), (8, 4)))
def test_any_neurons(count, steps):
    actual = assert_equals_cpu("triton", make_x((steps, 2, 3, 4)), neurons=ANY[-count:])
    assert actual["counts"].sum(1).all() and actual["grad x"].abs().sum() > 0


@every_backend
@pytest.mark.parametrize("neurons", (PAPER, EIGHT), ids=len)
@pytest.mark.parametrize("steps", (4, 8))
def test_each_neuron_has_its_own_alpha(backend, neurons, steps):
    """In CUDA the paper's neurons then run one after the other, by kernels that have the CPU's bits."""
    own = [declared(name, tau=1.7, v_threshold=0.9) for name in neurons]
    own = tuple((neuron, {**settings, "alpha": 0.5 + 0.25 * k}) for k, (neuron, settings) in enumerate(own))
    assert_equals_cpu(backend, make_x((steps, 2, 3, 4)), neurons=own)


@every_backend
@pytest.mark.parametrize("steps", (1, 4, 5, 8, 9, 16, 17, 32))
def test_lengths(backend, steps):
    assert_equals_cpu(backend, make_x((steps, 2, 3, 7)))


STEEP = [(4, 1.0, "triangle"), (8, 4.0, "sigmoid"), (32, 4.0, "triangle"), (32, 1.0, "sigmoid")]  # each comes up


@pytest.mark.parametrize(
    ("steps", "alpha", "surrogate"),
    [
        pytest.param(*case, marks=() if case in STEEP else pytest.mark.exhaustive)
        for case in product((4, 8, 32), (1.0, 4.0), ("triangle", "sigmoid"))
    ],
)
def test_errors_do_not_gather(steps, alpha, surrogate):
    """Steep surrogates show a small error of the potential, and long sequences gather it."""
    x = make_x((steps, 2, 3, 50))
    assert is_near("cuda", x)
    actual = assert_equals_cpu("cuda", x, alpha=alpha, surrogate=surrogate)
    assert actual["grad x"].abs().sum() > 0


@pytest.mark.parametrize("steps", (3, 4, 9))
def test_float64(steps):
    assert_equals_cpu("cuda", make_x((steps, 2, 3, 5), torch.float64), surrogate="atan")


@every_backend
@by_dtype(FLOAT)
@pytest.mark.parametrize("shape", ((5, 1, 1), (5, 1, 1, 33), (4, 3, 129), (3, 5, 8), (2, 3, 5, 7, 11)), ids=short)
def test_sizes(backend, dtype, shape):
    assert_equals_cpu(backend, make_x(shape, dtype), neurons=("llif",))


LAYOUTS = {
    **{name: layout for name, layout in DENSE_LAYOUTS.items() if name != "contiguous"},
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


@every_backend
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ((9, 4, 3, 5), (9, 2, 4, 8)), ids=short)
def test_layouts(backend, layout, shape):
    """Dense in any order without a copy; results have x's strides."""
    x = LAYOUTS[layout](make_x(shape))
    actual = assert_equals_cpu(backend, x)
    if layout in DENSE_LAYOUTS:
        assert all(actual[name].stride() == x.stride() for name in ("codes", "y", "grad x"))


@every_backend
def test_a_gradient_in_another_layout_is_copied(backend):
    x = make_x((4, 3, 4, 8))
    assert_equals_cpu(backend, x, DENSE_LAYOUTS["channels_last"](make_grad(x)))
    assert_equals_cpu(backend, x, make_grad(x)[:, :1, :1].expand_as(x))


@every_backend
@by_dtype(FLOAT)
def test_a_storage_offset_breaks_the_alignment(backend, dtype):
    """x and the gradient start in the middle of a vector, though their sizes suit it."""

    def shifted(t):
        return torch.cat([t.new_zeros(1), t.flatten()]).cuda()[1:].view(t.shape)

    x = make_x((5, 2, 4, 8), dtype)
    assert_equals_cpu(backend, x, place=lambda t: shifted(t) if t.shape == x.shape else t.cuda(), neurons=("lif",))


@every_backend
def test_more_neurons_than_threads(backend):
    """Where counts are taken, a thread then serves several in sequence. Twice the same, to the last bit."""
    x = make_x((1, 40, 3, 1400))
    first = assert_equals_cpu(backend, x)
    second = run(operators(backend), x, make_grad(x), super_arguments(x), lambda t: t.cuda())
    assert_same_bits(second, first)


@every_backend
@pytest.mark.parametrize("reset", ({}, dict(v_reset=None, slif_v_reset=0.0)), ids=short)
@pytest.mark.parametrize("steps", (8, 9))
def test_special_values(backend, reset, steps):
    """NaN stays in its neuron and fires nothing, infinity makes no NaN where it makes none on the CPU."""
    x = make_x((steps, 2, 4, 5))
    for i, value in enumerate((float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-40)):
        x[1 + i % 2, 0, i % 4, i // 4 + 1] = value
    own = super_arguments(x, **reset)
    actual = run(operators(backend), x, make_grad(x), own, lambda t: t.cuda())
    expected = run(CPU, x, make_grad(x), own)
    assert_same_bits(actual, expected, ["codes", "counts", "y"])
    if is_near(backend, x, **reset):
        assert_near(actual["grad x"], expected["grad x"])
    else:
        torch.testing.assert_close(actual["grad x"], expected["grad x"], rtol=0, atol=0, equal_nan=True)
    assert not actual["codes"][1:, 0, 0, 1].any(), "NaN is no spike"


@every_backend
@pytest.mark.parametrize("shape", ((0, 2, 3), (3, 0, 4), (3, 2, 0, 4), (3, 2, 4, 0)), ids=short)
def test_empty(backend, shape):
    actual = assert_equals_cpu(backend, make_x(shape))
    assert not actual["counts"].any() and actual["counts"].shape == (3, shape[2])


# --- what is launched, what is moved, what is refused ---


@every_backend
@by_dtype((torch.float32, torch.float16))
@pytest.mark.parametrize("shape", ((4, 3, 4, 24), (4, 3, 5, 7), (8, 2, 4, 16)), ids=short)
def test_launches_and_bytes(launches, backend, dtype, shape):
    """In float32 10 bytes an element forward, 18 backward, and what is kept for each neuron, not each step: its
    channel's row of a table, and where sums are taken a partial one."""
    ops, x = operators(backend), make_x(shape, dtype)
    settings = super_arguments(x)
    place = (x.cuda(), make_grad(x).cuda(), make_table(4, x).cuda(), make_table(9, x).cuda())

    def passes(x, grad, decode_table, backward_table):
        with launches() as encode:
            codes, _ = ops.super_neuron_encode(x, *settings)
        with launches() as decode:
            ops.super_neuron_decode(codes, decode_table, x)
        with launches() as sums:
            ops.super_neuron_sums(codes, grad, 3)
        with launches() as backward:
            ops.super_neuron_backward(grad, x, codes, backward_table, *settings)
        return encode, decode, sums, backward

    passes(*place)  # compiles what is compiled late
    encode, decode, sums, backward = passes(*place)
    counting = 1 if backend == "cuda" else 0  # a pass over the codes, of a byte each
    assert [len(p) for p in (encode, decode, sums, backward)] == [2 + counting, 1, 2, 1]
    if encode[0].loaded is None:
        return  # a real device does not say
    elements, size = x.numel(), x.element_size()
    threads = -(-x[0].numel() // 512) * 512  # those of the last block read a row of the table too

    def within(actual, exact, more):
        assert exact <= actual <= exact + more * threads

    within(encode[0].loaded, size * elements, 0)
    within(encode[0].stored, elements, 3 * 8)
    within(decode[0].loaded, elements, 4 * 4)
    within(decode[0].stored, size * elements, 0)
    within(sums[0].loaded, (1 + size) * elements, 0)
    within(sums[0].stored, 0, 4 * 8)
    within(backward[0].loaded, (1 + 2 * size) * elements, 9 * 4)
    within(backward[0].stored, size * elements, 0)


def test_what_triton_moves_beyond_eight_steps(launches):
    """Backward reads x a second time but for the last eight steps, however many there are, and keeps the states before
    each eight but the first and the last."""
    x, states, neurons = make_x((32, 2, 4, 16)).cuda(), 5, 128
    ops, settings = operators("triton"), super_arguments(x)
    codes, _ = ops.super_neuron_encode(x, *settings)
    with launches() as backward:
        ops.super_neuron_backward(x, x, codes, make_table(9, x).cuda(), *settings)
    assert len(backward) == 1
    if backward[0].loaded is None:
        return  # a real device does not say
    kept, tables = 4 * states * neurons * 2, 4 * 9 * neurons * 4  # a row for each eight steps
    assert backward[0].loaded == 9 * x.numel() + 4 * (x.numel() - 8 * neurons) + kept + tables
    assert backward[0].stored == 4 * x.numel() + kept


@every_backend
def test_opcheck(backend):
    ops, x = operators(backend), make_x((3, 2, 4, 3)).cuda()
    settings = super_arguments(x)
    codes, _ = ops.super_neuron_encode(x, *settings)
    table = make_table(4, x).cuda()
    torch.library.opcheck(ops.super_neuron_encode.default, (x, *settings))
    torch.library.opcheck(ops.super_neuron_decode.default, (codes, table, x))
    torch.library.opcheck(ops.super_neuron_sums.default, (codes, x, 3))
    torch.library.opcheck(ops.super_neuron_backward.default, (x, x, codes, make_table(9, x).cuda(), *settings))


@every_backend
def test_wrong_tensors_are_refused(backend):
    """Who calls an operator directly gets an error, not a wild read."""
    ops, x = operators(backend), make_x((3, 2, 4, 8)).cuda()
    settings = kernels, values = super_arguments(x)
    codes, _ = ops.super_neuron_encode(x, *settings)
    table = make_table(9, x).cuda()
    errors = (RuntimeError, ValueError, TypeError)
    for wrong in (table[:4], table[:, :3].contiguous(), table.double(), table.cpu(), table.t().contiguous().t()):
        with pytest.raises(errors, match="table"):
            ops.super_neuron_backward(x, x, codes, wrong, *settings)
    with pytest.raises(errors, match="table"):
        ops.super_neuron_decode(codes, table[:, :3].contiguous(), x)
    for wrong in (codes.int(), codes[:2], DENSE_LAYOUTS["channels_last"](codes)):
        with pytest.raises(errors, match="codes"):
            ops.super_neuron_backward(x, x, wrong, table, *settings)
    for wrong in ([], kernels * 3):
        with pytest.raises(errors, match="a super neuron has 1 to 8 neurons"):
            ops.super_neuron_encode(x, wrong, values)
    for wrong in (values[1:], values + values):
        with pytest.raises(errors, match="constants"):
            ops.super_neuron_encode(x, kernels, wrong)
    with pytest.raises(errors, match="channels"):
        ops.super_neuron_encode(x[0, 0], *settings)


def test_triton_compiles_once_for_all_lengths_and_sizes():
    """A new number of neurons or set of constants finds the compiled kernel, and so does a new T above 8."""
    from stdano_kernels.triton.channels import (
        super_neuron_backward,
        super_neuron_decode,
        super_neuron_encode,
        super_neuron_sums,
    )

    kernels = (super_neuron_encode, super_neuron_decode, super_neuron_sums, super_neuron_backward)

    def count():
        return [sum(len(cache[0]) for cache in k.device_caches.values()) for k in kernels]

    def step(*shape, **settings):
        x = make_x(shape)
        run(operators("triton"), x, make_grad(x), super_arguments(x, **settings), lambda t: t.cuda())

    # aligned and not, of whole parts and with a rest
    for shape in ((4, 3, 4, 4), (4, 3, 5), (16, 3, 4, 4), (16, 3, 5), (17, 3, 4, 4), (17, 3, 5), (12, 3, 5)):
        step(*shape)
    before = count()
    for shape in ((4, 3, 16), (4, 2, 20, 80), (33, 3, 48), (9, 3, 7), (32, 17, 31), (20, 2, 8)):
        step(*shape, tau=1.3, v_threshold=1.1, gamma=0.3, beta=0.3, alpha=2.0)
    assert count() == before


# --- the public function ---


@every_backend
@pytest.mark.parametrize("training", (False, True), ids=("evaluation", "training"))
@by_dtype((torch.float32, torch.float16))
def test_super_neuron_equals_the_cpu(backend, training, dtype):
    """Statistics are double sums in another order, so tables, and what follows from them, agree to a rounding."""
    neurons = (*PAPER[::-1], "alif")
    x = make_x((9, 4, 3, 5), dtype)
    results = {}
    for device, chosen in (("cpu", "cpu"), ("cuda", backend)):
        leaves = [x.to(device).requires_grad_()]
        leaves.append(torch.linspace(0.2, 0.7, len(neurons), device=device).requires_grad_())
        mean = torch.full((len(neurons), 3), 0.3, device=device)
        var = torch.full((len(neurons), 3), 0.2, device=device)
        options = dict(neurons=neurons, training=training, v_threshold=0.9, tau=1.7, backend=chosen)
        y = stdano_kernels.super_neuron(*leaves, mean, var, **options)
        grads = torch.autograd.grad(y, leaves, make_grad(x).to(device))
        names = ("y", "grad x", "grad weights", "mean", "variance")
        results[device] = {k: t.detach().cpu() for k, t in zip(names, (y, *grads, mean, var), strict=True)}
    assert_close(results["cuda"], results["cpu"], TOLERANCES[dtype])
    assert (results["cuda"]["mean"] != 0.3).any() == training

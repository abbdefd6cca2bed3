"""BatchNorm before a neuron on CUDA and Triton against the CPU kernels: the affine input, and the passes around it."""

import pytest
import torch
from gpu_common import (
    assert_equals_cpu,
    backward_arguments,
    device_run,
    every_backend,
    operator_arguments,
    operators,
    two_neurons,
)
from kernels_common import (
    DENSE_LAYOUTS,
    DTYPES,
    HALF,
    NEURONS,
    OPTIONS,
    assert_close,
    assert_close_to_oracle,
    assert_same_bits,
    by_dtype,
    constant_tensors,
    every_leaky_neuron,
    every_neuron,
    make_affine,
    make_cotangents,
    make_state,
    make_x,
    options_of,
    oracle,
    short,
)
from tolerances import REDUCTION, TOLERANCES

import stdano_kernels
from stdano_kernels import SURROGATES

FLOAT = (torch.float32, *HALF)
LAYOUTS = {
    **DENSE_LAYOUTS,
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[:, :1].expand_as(x),
}


def dtypes_of(backend):
    return DTYPES if backend == "cuda" else FLOAT


# --- the neurons' affine input ---


@every_backend
@every_neuron
@pytest.mark.parametrize("index", (0, 2, 5, 7))
def test_every_option(backend, neuron, index):
    """Surrogates, dtypes, lengths, state and learnable constants take turns."""
    x = make_x(((11, 3, 20, 8)[index % 4], 2, 3, 4), FLOAT[index % 3], seed=index)
    state = make_state(neuron, x) if index % 2 else None
    constants = constant_tensors("tau", x) if index % 3 == 0 else {}
    options = dict(options_of(neuron, OPTIONS[index]), surrogate=SURROGATES[index % 5], alpha=1.3)
    actual = assert_equals_cpu(neuron, x, backend=backend, affine=make_affine(x), state=state, **constants, **options)
    assert 0.02 < actual["spikes"].float().mean() < 0.9


@every_backend
@two_neurons
@pytest.mark.parametrize("steps", (0, 1, 4, 8, 9, 17))
def test_lengths(backend, neuron, steps):
    x = make_x((steps, 2, 3, 4))
    assert_equals_cpu(neuron, x, backend=backend, affine=make_affine(x))


@every_backend
@two_neurons
def test_flat_input(backend, neuron):
    x = make_x((9, 4, 6))
    assert_equals_cpu(neuron, x, backend=backend, affine=make_affine(x))


@every_backend
@pytest.mark.parametrize("shape", ((5, 1, 1), (4, 3, 1, 33), (6, 3, 129, 2), (3, 0, 4), (2, 3, 5, 7, 11)), ids=short)
def test_shapes(backend, shape):
    """The neurons take turns."""
    x, neuron = make_x(shape), NEURONS[sum(shape) % len(NEURONS)]
    assert_equals_cpu(neuron, x, backend=backend, affine=make_affine(x))


@every_backend
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ((9, 4, 3, 5), (9, 2, 4, 8)), ids=short)
def test_layouts(backend, layout, shape):
    x = LAYOUTS[layout](make_x(shape))
    actual = assert_equals_cpu("lif", x, backend=backend, affine=make_affine(x))
    if layout in DENSE_LAYOUTS:
        assert actual["spikes"].stride() == actual["grad x"].stride() == x.stride()


@every_backend
@by_dtype(DTYPES)
@pytest.mark.parametrize("kind", ("both []", "tau, v_threshold [C]"))
def test_with_learnable_constants(backend, dtype, kind):
    """All four sums at once."""
    if dtype not in dtypes_of(backend):
        pytest.skip("float64 has no Triton kernel")
    x = make_x((18, 3, 7, 5), dtype)
    neuron = "slif" if dtype == torch.float32 else "lif"
    options = dict(state=make_state(neuron, x), affine=make_affine(x), **constant_tensors(kind, x))
    assert_equals_cpu(neuron, x, backend=backend, **options)


@every_backend
@two_neurons
def test_soft_spikes(backend, neuron):
    x = make_x((9, 2, 3, 4))
    assert_equals_cpu(neuron, x, backend=backend, affine=make_affine(x), spike="soft")


@every_leaky_neuron
def test_float64_equals_the_reference(neuron):
    x = make_x((11, 2, 3, 4), torch.float64)
    options = dict(affine=make_affine(x), surrogate="atan", **constant_tensors("tau", x))
    assert_close_to_oracle(device_run(neuron, x, backend="cuda", **options), oracle(neuron, x, **options))


@every_backend
def test_sums_over_more_neurons_than_threads(backend):
    """A thread then takes several, in sequence. Twice the same, to the last bit."""
    x = make_x((2, 40, 3, 1400))
    first = assert_equals_cpu("lif", x, backend=backend, affine=make_affine(x))
    second = device_run("lif", x, backend=backend, affine=make_affine(x))
    assert_same_bits(second, first, ["grad affine"])


@every_backend
@two_neurons
def test_launches_and_bytes(launches, backend, neuron):
    """What a plain call moves, three numbers of its channel for each neuron, and one small launch for the sums."""
    forward, backward = operators(backend).scan_forward, operators(backend).scan_backward
    x = make_x((4, 3, 5, 6))
    arguments = operator_arguments(neuron, x, affine=make_affine(x), save=True)
    call = backward_arguments(arguments, forward(*arguments))
    backward(*call)  # compiles what is compiled late
    with launches() as first:
        forward(*arguments)
    with launches() as second:
        backward(*call)
    assert len(first) == 1 and len(second) == 2
    if first[0].loaded is None:
        return  # a real device does not say
    size, threads = 4 * x.numel(), 512  # those of the last block read a column of affine too
    assert size <= first[0].loaded <= size + 12 * threads and first[0].stored == size
    assert 2 * size <= second[0].loaded <= 2 * size + 12 * threads
    assert size <= second[0].stored <= size + 16 * threads


@every_backend
def test_wrong_tables_are_refused(backend):
    """Who calls an operator directly gets an error, not a wild read."""
    ops = operators(backend)
    x, state, constants, affine, *settings = operator_arguments("lif", make_x((3, 2, 4)), affine=torch.ones(3, 4))
    for wrong in (affine[:2], affine[:, :3].contiguous(), affine.double(), affine.cpu(), affine.t().contiguous().t()):
        with pytest.raises((RuntimeError, ValueError, TypeError), match="affine"):
            ops.scan_forward(x, state, constants, wrong, *settings)
        with pytest.raises((RuntimeError, ValueError, TypeError), match="table"):
            ops.channel_affine(x, x, wrong)
    with pytest.raises((RuntimeError, ValueError, TypeError), match="grad"):
        ops.channel_affine(x[:2], x, affine)
    with pytest.raises((RuntimeError, ValueError, TypeError), match="channels"):
        ops.channel_sums(x[0])


# --- a channel's sums, and what follows from them ---


SHAPES = ((4, 3, 5, 7), (9, 2, 4, 8), (5, 1, 1), (3, 4, 1, 33), (1, 3, 129), (0, 2, 3), (3, 2, 4, 0))


@every_backend
@by_dtype(DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=short)
def test_channel_passes(backend, dtype, shape):
    if dtype not in dtypes_of(backend):
        pytest.skip("float64 has no Triton kernel")
    for layout in LAYOUTS.values() if len(shape) == 4 and dtype in (torch.float32, torch.float64) else [lambda t: t]:
        x = layout(make_x(shape, dtype))
        grad, table = make_cotangents("lif", x)["spikes"].to(dtype), make_affine(x)
        ours, theirs = operators(backend), torch.ops.stdano
        sums = ours.channel_sums(x.cuda()).cpu()
        assert_close({"sums": sums}, {"sums": theirs.channel_sums(x)}, REDUCTION[torch.float64])
        out = ours.channel_affine(grad.cuda(), x.cuda(), table.cuda()).cpu()
        expected = theirs.channel_affine(grad, x, table)
        assert_same_bits({"out": out}, {"out": expected})
        assert out.stride() == expected.stride()
        own = torch.empty_like(x, device="cuda").copy_(grad)
        ours.channel_affine_(own, x.cuda(), table.cuda())
        assert_same_bits({"in place": own.cpu()}, {"in place": expected})


@every_backend
@by_dtype((torch.float32, torch.float16))
def test_channel_sums_are_sums_in_double(backend, dtype):
    """Many values far from zero, of which a float32 sum of squares would keep four digits; three rows of them a thread.
    Twice the same bits."""
    x = (make_x((1, 70, 3, 1400)) + 1000).to(dtype).cuda()
    first, second = (operators(backend).channel_sums(x).cpu() for _ in range(2))
    wide = x.cpu().double()
    exact = torch.stack((wide.sum((0, 1, 3)), wide.square().sum((0, 1, 3))))
    torch.testing.assert_close(first, exact, rtol=1e-12, atol=0)
    assert torch.equal(first, second)


@every_backend
@by_dtype((torch.float32, torch.bfloat16))
@pytest.mark.parametrize("shape", ((1, 3, 4, 24), (9, 3, 5, 7)), ids=short)
def test_launches_and_bytes_of_channel_passes(launches, backend, dtype, shape):
    ops = operators(backend)
    x = make_x(shape, dtype).cuda()
    table = make_affine(x.cpu()).cuda()
    ops.channel_sums(x), ops.channel_affine(x, x, table)  # compiles what is compiled late
    with launches() as sums:
        ops.channel_sums(x)
    with launches() as affine:
        ops.channel_affine(x, x, table)
    assert len(sums) == 2 and len(affine) == 1
    if affine[0].loaded is None:
        return
    size, threads = x.numel() * x.element_size(), -(-x[0].numel() // 512) * 512
    assert sums[0].loaded == size and sums[0].stored <= 16 * threads
    assert 2 * size <= affine[0].loaded <= 2 * size + 12 * threads and affine[0].stored == size


@every_backend
def test_opcheck_of_channel_passes(backend):
    ops, x = operators(backend), make_x((3, 2, 4, 5)).cuda()
    torch.library.opcheck(ops.channel_sums.default, (x,))
    torch.library.opcheck(ops.channel_affine.default, (x, x, make_affine(x.cpu()).cuda()))


# --- the public function ---


@every_backend
@every_neuron
@pytest.mark.parametrize("training", (False, True), ids=("evaluation", "training"))
def test_bn_neuron_equals_the_cpu(backend, neuron, training):
    """Statistics are double sums in another order, so all that follows from them agrees to a rounding."""
    x = make_x((9, 4, 3, 5))
    results = {}
    for device, chosen in (("cpu", "cpu"), ("cuda", backend)):
        leaves = [
            t.to(device).requires_grad_() for t in (x, torch.tensor([0.8, 1.2, 1.5]), torch.tensor([0.3, 0.1, 0]))
        ]
        mean, var = torch.full((3,), 0.3, device=device), torch.full((3,), 0.8, device=device)
        spikes = stdano_kernels.bn_neuron(
            neuron, leaves[0], mean, var, *leaves[1:], training=training, backend=chosen, v_threshold=0.9
        )
        grads = torch.autograd.grad(spikes, leaves, make_cotangents(neuron, x)["spikes"].to(device))
        names = ("spikes", "grad x", "grad weight", "grad bias", "mean", "variance")
        results[device] = {k: t.detach().cpu() for k, t in zip(names, (spikes, *grads, mean, var), strict=True)}
    assert_close(results["cuda"], results["cpu"], TOLERANCES[torch.float32])
    assert (results["cuda"]["mean"] != 0.3).any() == training
    assert 0.02 < results["cuda"]["spikes"].mean() < 0.9


def test_auto_gives_bn_neuron_to_triton_where_cuda_has_no_kernels():
    x = make_x((3, 4, 3, 5))
    settings = dict(training=True, detach_adapt=True, decay="linear", surrogate="atan")
    expected = stdano_kernels.bn_neuron("slif", x, None, None, **settings)
    with pytest.raises(RuntimeError, match="compiled for the usual settings"):
        stdano_kernels.bn_neuron("slif", x.cuda(), None, None, backend="cuda", **settings)
    assert torch.equal(stdano_kernels.bn_neuron("slif", x.cuda(), None, None, **settings).cpu(), expected)

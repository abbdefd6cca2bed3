"""`affine` of lif, llif and slif: the input becomes scale*(x - centre) + shift in registers, and the kernel returns the
gradients of x and of the three rows."""

import pytest
import torch
from channels_common import distances, draw
from kernels_common import (
    DENSE_LAYOUTS,
    DTYPES,
    FUNCTIONS,
    HALF,
    LEVELS,
    OPTIONS,
    assert_close,
    assert_same_bits,
    by_dtype,
    compute_dtype,
    constant_tensors,
    every_backend,
    every_leaky_neuron,
    every_neuron_of_the_paper,
    every_surrogate,
    make_cotangents,
    make_state,
    make_x,
    one_thread,
    options_of,
    run,
    short,
)
from tolerances import REDUCTION, SPIKE_BAND, TOLERANCES

SUMS = ["grad affine"]


def make_affine(x):
    """Centres, scales of both signs and shifts, all different, in the dtype of arithmetic."""
    spread = torch.linspace(0, 1, x.shape[2], dtype=compute_dtype(x.dtype))
    sign = torch.ones_like(spread)
    sign[2::3] = -1
    return torch.stack((0.4 * spread - 0.1, (0.6 + spread) * sign, 0.3 - 0.5 * spread))


def everything(neuron, x, affine=None, cotangents=None, state=None, tau=2.0, v_threshold=1.0, **settings):
    """All outputs and the gradients of x, affine, states and constants."""
    tensors = {"x": x, "affine": make_affine(x) if affine is None else affine, "tau": tau, "v_threshold": v_threshold}
    tensors |= {f"state{i}": t for i, t in enumerate(state or ())}
    leaves = {k: t.detach().requires_grad_() for k, t in tensors.items() if isinstance(t, torch.Tensor)}
    tensors |= leaves
    spikes, final, v_seq = FUNCTIONS[neuron](
        tensors["x"],
        affine=tensors["affine"],
        tau=tensors["tau"],
        v_threshold=tensors["v_threshold"],
        state=None if state is None else tuple(tensors[f"state{i}"] for i in range(len(state))),
        return_state=True,
        return_v_seq=True,
        **settings,
    )
    out = {"spikes": spikes, "v_seq": v_seq, **final._asdict()}
    cotangents = make_cotangents(neuron, x) if cotangents is None else cotangents
    used = {k: t for k, t in out.items() if k in cotangents and t.requires_grad}
    grads = torch.autograd.grad(
        list(used.values()),
        list(leaves.values()),
        [cotangents[k].to(t.dtype) for k, t in used.items()],
        allow_unused=True,
        materialize_grads=True,
    )
    return {**{k: t.detach() for k, t in out.items()}, **{f"grad {k}": g for k, g in zip(leaves, grads, strict=True)}}


def reference_of(neuron, x, affine=None, state=None, tau=2.0, v_threshold=1.0, **settings):
    """The float64 reference."""

    def wide(t):
        return t.double() if isinstance(t, torch.Tensor) else t

    affine = make_affine(x) if affine is None else affine
    state = None if state is None else tuple(map(wide, state))
    constants = {"tau": wide(tau), "v_threshold": wide(v_threshold)}
    with one_thread():
        return everything(neuron, x.double(), wide(affine), state=state, backend="reference", **constants, **settings)


@every_leaky_neuron
@pytest.mark.parametrize("steps", (1, 4, 18))
@pytest.mark.parametrize("options", OPTIONS, ids=short)
def test_every_option_in_float64(neuron, steps, options):
    x = make_x((steps, 2, 3, 5), torch.float64)
    settings = options_of(neuron, options)
    if options["decay_input"]:
        settings |= constant_tensors("tau, v_threshold [C]" if steps > 1 else "both []", x)
    state = make_state(neuron, x) if options["detach_reset"] else None
    actual = everything(neuron, x, state=state, backend="cpu", **settings)
    expected = reference_of(neuron, x, state=state, **settings)
    assert torch.equal(actual["spikes"], expected["spikes"])
    assert_close(actual, expected, TOLERANCES[torch.float64])


@every_surrogate
@pytest.mark.parametrize("spike", ("hard", "soft"))
def test_surrogates_in_float64(surrogate, spike):
    neuron = "llif"
    x = make_x((4, 2, 3, 400), torch.float64)
    settings = dict(surrogate=surrogate, spike=spike, alpha=1.3)
    assert_close(everything(neuron, x, **settings), reference_of(neuron, x, **settings), TOLERANCES[torch.float64])


@every_neuron_of_the_paper
@pytest.mark.parametrize("steps", (4, 17))
@pytest.mark.parametrize("outputs", ("all", "spikes alone"))
def test_float32(neuron, steps, outputs):
    """Spikes alone is the way of the loops over four steps. Neurons in doubt get no gradient from outside."""
    x = make_x((steps, 2, 3, 250))
    affine = make_affine(x)
    doubtful = distances(neuron, x, affine=affine.double()) < SPIKE_BAND[torch.float32]
    sure, sure_so_far = ~doubtful.any(0), ~doubtful.cummax(0).values
    assert sure.float().mean() > 0.95, "the band must not hide the test"
    cotangents = {k: g * sure for k, g in make_cotangents(neuron, x).items() if outputs == "all" or k == "spikes"}
    expected = reference_of(neuron, x, cotangents=cotangents)
    if outputs == "all":
        actual = everything(neuron, x, cotangents=cotangents)
    else:
        leaves = x.clone().requires_grad_(), affine.clone().requires_grad_()
        spikes = FUNCTIONS[neuron](leaves[0], affine=leaves[1])
        grads = torch.autograd.grad(spikes, leaves, cotangents["spikes"])
        actual = {"spikes": spikes.detach(), "grad x": grads[0], "grad affine": grads[1]}
    assert torch.equal(actual["spikes"][sure_so_far], expected["spikes"][sure_so_far].float())
    expected = {k: t for k, t in expected.items() if k in actual and k != "spikes"}
    for name in set(expected) - {"grad x", *SUMS}:
        actual[name], expected[name] = actual[name] * sure, expected[name] * sure
    assert_close(actual, expected, TOLERANCES[torch.float32], set(expected) - set(SUMS))
    # gradients of order 1, as many as a channel has values
    worst = (actual["grad affine"] - expected["grad affine"]).abs().max().item()
    assert worst <= REDUCTION[torch.float32].rtol * x.numel() / 3


@every_leaky_neuron
@by_dtype(HALF)
@pytest.mark.parametrize("steps", (4, 18))
def test_half_precision_is_float32_rounded(neuron, dtype, steps):
    x = make_x((steps, 2, 3, 5, 7), dtype)
    state = make_state(neuron, x)
    half, single = everything(neuron, x, state=state), everything(neuron, x.float(), state=state)
    for name in ("spikes", "v_seq", "grad x"):
        single[name] = single[name].to(dtype)
    assert_same_bits(half, single)


@every_leaky_neuron
@by_dtype()
@pytest.mark.parametrize("steps", (4, 5))
def test_the_affine_input_is_what_the_kernels_see(neuron, steps, dtype):
    """Same spikes, potentials and states as from fma(scale, x - centre, shift) in the dtype of arithmetic. Powers of
    two make the product exact, and so the fma's result that of two operations."""
    x, real = make_x((steps, 2, 3, 5, 40), dtype), compute_dtype(dtype)
    affine = torch.tensor([[0.125, -0.25, 0.5], [0.5, 2.0, -1.0], [0.25, 0.5, 0.75]], dtype=real)
    centre, scale, shift = (row.reshape(3, 1, 1) for row in affine)
    mapped = scale * (x.to(real) - centre) + shift
    actual, expected = everything(neuron, x, affine), run(neuron, mapped)
    for name in ("spikes", "v_seq"):
        expected[name] = expected[name].to(dtype)
    assert_same_bits(actual, expected, [k for k in expected if not k.startswith("grad")])


@every_leaky_neuron
@by_dtype((torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("shape", ((4, 2, 3, 41, 13), (4, 7, 3), (5, 2, 1, 9), (17, 2, 1031), (4, 1, 2, 1, 1)), ids=str)
def test_every_layout_gives_the_same_numbers(neuron, shape, layout, dtype):
    x = make_x(shape, dtype)
    actual, expected = everything(neuron, DENSE_LAYOUTS[layout](x)), everything(neuron, x)
    assert_same_bits(actual, expected, [name for name in expected if name not in SUMS])
    worst = (actual["grad affine"] - expected["grad affine"]).abs().max().item()
    assert worst <= REDUCTION[dtype].rtol * x.numel() / shape[2]


@every_leaky_neuron
@by_dtype(DTYPES)
@pytest.mark.parametrize("steps", (4, 6))
def test_instruction_sets_agree_in_all_bits(neuron, steps, dtype, cpu_capability):
    for layout in ("contiguous", "channels_last"):
        x = DENSE_LAYOUTS[layout](make_x((steps, 2, 3, 5, 37), dtype))
        cotangents = [make_cotangents(neuron, x), {"spikes": draw(x.shape, 1)}]
        results = []
        for level in LEVELS:
            cpu_capability(level)
            results.append([everything(neuron, x, cotangents=c) for c in cotangents])
        for other in results[1:]:
            for a, b in zip(other, results[0], strict=True):
                assert_same_bits(a, b)


@every_leaky_neuron
@by_dtype((torch.float32, torch.float64, torch.float16))
@pytest.mark.parametrize("layout", ("contiguous", "channels_last"))
def test_threads_agree_in_all_bits(neuron, layout, dtype, set_threads):
    x = DENSE_LAYOUTS[layout](make_x((4, 8, 37, 13, 11), dtype))
    cotangents = make_cotangents(neuron, x)
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(everything(neuron, x, cotangents=cotangents))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@every_backend
@every_leaky_neuron
@pytest.mark.parametrize("steps", (3, 4, 17))
def test_gradcheck(neuron, backend, steps):
    """Soft spikes: x, the three rows, tau and v_threshold for each channel, the state."""
    x = make_x((steps, 1, 2), torch.float64)
    tau, threshold = torch.tensor([1.8, 2.2]).double(), torch.tensor([0.9, 1.1]).double()
    tensors = [t.requires_grad_() for t in (x, make_affine(x), tau, threshold, *make_state(neuron, x))]

    def function(x, affine, tau, v_threshold, *state):
        spikes, final, v_seq = FUNCTIONS[neuron](
            x, affine=affine, tau=tau, v_threshold=v_threshold, state=state, spike="soft", surrogate="sigmoid",
            alpha=2.0, return_state=True, return_v_seq=True, backend=backend,
        )  # fmt: skip
        return (spikes, *final, v_seq)

    assert torch.autograd.gradcheck(function, tensors)


@every_leaky_neuron
@pytest.mark.parametrize("shape", ((0, 2, 3, 4), (4, 0, 3), (4, 2, 0), (0, 0, 0)), ids=str)
def test_empty_tensors(neuron, shape):
    result = everything(neuron, make_x(shape))
    assert result["spikes"].shape == shape and result["grad affine"].shape == (3, shape[2])
    assert not result["grad affine"].any()


@every_leaky_neuron
def test_no_affine_is_the_identity(neuron):
    """centre 0, scale 1, shift 0: the plain call's numbers."""
    for steps in (4, 5):
        x = make_x((steps, 2, 3, 5, 7))
        identity = torch.tensor([[0.0], [1.0], [0.0]]).expand(3, 3)
        assert_same_bits(everything(neuron, x, identity), run(neuron, x), ["spikes", "v_seq", "v", "grad x"])

"""The CPU kernels against the float64 reference, and their builds and thread counts against each other."""

import pytest
import torch
from kernels_common import (
    DENSE_LAYOUTS,
    DTYPES,
    FUNCTIONS,
    HALF,
    LEVELS,
    NEURONS,
    OPTIONS,
    STEPS,
    assert_close,
    assert_close_to_oracle,
    assert_same_bits,
    by_dtype,
    compute_dtype,
    every_neuron,
    every_surrogate,
    make_affine,
    make_cotangents,
    make_state,
    make_x,
    oracle,
    recorded_u,
    run,
    several_levels,
    short,
)
from tolerances import SPIKE_BAND, TOLERANCES

from stdano_kernels import SURROGATES


def constants(kind, x):
    """tau and v_threshold: numbers, tensors of one element, one a channel, or one a neuron."""
    channels, dtype = x.shape[2], compute_dtype(x.dtype)
    if kind == "numbers":
        return {"tau": 1.7, "v_threshold": 0.9}
    if kind == "scalars":
        return {"tau": torch.tensor(1.7, dtype=dtype), "v_threshold": torch.tensor(0.9, dtype=dtype)}
    if kind == "neurons":
        spread = torch.linspace(0, 1, x[0].numel(), dtype=dtype).reshape(x.shape[1:])
        return {"tau": 1.2 + 2 * spread, "v_threshold": 0.7 + 0.6 * spread.flip(0)}
    return {
        "tau": torch.linspace(1.2, 3, channels, dtype=dtype),
        "v_threshold": torch.linspace(0.7, 1.3, channels, dtype=dtype),
    }


# --- float64: the same spikes, gradients to 1e-10 ---


@every_neuron
@pytest.mark.parametrize("options", OPTIONS, ids=short)
def test_float64_equals_reference(neuron, options):
    for steps in STEPS:
        x = make_x((steps, 2, 3, 5), torch.float64)
        settings = {**options, **constants("scalars", x)}
        state = make_state(neuron, x) if steps % 2 else None
        assert_close_to_oracle(run(neuron, x, state=state, **settings), oracle(neuron, x, state=state, **settings))


@pytest.mark.parametrize("neuron", ("lif", "integer_lif"))
@every_surrogate
@pytest.mark.parametrize("spike", ("hard", "soft"))
def test_float64_surrogates(neuron, surrogate, spike):
    x = make_x((19, 2, 3, 5), torch.float64)
    for kind in ("numbers", "channels"):
        options = dict(surrogate=surrogate, alpha=1.3, spike=spike, v_reset=0.1, **constants(kind, x))
        actual, expected = run(neuron, x, **options), oracle(neuron, x, **options)
        assert_close({k: t.double() for k, t in actual.items()}, expected, TOLERANCES[torch.float64])


@every_neuron
def test_float64_many_blocks(neuron):
    """N = 2 * 3 * 437 spans three forward blocks and ten backward ones, the last of odd size."""
    x = make_x((18, 2, 3, 437), torch.float64)
    options = constants("channels", x)
    assert_close_to_oracle(run(neuron, x, **options), oracle(neuron, x, **options))


@every_neuron
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_constants_of_each_neuron_in_many_blocks(neuron, layout):
    x = DENSE_LAYOUTS[layout](make_x((5, 2, 3, 21, 19), torch.float64))
    options = constants("neurons", x)
    assert_close_to_oracle(run(neuron, x, **options), oracle(neuron, x, **options))


# --- float32: spikes outside a band, gradients where no spike is in doubt ---


EACH_SURROGATE = [(neuron, "triangle") for neuron in NEURONS] + [("lif", surrogate) for surrogate in SURROGATES[1:]]


@pytest.mark.parametrize("neuron, surrogate", EACH_SURROGATE)
@pytest.mark.parametrize("v_reset", (None, 0.0), ids=("soft", "hard"))
@pytest.mark.parametrize("kind", ("numbers", "channels"))
@pytest.mark.parametrize("steps", (4, 33))
def test_float32_against_float64(neuron, surrogate, v_reset, kind, steps):
    x = make_x((steps, 2, 3, 101), torch.float32)
    alpha = 1.25
    options = dict(surrogate=surrogate, alpha=alpha, v_reset=v_reset, **constants(kind, x))
    band = SPIKE_BAND[torch.float32]
    with recorded_u() as u:
        oracle(neuron, x, gradients=False, **options)
    distance = torch.stack(u).abs().unflatten(0, (steps, -1)).amin(1)  # to the nearest threshold
    doubtful = distance < band
    if surrogate == "rectangle":  # whose derivative jumps at 1/(2 alpha)
        doubtful |= (distance - 0.5 / alpha).abs() < band
    sure_so_far = ~doubtful.cummax(dim=0).values
    sure = ~doubtful.any(dim=0)
    assert sure.float().mean() > 0.95, "the band must not hide the test"

    # Neurons in doubt get no gradient, so sums over all neurons can be compared as well.
    cotangents = {k: g * sure for k, g in make_cotangents(neuron, x).items()}
    actual = run(neuron, x, cotangents=cotangents, **options)
    expected = oracle(neuron, x, cotangents=cotangents, **options)
    assert torch.equal(actual["spikes"][sure_so_far], expected["spikes"][sure_so_far].float())
    for name in expected:
        if name not in ("grad tau", "grad v_threshold"):
            actual[name], expected[name] = actual[name] * sure, expected[name] * sure
    assert_close(actual, expected, TOLERANCES[torch.float32])


# --- half precision is float32, rounded ---


@every_neuron
@by_dtype(HALF)
@pytest.mark.parametrize("steps", (1, 4, 18))
@pytest.mark.parametrize("kind", ("numbers", "scalars", "channels"))
@pytest.mark.parametrize("v_reset", (None, 0.0), ids=("soft", "hard"))
def test_half_precision_is_float32_rounded(neuron, dtype, steps, kind, v_reset):
    x = make_x((steps, 2, 3, 211), dtype)
    options = dict(v_reset=v_reset, **constants(kind, x))
    state = make_state(neuron, x)
    half, single = run(neuron, x, state=state, **options), run(neuron, x.float(), state=state, **options)
    for name in ("spikes", "v_seq", "grad x"):  # everything else is float32 for both
        single[name] = single[name].to(dtype)
    assert_same_bits(half, single)


# --- the builds, and threads: equal in all bits ---


@several_levels
@pytest.mark.parametrize("neuron, surrogate", EACH_SURROGATE)
@by_dtype(DTYPES)
@pytest.mark.parametrize("kind", ("numbers", "channels"))
def test_instruction_sets_agree_in_all_bits(neuron, surrogate, dtype, kind, cpu_capability):
    x = make_x((18, 2, 3, 91), dtype)
    state = make_state(neuron, x)
    results = {}
    for level in LEVELS:
        cpu_capability(level)
        results[level] = run(neuron, x, state=state, surrogate=surrogate, **constants(kind, x))
    for level in LEVELS[1:]:
        assert_same_bits(results[level], results["generic"])


@every_neuron
@by_dtype((torch.float32, torch.bfloat16))
@pytest.mark.parametrize("affine", (False, True), ids=("", "affine"))
@pytest.mark.parametrize("steps", (4, 7, 20))
def test_the_loops_for_four_steps_agree_with_single_steps(neuron, dtype, affine, steps):
    """Several steps are taken at once where nothing but spikes and gradients is asked for. Potentials, or a gradient of
    the last state, take one after the other; they may change no bit of what both give."""
    x = make_x((steps, 2, 3, 91), dtype)
    grad, table = make_cotangents(neuron, x)["spikes"].to(dtype), make_affine(x) if affine else None
    results = []
    for asked in ({}, {"return_state": True}, {"return_v_seq": True}):
        leaf = x.clone().requires_grad_()
        out = FUNCTIONS[neuron](leaf, affine=table, **asked)
        spikes, *more = out if asked else (out,)
        loss = (spikes * grad).sum()
        for extra in more:
            loss = loss + 0 * sum(t.sum() for t in extra) if isinstance(extra, tuple) else loss + 0 * extra.sum()
        results.append({"spikes": spikes.detach(), "grad x": torch.autograd.grad(loss, leaf)[0] + 0.0})
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@several_levels
@every_neuron
@by_dtype((torch.float32, torch.float64))
def test_instruction_sets_agree_on_special_values(neuron, dtype, cpu_capability):
    """Subnormal numbers, infinities, NaN (without its sign, on which processors differ) and huge numbers."""
    special = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 1.0, 3e38, -3e38, float("inf"), -float("inf"), float("nan")])
    x = special[torch.randint(len(special), (6, 2, 3, 91))].to(dtype)
    results = []
    for level in LEVELS:
        cpu_capability(level)
        result = run(neuron, x, cotangents={"spikes": torch.ones_like(x)})
        results.append({k: torch.where(t.isnan(), torch.full_like(t, 7), t) for k, t in result.items()})
    for result in results[1:]:
        assert_same_bits(result, results[0])


@several_levels
@pytest.mark.parametrize("neuron, surrogate", EACH_SURROGATE)
def test_instruction_sets_agree_on_soft_spikes(neuron, surrogate, cpu_capability):
    x = make_x((5, 2, 3, 91))
    results = []
    for level in LEVELS:
        cpu_capability(level)
        results.append(run(neuron, x, surrogate=surrogate, spike="soft", **constants("scalars", x)))
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_the_processor_gets_the_most_it_can_run():
    assert torch.ops.stdano.cpu_capability() == LEVELS[-1]


def test_an_unknown_instruction_set_is_refused(cpu_capability):
    level = torch.ops.stdano.cpu_capability()
    with pytest.raises(RuntimeError, match=r"must be one of generic.* got x86-64-v9"):
        torch.ops.stdano.cpu_capability("x86-64-v9")
    assert torch.ops.stdano.cpu_capability() == level


@every_neuron
@by_dtype((torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("kind", ("numbers", "scalars", "channels"))
@pytest.mark.parametrize("channels_last", (False, True), ids=("contiguous", "channels_last"))
def test_threads_agree_in_all_bits(neuron, dtype, kind, channels_last, set_threads):
    """42,328 neurons in 6 steps: enough work for two threads, and blocks that cut channels anywhere."""
    x = make_x((6, 8, 37, 13, 11), dtype)
    if channels_last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    cotangents = make_cotangents(neuron, x)
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(run(neuron, x, cotangents=cotangents, **constants(kind, x)))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_repeated_calls_agree_in_all_bits():
    for neuron in NEURONS:
        x = make_x((7, 4, 5, 999))
        assert_same_bits(run(neuron, x, **constants("channels", x)), run(neuron, x, **constants("channels", x)))

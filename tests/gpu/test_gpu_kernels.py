"""CUDA and Triton kernels against the CPU kernels, bit for bit, over every option, size, dtype and layout."""

import pytest
import torch
from gpu_common import assert_equals_cpu, device_run, every_backend, two_neurons
from kernels_common import (
    DECLARED,
    DENSE_LAYOUTS,
    DTYPES,
    FUNCTIONS,
    HALF,
    OPTIONS,
    assert_close_to_oracle,
    assert_same_bits,
    by_dtype,
    constant_tensors,
    every_leaky_neuron,
    every_neuron,
    every_surrogate,
    make_cotangents,
    make_state,
    make_x,
    options_of,
    oracle,
    run,
    short,
)

from stdano_kernels import SURROGATES

FLOAT = (torch.float32, *HALF)


def dtypes_of(backend):
    return DTYPES if backend == "cuda" else FLOAT  # the Triton kernels do not compute in float64


@every_backend
@every_neuron
@pytest.mark.parametrize("index", range(len(OPTIONS)))
def test_every_option(backend, neuron, index):
    """Surrogates, dtypes, state and length take turns; each has a test of its own below."""
    options = options_of(neuron, OPTIONS[index])
    surrogate = SURROGATES[index % len(SURROGATES)]
    x = make_x(((1, 3, 11, 20)[index // 3 % 4], 2, 3, 4), FLOAT[index % 3], seed=index)
    state = make_state(neuron, x) if index % 2 else None
    assert_equals_cpu(neuron, x, backend=backend, state=state, surrogate=surrogate, alpha=1.3, tau=1.7, **options)


@every_backend
@two_neurons
@every_surrogate
@pytest.mark.parametrize("spike", ("hard", "soft"))
def test_surrogates(backend, neuron, surrogate, spike):
    x = make_x((9, 2, 3, 4))
    assert_equals_cpu(neuron, x, backend=backend, surrogate=surrogate, alpha=0.8, spike=spike, v_threshold=0.9)


@every_backend
@every_neuron
@pytest.mark.parametrize("steps", (0, 1, 2, 4, 8, 9, 16, 17, 25))
@pytest.mark.parametrize("with_state", (False, True), ids=("", "state"))
def test_lengths(backend, neuron, steps, with_state):
    x = make_x((steps, 3, 4))
    state = make_state(neuron, x) if with_state else None
    assert_equals_cpu(neuron, x, backend=backend, state=state)


@every_backend
@two_neurons
@by_dtype(DTYPES)
@pytest.mark.parametrize("size", (1, 4, 6, 8, 33, 96, 1000))
def test_sizes_around_the_vector_width(backend, neuron, dtype, size):
    if dtype not in dtypes_of(backend):
        pytest.skip("float64 has no Triton kernel")
    x = make_x((5, size), dtype)
    assert_equals_cpu(neuron, x, backend=backend, state=make_state(neuron, x))


@every_backend
@two_neurons
def test_many_blocks(backend, neuron):
    assert_equals_cpu(neuron, make_x((3, 5, 7, 149)), backend=backend)


@every_backend
@two_neurons
@by_dtype(FLOAT)
@pytest.mark.parametrize("which", ("x", "grad", "both"))
def test_a_storage_offset_breaks_the_alignment(backend, neuron, dtype, which):
    """x, the gradient of the spikes, or both start in the middle of a vector, though their sizes suit it."""
    x = make_x((5, 2, 16), dtype)
    gs = make_cotangents(neuron, x)["spikes"].to(dtype)
    expected = run(neuron, x, cotangents={"spikes": gs})

    def shifted(t, by):
        return torch.cat([t.new_zeros(by), t.flatten()]).cuda()[by:].view(t.shape)

    leaf = shifted(x, int(which != "grad")).requires_grad_()
    spikes = FUNCTIONS[neuron](leaf, backend=backend)
    (grad,) = torch.autograd.grad(spikes, leaf, shifted(gs, int(which != "x")))
    assert_same_bits({"spikes": spikes.detach().cpu(), "grad x": grad.cpu()}, expected, ["spikes", "grad x"])


LAYOUTS = {
    **{name: layout for name, layout in DENSE_LAYOUTS.items() if name != "contiguous"},
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[:, :1].expand_as(x),
}


@every_backend
@two_neurons
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ((9, 4, 3, 5), (9, 2, 4, 8)), ids=short)
def test_layouts(backend, neuron, layout, shape):
    """Dense in any order without a copy; what is not dense is copied once. Strides of the results are x's."""
    x = LAYOUTS[layout](make_x(shape))
    options = dict(state=make_state(neuron, x), tau=torch.linspace(1.3, 2.5, shape[2]), v_threshold=1.1)
    actual = assert_equals_cpu(neuron, x, backend=backend, **options)
    if x.is_contiguous() or layout not in ("every other", "expanded"):
        assert actual["spikes"].stride() == actual["grad x"].stride() == x.stride()


# --- tau and v_threshold as tensors ---


SHAPES = {
    "one value": (3, 1, 1),
    "C=1": (9, 4, 1, 70),
    "N=3": (17, 1, 3),
    "wide channels": (4, 2, 2, 160),
    "narrow channels": (6, 3, 129, 2),
    "odd": (3, 2, 37, 3, 5),
}


@every_backend
@two_neurons
@pytest.mark.parametrize("kind", ("both []", "tau [C]", "v_threshold [C]", "tau, v_threshold [C]"))
@pytest.mark.parametrize("shape", SHAPES)
def test_constants(backend, neuron, shape, kind):
    x = make_x(SHAPES[shape])
    assert_equals_cpu(neuron, x, backend=backend, **constant_tensors(kind, x))


def constants_of_all_kinds(neuron, x, first):
    """Each of a neuron's constants as a tensor: of one element, one a channel, one a neuron, in turn."""
    generator = torch.Generator().manual_seed(4)
    shapes = ((), (x.shape[2],), tuple(x.shape[1:]))
    defaults = {name: c.default for name, c in DECLARED[neuron].constants.items() if name != "v_reset"}
    return {
        name: value * (0.8 + 0.4 * torch.rand(shapes[(k + first) % 3], generator=generator))
        for k, (name, value) in enumerate(options_of(neuron, defaults).items())
    }


@every_backend
@every_neuron
@pytest.mark.parametrize("first, steps", ((0, 4), (1, 11), (2, 8)))
def test_every_constant_may_be_a_tensor_of_any_kind(backend, neuron, first, steps):
    x = make_x((steps, 2, 3, 5))
    state = make_state(neuron, x) if first else None
    assert_equals_cpu(neuron, x, backend=backend, state=state, **constants_of_all_kinds(neuron, x, first))


@every_backend
def test_a_reset_may_be_learned(backend):
    x = make_x((9, 2, 3, 5))
    assert_equals_cpu("llif", x, backend=backend, v_reset=torch.tensor([-0.1, 0.0, 0.2]))


@every_backend
@every_leaky_neuron
@by_dtype(DTYPES)
@pytest.mark.parametrize("v_reset", (None, 0.1))
def test_constants_with_state_and_settings(backend, neuron, dtype, v_reset):
    if dtype not in dtypes_of(backend):
        pytest.skip("float64 has no Triton kernel")
    x = make_x((18, 3, 7, 5), dtype)
    options = dict(state=make_state(neuron, x), v_reset=v_reset, decay="linear", decay_input=True)
    assert_equals_cpu(
        neuron, x, backend=backend, surrogate="sigmoid", **options, **constant_tensors("tau, v_threshold [C]", x)
    )
    assert_equals_cpu(
        neuron, x, backend=backend, tau=2.0, **options, v_threshold=constant_tensors("", x)["v_threshold"]
    )


@every_backend
@pytest.mark.parametrize(
    "shape, layout",
    (((2, 5, 1, 30000), "contiguous"), ((2, 3000, 3, 4, 5), "channels_last"), ((2, 5, 3, 9500), "contiguous")),
    ids=("one channel", "channels last", "three channels"),
)
def test_sums_over_more_neurons_than_threads(backend, shape, layout):
    """150,000 neurons and more: a thread then takes several, in sequence. Twice the same, to the last bit."""
    x = LAYOUTS.get(layout, lambda t: t)(make_x(shape))
    options = constant_tensors("tau, v_threshold [C]", x)
    first = assert_equals_cpu("llif", x, backend=backend, **options)
    second = device_run("llif", x, backend=backend, **options)
    assert_same_bits(second, first, ["grad tau", "grad v_threshold"])


# --- float64, special values, exactness across calls ---


@every_neuron
@pytest.mark.parametrize("options", ({"v_reset": None}, {"v_reset": 0.0}), ids=short)
def test_float64_equals_the_reference(neuron, options):
    x = make_x((11, 2, 3, 4), torch.float64)
    options = dict(
        options_of(neuron, options), surrogate="atan", state=make_state(neuron, x), **constant_tensors("tau", x)
    )
    assert_close_to_oracle(device_run(neuron, x, backend="cuda", **options), oracle(neuron, x, **options))


@every_backend
@every_neuron
@pytest.mark.parametrize("v_reset", (None, 0.0))
def test_special_values(backend, neuron, v_reset):
    """NaN stays in its neuron, infinity makes no NaN; the CPU kernels' tests say what is right."""
    x = make_x((9, 4, 5))
    for i, value in enumerate((float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-40)):
        x[1 + i % 2, i % 4, i // 4 + 1] = value
    options = dict(backend=backend, v_reset=v_reset, surrogate="sigmoid")
    actual, expected = device_run(neuron, x, **options), run(neuron, x, **{**options, "backend": "cpu"})
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0, equal_nan=True)
    assert actual["v"].isnan().sum() == expected["v"].isnan().sum() >= 1


@every_backend
@every_neuron
@pytest.mark.parametrize("shape", ((0, 3), (3, 0), (3, 2, 0, 4), (0, 2, 3)), ids=short)
def test_empty(backend, neuron, shape):
    x = make_x(shape)
    options = constant_tensors("both []", x) if len(shape) > 2 else {}
    assert_equals_cpu(neuron, x, backend=backend, state=make_state(neuron, x), **options)


@every_backend
@every_neuron
@pytest.mark.parametrize("cut", (1, 8, 9))
def test_chunks_equal_the_whole(backend, neuron, cut):
    """A sequence in two calls, state and gradients handed over, is the sequence in one, bit for bit."""
    x = make_x((17, 3, 4)).cuda()
    whole, halves = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes = FUNCTIONS[neuron](whole, backend=backend)
    first, state = FUNCTIONS[neuron](halves[:cut], return_state=True, backend=backend)
    second = FUNCTIONS[neuron](halves[cut:], state=state, backend=backend)
    joined = torch.cat([first, second])
    weights = make_cotangents(neuron, x.cpu())["spikes"].cuda()
    grads = [torch.autograd.grad(s, leaf, weights)[0] for s, leaf in ((spikes, whole), (joined, halves))]
    assert torch.equal(joined, spikes) and torch.equal(*grads)

"""tau and v_threshold as tensors: gradients summed over many blocks, channels and layouts.

SpikingJelly's CuPy kernels once summed these within a block alone; shapes here spread one channel over many blocks
and one block over many channels.
"""

import pytest
import torch
from kernels_common import (
    DENSE_LAYOUTS,
    FUNCTIONS,
    OPTIONS,
    assert_close,
    assert_close_to_oracle,
    by_dtype,
    constant_tensors,
    every_backend,
    every_leaky_neuron,
    every_neuron_of_the_paper,
    make_cotangents,
    make_state,
    make_x,
    oracle,
    run,
    short,
)
from tolerances import TOLERANCES

SHAPES = {
    "one value": (3, 1, 1),
    "C=1": (5, 4, 1, 700),
    "C=3, N=3": (17, 1, 3),
    "blocks in a channel": (4, 2, 2, 800),
    "channels in a block": (6, 3, 129, 2),
    "channels cut by blocks": (3, 2, 37, 13, 11),
}


KINDS = ("both []", "tau [C]", "v_threshold [C]", "tau, v_threshold [C]")


@every_leaky_neuron
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_constants(neuron, shape, kind):
    """In every layout, against the reference on the contiguous one."""
    x = make_x(SHAPES[shape], torch.float64)
    constants = constant_tensors(kind, x)
    expected = oracle(neuron, x, **constants)
    for layout in DENSE_LAYOUTS.values():
        assert_close_to_oracle(run(neuron, layout(x), **constants), expected)


@every_leaky_neuron
@pytest.mark.parametrize("layout", ("contiguous", "channels_last"))
def test_gradients_of_constants_of_a_large_input(neuron, layout):
    """42,328 neurons a step: 83 blocks, more than the 64 slabs that partial sums are kept for."""
    x = make_x((6, 8, 37, 13, 11), torch.float64)
    constants = constant_tensors("tau, v_threshold [C]", x)
    expected = oracle(neuron, x, **constants)
    assert_close_to_oracle(run(neuron, DENSE_LAYOUTS[layout](x), **constants), expected)


@every_leaky_neuron
@pytest.mark.parametrize(
    "settings", [{k: o[k] for k in ("v_reset", "decay", "decay_input")} for o in OPTIONS], ids=short
)
def test_gradients_of_constants_with_settings_and_state(neuron, settings):
    x = make_x((18, 3, 7, 31), torch.float64)
    constants, state = constant_tensors("tau, v_threshold [C]", x), make_state(neuron, x)
    actual, expected = (f(neuron, x, state=state, **constants, **settings) for f in (run, oracle))
    assert_close_to_oracle(actual, expected)


@every_leaky_neuron
@pytest.mark.parametrize("only", ("tau", "v_threshold"))
@pytest.mark.parametrize("channels", (False, True), ids=("[]", "[C]"))
def test_one_constant_a_tensor_the_other_a_number(neuron, only, channels):
    x = make_x((6, 3, 7, 331), torch.float64)
    constants = {"tau": 1.8, "v_threshold": 0.9}
    constants[only] = constant_tensors("tau, v_threshold [C]" if channels else "", x)[only]
    assert_close_to_oracle(run(neuron, x, **constants), oracle(neuron, x, **constants))


@every_leaky_neuron
@by_dtype((torch.float32, torch.bfloat16, torch.float16))
def test_sums_of_float32_do_not_lose_digits(neuron, dtype):
    """120,000 equal terms each: a float32 sum would drift; partial sums are double."""
    x = torch.full((6, 10, 2, 2000), 0.6, dtype=dtype)
    cotangents = {"spikes": torch.ones_like(x)}
    constants = constant_tensors("tau, v_threshold [C]", x)
    actual = run(neuron, x, cotangents=cotangents, **constants)
    expected = oracle(neuron, x, cotangents=cotangents, **constants)
    assert_close(actual, expected, TOLERANCES[torch.float32], ["grad tau", "grad v_threshold"])


@every_leaky_neuron
def test_equal_channels_and_one_value_give_the_same(neuron):
    """[C] with equal entries is the same function as [], bit for bit; the gradient of [] is the sum of [C]'s."""
    x = make_x((6, 3, 7, 31), torch.float64)
    cotangents = make_cotangents(neuron, x)
    one = run(neuron, x, cotangents=cotangents, **constant_tensors("", x))
    many = run(
        neuron, x, cotangents=cotangents, **{k: t.expand(7).contiguous() for k, t in constant_tensors("", x).items()}
    )
    for name in one:
        if name in ("grad tau", "grad v_threshold"):
            torch.testing.assert_close(many[name].sum(), one[name], rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(many[name], one[name]), name


@every_backend
@every_leaky_neuron
def test_constants_in_another_dtype_or_strided(neuron, backend):
    """A float64 or float16 tensor beside float32 input, an expanded and a strided one: used by value, gradient in
    the tensor's own dtype and shape."""
    x = make_x((6, 3, 4, 5))
    for tau in (
        torch.tensor([1.25, 1.5, 2.0, 3.0]).double(),
        torch.tensor([1.25, 1.5, 2.0, 3.0]).half(),
        torch.tensor(1.5).expand(4),
        torch.tensor([1.25, 0.0, 1.5, 0.0, 2.0, 0.0, 3.0, 0.0])[::2],
    ):
        plain = run(neuron, x, tau=tau.float().contiguous().clone(), backend=backend)
        other = run(neuron, x, tau=tau, backend=backend)
        assert torch.equal(other["spikes"], plain["spikes"])
        assert other["grad tau"].dtype == tau.dtype and other["grad tau"].shape == tau.shape
        assert torch.equal(other["grad tau"], plain["grad tau"].to(tau.dtype))


@every_leaky_neuron
def test_parameters_train(neuron):
    """One step against the gradient lowers the loss: the sign is right where it is used."""
    x = make_x((8, 4, 3, 50), torch.float64)
    tau = torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    threshold = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def loss():
        s = FUNCTIONS[neuron](x, tau=tau, v_threshold=threshold, spike="soft", surrogate="sigmoid")
        return (s - 0.3).square().mean()

    before = loss()
    before.backward()
    with torch.no_grad():
        for p in (tau, threshold):
            p -= 1e-3 * p.grad / p.grad.norm()
    assert loss() < before


@every_backend
@pytest.mark.parametrize("shape", ((3, 0, 4), (3, 2, 4, 0), (0, 2, 4), (0, 2, 4, 3)), ids=str)
@every_leaky_neuron
def test_channels_of_an_empty_input(neuron, shape, backend):
    """T or N of zero with one constant a channel: an empty result, gradients of zero."""
    x = make_x(shape)
    constants = constant_tensors("tau, v_threshold [C]", x)
    result = run(neuron, x, backend=backend, cotangents={"spikes": torch.ones(shape)}, **constants)
    assert result["spikes"].shape == shape
    assert torch.equal(result["grad tau"], torch.zeros(4)) and torch.equal(result["grad v_threshold"], torch.zeros(4))


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_no_steps_still_place_the_threshold_of_each_channel(layout):
    """LLIF with T = 0 and no state: the final theta is v_threshold of each neuron's channel, in any layout."""
    x = DENSE_LAYOUTS[layout](make_x((1, 2, 3, 5)))[:0]
    threshold = torch.tensor([1.0, 2.0, 3.0])
    _, state = FUNCTIONS["llif"](x, v_threshold=threshold, return_state=True)
    assert torch.equal(state.theta, threshold[None, :, None].expand(2, 3, 5))


@every_backend
@every_neuron_of_the_paper
@pytest.mark.parametrize("tau", (1e-45, 1e-38, 1e-30, 1e30, 3e38, 1e300), ids=str)
def test_extreme_time_constants(neuron, tau, backend):
    """From no memory at all to no leak: every finite tau that is accepted works."""
    x = torch.tensor([[0.6], [0.6], [0.6]])
    settings = {"tau_min": tau} if neuron == "slif" else {}
    spikes, v = FUNCTIONS[neuron](x, tau=tau, v_reset=0.0, return_v_seq=True, backend=backend, **settings)
    potentials, expected = ([0.6, 0.0, 0.6], [0, 1, 0]) if tau > 1 else ([0.6, 0.6, 0.6], [0, 0, 0])
    torch.testing.assert_close(v.flatten(), torch.tensor(potentials))
    assert spikes.flatten().tolist() == expected

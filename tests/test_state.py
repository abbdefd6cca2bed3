"""Carrying the state: two calls equal one, in values and gradients."""

import itertools

import pytest
import torch
from kernels_common import (
    FUNCTIONS,
    STATES,
    assert_close,
    assert_same_bits,
    by_dtype,
    compute_dtype,
    every_backend,
    every_leaky_neuron,
    every_neuron,
    make_cotangents,
    make_state,
    make_x,
    product,
    run,
    short,
)
from tolerances import REDUCTION

SETTINGS = product(v_reset=(None, 0.0), decay=("exp", "linear"))


def run_in_chunks(neuron, x, cuts, *, backend="cpu", state=None, cotangents, tau, v_threshold, **settings):
    """As kernels_common.run, but one call for each chunk of time steps, the state handed on."""
    x = x.detach().requires_grad_()
    tau, v_threshold = tau.detach().requires_grad_(), v_threshold.detach().requires_grad_()
    initial = None if state is None else tuple(t.detach().requires_grad_() for t in state)
    state, spikes, v_seq = initial, [], []
    bounds = [0, *cuts, x.shape[0]]
    for begin, end in itertools.pairwise(bounds):
        s, state, v = FUNCTIONS[neuron](
            x[begin:end],
            tau=tau,
            v_threshold=v_threshold,
            state=state,
            return_state=True,
            return_v_seq=True,
            backend=backend,
            **settings,
        )
        spikes.append(s)
        v_seq.append(v)
    out = {"spikes": torch.cat(spikes), **state._asdict(), "v_seq": torch.cat(v_seq)}
    leaves = {"x": x, **dict(zip(STATES[neuron], initial or (), strict=False)), "tau": tau, "v_threshold": v_threshold}
    # Without a state, an output may not depend on v_threshold; the helper for one call does the same.
    grads = torch.autograd.grad(
        list(out.values()),
        list(leaves.values()),
        [cotangents[k].to(t.dtype) for k, t in out.items()],
        allow_unused=True,
    )
    result = {k: t.detach() for k, t in out.items()}
    for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
        result[f"grad {name}"] = torch.zeros_like(leaf) if grad is None else grad
    return result


@every_leaky_neuron
@by_dtype((torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("steps, cuts", ((2, [1]), (16, [8]), (34, [17]), (40, [20]), (40, [3, 20, 37])), ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=short)
@pytest.mark.parametrize("with_state", (False, True), ids=("rest", "state"))
def test_chunks_equal_one_call(neuron, dtype, steps, cuts, settings, with_state):
    x = make_x((steps, 2, 3, 23), dtype)
    state = make_state(neuron, x) if with_state else None
    constants = {"tau": torch.tensor([1.3, 2.0, 3.1]), "v_threshold": torch.tensor([0.8, 1.0, 1.2])}
    constants = {k: t.to(compute_dtype(dtype)) for k, t in constants.items()}
    cotangents = make_cotangents(neuron, x)
    whole = run(neuron, x, state=state, cotangents=cotangents, **constants, **settings)
    parts = run_in_chunks(neuron, x, cuts, state=state, cotangents=cotangents, **constants, **settings)
    sums = ["grad tau", "grad v_threshold"]
    assert_same_bits(parts, whole, [name for name in whole if name not in sums])
    assert_close(parts, whole, REDUCTION[dtype], sums)


@every_leaky_neuron
def test_chunks_equal_one_call_in_the_reference(neuron):
    x = make_x((9, 2, 3, 5), torch.float64)
    constants = {"tau": torch.tensor(2.0).double(), "v_threshold": torch.tensor(1.0).double()}
    cotangents = make_cotangents(neuron, x)
    whole = run(neuron, x, backend="reference", cotangents=cotangents, **constants)
    parts = run_in_chunks(neuron, x, [4], backend="reference", cotangents=cotangents, **constants)
    assert_close(parts, whole, REDUCTION[torch.float64])


@every_backend
@every_neuron
@by_dtype()
def test_state_is_named_and_in_the_dtype_of_the_arithmetic(neuron, dtype, backend):
    x = make_x((3, 2, 5), dtype)
    _, state = FUNCTIONS[neuron](x, return_state=True, backend=backend)
    assert state._fields == STATES[neuron]
    for t in state:
        assert t.shape == x.shape[1:]
        assert t.dtype == compute_dtype(dtype)


@every_backend
@every_neuron
def test_what_is_returned(neuron, backend):
    """Spikes alone, or a tuple of spikes, state, potentials in this order."""
    x, function = make_x((3, 4)), FUNCTIONS[neuron]
    spikes, state, v_seq = function(x, return_state=True, return_v_seq=True, backend=backend)
    assert torch.equal(function(x, backend=backend), spikes)
    two = function(x, return_state=True, backend=backend)
    assert len(two) == 2 and torch.equal(two[0], spikes) and torch.equal(two[1].v, state.v)
    two = function(x, return_v_seq=True, backend=backend)
    assert len(two) == 2 and torch.equal(two[0], spikes) and torch.equal(two[1], v_seq)
    assert torch.equal(v_seq[-1], state.v)


@every_backend
@every_neuron
def test_a_state_in_another_precision_or_layout_or_a_plain_tuple(neuron, backend):
    """States are converted and laid out as needed; a plain tuple will do."""
    x = make_x((4, 6, 5))
    state = make_state(neuron, x)
    expected = run(neuron, x, state=state, backend=backend)
    wide = run(neuron, x, state=tuple(t.double() for t in state), backend=backend)
    strided = run(neuron, x, state=tuple(t.t().contiguous().t() for t in state), backend=backend)
    names = [name for name in expected if name.removeprefix("grad ") not in STATES[neuron] or "grad" not in name]
    assert_same_bits(wide, expected, names)
    assert_same_bits(strided, expected)


@every_neuron
def test_the_state_that_went_in_is_not_written_to(neuron):
    x = make_x((4, 6, 5))
    state = make_state(neuron, x)
    copies = [t.clone() for t in state]
    _, final = FUNCTIONS[neuron](x, state=state, return_state=True)
    assert all(torch.equal(a, b) for a, b in zip(state, copies, strict=True))
    assert not {t.data_ptr() for t in state} & {t.data_ptr() for t in final}


@every_neuron
def test_gradient_through_the_state_alone(neuron):
    """A loss on the final state, none on spikes (whose gradient autograd then leaves undefined)."""
    x = make_x((18, 2, 3, 5), torch.float64)
    state = make_state(neuron, x)
    only_state = {k: g for k, g in make_cotangents(neuron, x).items() if k in STATES[neuron]}
    kernel = run(neuron, x, state=state, cotangents=only_state)
    reference = run(neuron, x, state=state, cotangents=only_state, backend="reference")
    assert_close(kernel, reference, REDUCTION[torch.float64])

"""Memory layouts: every one gives the numbers of the contiguous one; dense ones without a copy."""

import pytest
import torch
from kernels_common import (
    FUNCTIONS,
    assert_close,
    assert_same_bits,
    by_dtype,
    compute_dtype,
    every_backend,
    every_leaky_neuron,
    make_cotangents,
    make_state,
    make_x,
    run,
)
from tolerances import REDUCTION


def permuted(*order):
    """x in a memory order of its dimensions, outermost first."""
    inverse = [order.index(d) for d in range(len(order))]
    return lambda x: x.permute(*order).contiguous().permute(*inverse)


def with_offset(x):
    """One element after an aligned address."""
    out = torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape)
    return out.copy_(x)


def every_second(x):
    out = torch.empty(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)[..., ::2]
    return out.copy_(x)


DENSE = {
    "contiguous": lambda x: x,
    "storage offset": with_offset,
    "channels last": permuted(0, 1, 3, 4, 2),
    "batch first": permuted(1, 0, 2, 3, 4),
    "batch, channel, time": permuted(1, 2, 0, 3, 4),
    "time innermost": permuted(1, 2, 3, 4, 0),
    "reversed": permuted(4, 3, 2, 1, 0),
    "channels outermost": permuted(2, 0, 1, 3, 4),
    "odd order": permuted(3, 0, 4, 2, 1),
}
OTHER = {
    "every second": every_second,
    "rows of a wider tensor": lambda x: torch.empty(*x.shape[:-1], x.shape[-1] + 3).to(x)[..., 1:-2].copy_(x),
    "steps of a longer sequence": lambda x: torch.empty(2 * x.shape[0], *x.shape[1:]).to(x)[::2].copy_(x),
    "batch of a larger one": lambda x: torch.empty(x.shape[0], 5, *x.shape[2:]).to(x)[:, 1:3].copy_(x),
}
EXPANDED = {
    "the same input at each step": lambda x: x[:1].expand(x.shape),
    "the same input for the batch": lambda x: x[:, :1].expand(x.shape),
    "one value": lambda x: x[:1, :1, :1, :1, :1].expand(x.shape),
}


def contiguous_result(neuron, x, **arguments):
    return run(neuron, x.contiguous(), **arguments)


@every_leaky_neuron
@by_dtype((torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("steps", (1, 17))
@pytest.mark.parametrize("layout", [*DENSE, *OTHER, *EXPANDED])
def test_every_layout_gives_the_same_numbers(neuron, layout, steps, dtype):
    x = {**DENSE, **OTHER, **EXPANDED}[layout](make_x((steps, 2, 3, 5, 7), dtype))
    real = compute_dtype(dtype)
    arguments = {
        "state": make_state(neuron, x),
        "tau": torch.tensor([1.3, 2.0, 3.0], dtype=real),
        "v_threshold": torch.tensor([0.8, 1.0, 1.2], dtype=real),
    }
    actual, expected = run(neuron, x, **arguments), contiguous_result(neuron, x, **arguments)
    sums = ["grad tau", "grad v_threshold"]
    assert_same_bits(actual, expected, [name for name in expected if name not in sums])
    assert_close(actual, expected, REDUCTION[dtype], sums)


@every_leaky_neuron
@pytest.mark.parametrize("layout", ("contiguous", "channels last", "batch first", "time innermost"))
def test_layouts_over_many_blocks(neuron, layout):
    """2 * 3 * 41 * 43 neurons: pieces of memory that end inside blocks, without states or channels."""
    x = DENSE[layout](make_x((4, 2, 3, 41, 43)))
    assert_same_bits(run(neuron, x), contiguous_result(neuron, x))


@every_leaky_neuron
@pytest.mark.parametrize(
    "shape",
    ((1,), (5,), (5, 1), (1, 1), (17, 3), (4, 1, 1, 1), (4, 1, 5, 1), (3, 2, 1, 1, 9), (2, 1025), (3, 511)),
    ids=str,
)
def test_odd_shapes_against_the_reference(neuron, shape):
    x = make_x(shape, torch.float64)
    assert_close(run(neuron, x), run(neuron, x, backend="reference"), REDUCTION[torch.float64])


@every_leaky_neuron
@pytest.mark.parametrize("name, strides", (("time", (1, 7, 1)), ("batch", (3, 1, 1)), ("both", (999, 1, 77))))
def test_strides_of_dimensions_of_one_element_do_not_matter(neuron, name, strides):
    steps, batch = (1 if name in ("time", "both") else 4), (1 if name in ("batch", "both") else 3)
    size = 4 if name == "batch" else 3 if name == "time" else 1
    storage = make_x((64,))
    x = {
        "time": storage[:3].as_strided((1, 3, 1), (77, 1, 5)),
        "batch": storage[:4].as_strided((4, 1, 1), (1, 50, 3)),
        "both": storage[:1].as_strided((1, 1, 1), strides),
    }[name]
    assert x.shape == (steps, batch, 1) and x.numel() == size
    assert_same_bits(run(neuron, x), contiguous_result(neuron, x))


@every_leaky_neuron
@by_dtype((torch.float32, torch.bfloat16))
@pytest.mark.parametrize("layout", DENSE)
def test_outputs_of_dense_input_have_its_strides(neuron, dtype, layout):
    x = DENSE[layout](make_x((4, 2, 3, 5, 7), dtype))
    x.requires_grad_()
    spikes, state, v_seq = FUNCTIONS[neuron](x, return_state=True, return_v_seq=True)
    assert spikes.stride() == x.stride() and v_seq.stride() == x.stride()
    (grad,) = torch.autograd.grad(spikes, x, torch.ones_like(spikes))
    assert grad.stride() == x.stride()
    order = sorted(range(4), key=lambda d: x.select(0, 0).stride(d))
    for t in state:
        assert sorted(range(4), key=t.stride) == order, "states lie in x's order of dimensions"


def copies(function):
    """How often aten::copy_ runs, also inside compiled operators."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        result = function()
    return sum(e.name in ("aten::copy_", "aten::clone", "aten::contiguous") for e in profile.events()), result


@every_leaky_neuron
@pytest.mark.parametrize("layout", [*DENSE, *OTHER])
def test_dense_input_is_not_copied(neuron, layout):
    """Forward and backward; anything else than a dense layout is copied, which shows that this test can see it."""
    x = {**DENSE, **OTHER}[layout](make_x((4, 2, 3, 5, 7))).requires_grad_()
    forward, spikes = copies(lambda: FUNCTIONS[neuron](x))
    cotangent = torch.ones_like(spikes)
    backward, _ = copies(lambda: torch.autograd.grad(spikes, x, cotangent))
    if layout in DENSE:
        assert (forward, backward) == (0, 0)
    else:
        assert forward == 1


@every_leaky_neuron
@pytest.mark.parametrize("layout", DENSE)
def test_gradients_in_another_layout(neuron, layout):
    """The gradient that comes in may lie in any layout, expanded ones included (sum().backward())."""
    x = DENSE["channels last"](make_x((4, 2, 3, 5, 7)))
    base = {k: g.float() for k, g in make_cotangents(neuron, x).items()}
    expected = run(neuron, x, cotangents=base)
    moved = {**base, "spikes": DENSE[layout](base["spikes"]), "v_seq": DENSE[layout](base["v_seq"])}
    assert_same_bits(run(neuron, x, cotangents=moved), expected)
    ones = {"spikes": torch.ones(()).expand(x.shape), "v": torch.ones(()).expand(x.shape[1:])}
    assert_same_bits(
        run(neuron, x, cotangents=ones), run(neuron, x, cotangents={k: t.contiguous() for k, t in ones.items()})
    )


@every_backend
@every_leaky_neuron
@pytest.mark.parametrize("shape", ((0,), (0, 3), (0, 2, 3, 4), (4, 0), (4, 2, 0), (4, 0, 3, 2), (0, 0)), ids=str)
@pytest.mark.parametrize("with_state", (False, True), ids=("rest", "state"))
def test_empty_input(neuron, shape, with_state, backend):
    """T = 0 hands the state on, values and gradients; N = 0 gives empty tensors."""
    x = make_x(shape)
    state = make_state(neuron, x) if with_state else None
    cotangents = make_cotangents(neuron, x)
    result = run(neuron, x, state=state, cotangents=cotangents, backend=backend)
    assert result["spikes"].shape == result["v_seq"].shape == result["grad x"].shape == shape
    start = {"v": torch.zeros(shape[1:]), "adapt": torch.full(shape[1:], 1.0 if neuron == "llif" else 0.0)}
    if with_state:
        start = dict(zip(("v", "adapt"), state, strict=False))
    for name in set(start) & set(result):
        assert torch.equal(result[name], start[name])
        if with_state and shape[0] == 0:
            assert torch.equal(result[f"grad {name}"], cotangents[name])

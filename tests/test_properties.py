"""Random shapes, strides, dtypes and settings against the float64 reference."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels_common import NEURONS, OPTIONS, compute_dtype, make_cotangents, make_x, options_of, recorded_u, run
from tolerances import SPIKE_BAND, TOLERANCES

from stdano_kernels import SURROGATES


@st.composite
def tensors(draw):
    """x [T, B, C, ...] as some view of a larger storage: any order of dimensions, offset, steps, expansion."""
    shape = draw(st.lists(st.integers(1, 6), min_size=0, max_size=4))
    shape = [draw(st.sampled_from((1, 2, 3, 4, 9, 16, 17, 33))), *shape]
    dtype = draw(st.sampled_from((torch.float32, torch.float64, torch.bfloat16, torch.float16)))
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from((1, 1, 1, 2))) for _ in shape]
    expanded = draw(st.one_of(st.none(), st.none(), st.integers(0, len(shape) - 1)))
    offset = draw(st.integers(0, 3))
    seed = draw(st.integers(0, 2**16))

    sizes = [1 if d == expanded else n * s for d, (n, s) in enumerate(zip(shape, steps, strict=True))]
    storage = make_x((offset + torch.Size(sizes).numel(),), dtype, seed)
    x = storage[offset:].view([sizes[d] for d in order]).permute([order.index(d) for d in range(len(order))])
    slices = tuple(slice(None, None, None if d == expanded else s) for d, s in enumerate(steps))
    return x[slices].expand(shape)


# Each combination of what is settled before a kernel is compiled costs a compilation.
COMPILED = [
    dict(o, surrogate=surrogate) for o, surrogate in zip(OPTIONS, itertools.cycle(SURROGATES), strict=False)
] + [dict(surrogate="triangle")]


@st.composite
def settings(draw):
    compiled = draw(st.sampled_from(COMPILED))
    resets = {} if compiled.get("v_reset") is None else {"v_reset": draw(st.floats(-0.5, 0.25))}
    return dict(
        compiled,
        tau=draw(st.floats(1.1, 20)),
        v_threshold=draw(st.floats(0.3, 2)),
        alpha=draw(st.floats(0.25, 4)),
        **resets,
    )


def distances(neuron, x, options):
    """|u| of the float64 reference at each step, and how near a jump of the surrogate is."""
    with recorded_u() as steps:
        run(neuron, x, backend="reference", gradients=False, **options)
    u = torch.stack(steps).abs().unflatten(0, (x.shape[0], -1)).amin(1)
    jump = (u - 0.5 / options["alpha"]).abs() if options["surrogate"] == "rectangle" else torch.full_like(u, 1.0)
    return u, jump


@given(neuron=st.sampled_from(NEURONS), x=tensors(), options=settings())
def test_kernels_against_the_float64_reference(neuron, x, options):
    """Spikes up to the first doubtful one; potentials and gradients of neurons without any."""
    options = options_of(neuron, options)
    wide = x.double()
    u, jump = distances(neuron, wide, options)
    # tau up to 20 lets rounding errors live ten times longer than the table's band assumes
    band = 10 * SPIKE_BAND[x.dtype]
    doubtful = u < band
    sure_so_far = ~doubtful.cummax(dim=0).values
    sure = ~(doubtful | (jump < band)).any(dim=0)

    cotangents = make_cotangents(neuron, x)
    actual = run(neuron, x, cotangents=cotangents, **options)
    expected = run(neuron, wide, backend="reference", cotangents=cotangents, **options)
    assert torch.equal(actual["spikes"].double()[sure_so_far], expected["spikes"][sure_so_far])
    for name, value in expected.items():
        half = actual[name].dtype in (torch.bfloat16, torch.float16)
        tolerance = TOLERANCES[x.dtype if half else compute_dtype(x.dtype)]
        scale = max(1.0, value.abs().max().item())  # alpha^2 and tau reach into the gradients' size
        torch.testing.assert_close(
            actual[name].double() * sure,
            value * sure,
            rtol=tolerance.rtol,
            atol=tolerance.atol * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )

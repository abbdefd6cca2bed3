"""Every wrong argument: an error that names it, its value and what is allowed, before anything is computed; NaN and
infinite input, which are values like others."""

import re

import pytest
import torch
from kernels_common import (
    DECLARED,
    FUNCTIONS,
    STATES,
    every_backend,
    every_leaky_neuron,
    every_neuron,
    every_neuron_of_the_paper,
    every_surrogate,
    make_cotangents,
    make_x,
    run,
)

import stdano_kernels
from stdano_kernels import compiler
from stdano_kernels.define.shipped import variants
from stdano_kernels.spec import spec_of, traced

VARIANT = {name: variants(name)[0] for name in DECLARED}

INF, NAN = float("inf"), float("nan")
X = torch.zeros(3, 2, 4, 5)
STATE = torch.zeros(2, 4, 5)


def refused(neuron, error, pattern, x=X, **arguments):
    """The call raises; and no operator ran before it did."""
    ran = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "stdano" in str(function) and "ward" in str(function):
                ran.append(str(function))
            return function(*args, **(kwargs or {}))

    with pytest.raises(error, match=pattern), Record():
        FUNCTIONS[neuron](x, **arguments)
    assert ran == []


@every_neuron
@pytest.mark.parametrize("backend", ("auto", "cpu", "reference"))
@pytest.mark.parametrize(
    "x, error, pattern",
    (
        ([1.0], TypeError, "x must be a torch.Tensor, got list"),
        (None, TypeError, "x must be a torch.Tensor, got NoneType"),
        (torch.zeros(3, 4, dtype=torch.int64), TypeError, "x must be float32, .*bfloat16, got torch.int64"),
        (torch.zeros(3, 4, dtype=torch.bool), TypeError, "x must be float32, .*bfloat16, got torch.bool"),
        (torch.zeros(3, 4, dtype=torch.complex64), TypeError, "x must be float32, .*bfloat16, got torch.complex64"),
        (torch.zeros(3, 4).to_sparse(), TypeError, "x must be a dense .*got layout torch.sparse_coo"),
        (torch.zeros(()), ValueError, r"x must have a time dimension.* got a tensor of shape \(\)"),
    ),
    ids=("list", "None", "int64", "bool", "complex", "sparse", "0-d"),
)
def test_x(neuron, backend, x, error, pattern):
    refused(neuron, error, pattern, x, backend=backend)


NUMBERS = {
    "inf": (INF, ValueError, "got inf"),
    "-inf": (-INF, ValueError, "got -inf"),
    "nan": (NAN, ValueError, "got nan"),
    "None": (None, TypeError, "got None"),
    "str": ("2", TypeError, "got '2'"),
    "bool": (True, TypeError, "got True"),
    "list": ([2.0], TypeError, r"got \[2.0\]"),
    "complex": (2j, TypeError, "got 2j"),
}


@every_neuron
@pytest.mark.parametrize("value, error, got", NUMBERS.values(), ids=NUMBERS)
def test_numbers(neuron, value, error, got):
    spec = spec_of(DECLARED[neuron])
    for name in (*spec.constants, "alpha"):
        is_time = name in spec.time_constants and spec.neuron.constants[name].above is not None
        allowed = (name == "v_reset" and value is None) or (is_time and value == INF)
        if allowed:  # the soft reset; no leak
            FUNCTIONS[neuron](X, **{name: value})
        else:
            refused(neuron, error, f"{name} must be a .*number.*{got}", **{name: value})


@every_neuron
def test_what_a_neuron_does_not_have(neuron):
    for name in ("gamma", "beta", "kappa", "tau_syn"):
        if name not in spec_of(DECLARED[neuron]).defaults:
            refused(
                neuron, TypeError, f"unexpected keyword argument '{name}'; allowed are .*v_threshold", **{name: 0.5}
            )


@every_leaky_neuron
@pytest.mark.parametrize("decay, lowest", (("exp", 0), ("linear", 1)))
@pytest.mark.parametrize("below", (0.0, -0.5, -1e300), ids=("at", "below", "far below"))
def test_tau_too_small(neuron, decay, lowest, below):
    tau = lowest + below
    refused(
        neuron,
        ValueError,
        f"tau must be a finite number above {lowest}, got {re.escape(repr(tau))}",
        tau=tau,
        decay=decay,
    )
    for tensor in (torch.tensor(tau), torch.tensor([2.0, 3.0, tau, 2.0])):
        refused(
            neuron,
            ValueError,
            f"tau must be finite above {lowest} everywhere, got -?(inf|[0-9.]+)",
            tau=tensor,
            decay=decay,
        )


@pytest.mark.parametrize("decay, lowest", (("exp", 0), ("linear", 1)))
def test_tau_min_too_small(decay, lowest):
    refused(
        "slif", ValueError, f"tau_min must be a finite number above {lowest}, got {lowest}", tau_min=lowest, decay=decay
    )


@every_neuron
@pytest.mark.parametrize("alpha", (0, -1.0))
def test_alpha_too_small(neuron, alpha):
    refused(neuron, ValueError, f"alpha must be a finite number above 0, got {alpha}", alpha=alpha)


@every_leaky_neuron
@pytest.mark.parametrize("value", (NAN, INF))
@pytest.mark.parametrize("name", ("tau", "v_threshold"))
def test_constants_that_are_not_finite(neuron, name, value):
    for tensor in (torch.tensor(value), torch.tensor([1.5, 2.0, value, 2.0])):
        refused(neuron, ValueError, f"{name} must be finite.* everywhere, got {value}", **{name: tensor})


@every_leaky_neuron
@pytest.mark.parametrize("name", ("tau", "v_threshold"))
def test_constants_of_the_wrong_kind(neuron, name):
    for shape in ((3,), (5,), (1, 4), (3, 5), (3, 2, 4, 5)):
        pattern = (
            re.escape(f"{name} must be a number or a tensor of shape [], [4]") + ".*" + re.escape(str(list(shape)))
        )
        refused(neuron, ValueError, pattern, **{name: torch.full(shape, 2.0)})
    for shape in ((4, 1), (4, 5), (2, 1, 1), (2, 4, 5)):
        FUNCTIONS[neuron](X, **{name: torch.full(shape, 2.0)})
    pattern = rf"{name} must be .* of shape \[\] or one that .*\[4\], got shape \[3\] with x of shape \[3, 4\]"
    refused(neuron, ValueError, pattern, torch.zeros(3, 4), **{name: torch.full((3,), 2.0)})
    refused(neuron, TypeError, f"{name} must be .*got a tensor of torch.int64", **{name: torch.tensor(2)})
    meta = torch.full((4,), 2.0, device="meta")
    refused(neuron, ValueError, f"{name} must be on the device of x, cpu, got a tensor on meta", **{name: meta})


@every_neuron
@pytest.mark.parametrize(
    "name, allowed",
    (
        ("surrogate", "'triangle', 'rectangle', 'sigmoid', 'atan', 'piecewise_exp', 'fast_sigmoid'"),
        ("decay", "'exp', 'linear'"),
        ("spike", "'hard', 'soft'"),
        ("backend", "'auto', 'reference', 'cpu', 'triton', 'cuda'"),
    ),
)
@pytest.mark.parametrize("value", ("heaviside", "", None, 1, "Triangle"))
def test_choices(neuron, name, allowed, value):
    if name not in (*spec_of(DECLARED[neuron]).defaults, "backend"):
        pytest.skip(f"{neuron} has no {name}")
    refused(neuron, ValueError, f"{name} must be one of {allowed}, got {value!r}", **{name: value})


@every_neuron
@pytest.mark.parametrize("name", ("decay_input", "detach_reset", "detach_adapt", "return_state", "return_v_seq"))
@pytest.mark.parametrize("value", (0, 1, None, "yes"))
def test_flags(neuron, name, value):
    if name not in (*spec_of(DECLARED[neuron]).defaults, "return_state", "return_v_seq"):
        pytest.skip(f"{neuron} has no {name}")
    refused(neuron, TypeError, f"{name} must be True or False, got {value!r}", **{name: value})


@every_backend
@every_neuron
def test_states(neuron, backend):
    fields = STATES[neuron]
    for position, name in enumerate(fields):

        def state(bad, position=position):
            return tuple(bad if i == position else STATE for i in range(len(fields)))

        for shape in ((2, 4), (1, 4, 5), (3, 2, 4, 5), (5, 4, 2), ()):
            pattern = rf"state.{name} must have the shape of x less its time dimension, \[2, 4, 5\], got "
            refused(
                neuron,
                ValueError,
                pattern + re.escape(str(list(shape))),
                state=state(torch.zeros(shape)),
                backend=backend,
            )
        refused(
            neuron, TypeError, f"state.{name} must be .*got torch.int64", state=state(STATE.long()), backend=backend
        )
        refused(neuron, TypeError, f"state.{name} must be .*got float", state=state(0.0), backend=backend)
        refused(neuron, TypeError, f"state.{name} must be .*got NoneType", state=state(None), backend=backend)
        meta = STATE.to("meta")
        pattern = f"state.{name} must be on the device of x, cpu, got a tensor on meta"
        refused(neuron, ValueError, pattern, state=state(meta), backend=backend)
    names = ", ".join(fields)
    pattern = rf"state must be None or {DECLARED[neuron].__name__}State\({names}\)"
    for bad in (STATE, [STATE] * len(fields), (STATE,) * (len(fields) + 1), (), 0.0):
        refused(neuron, TypeError, pattern, state=bad, backend=backend)


@every_neuron
def test_devices_and_backends(neuron):
    meta = X.to("meta")
    refused(
        neuron, ValueError, 'backend="cpu" needs x on a cpu device, got meta; use backend="auto"', meta, backend="cpu"
    )
    assert FUNCTIONS[neuron](meta).shape == X.shape, "shapes can be computed on meta"
    for missing in ("triton", "cuda"):
        if not stdano_kernels.backends()[missing].available:
            reason = re.escape(stdano_kernels.backends()[missing].reason)
            refused(neuron, RuntimeError, f'backend="{missing}" is not available here: {reason}', backend=missing)
        else:
            refused(neuron, (ValueError, RuntimeError), missing, backend=missing)


@every_neuron
def test_operators_check_again_what_would_read_foreign_memory(neuron):
    """torch.ops can be called by anyone: sizes and dtypes are looked at in C++ too."""
    operator, kernel = torch.ops.stdano.scan_forward, compiler.name_of(DECLARED[neuron], VARIANT[neuron])
    FUNCTIONS[neuron](X)
    count = len(traced(DECLARED[neuron], VARIANT[neuron]).constants)
    values, state = [1.5] * count, [STATE] * len(STATES[neuron])
    settings = ([], values, 1.0, kernel, False, False, [])
    assert operator(X, [], [], None, *settings)[0].shape == X.shape
    one = ([0], values, 1.0, kernel, False, False, [])
    for x, states, constants, affine, others in (
        (X.long(), [], [], None, settings),
        (X, [*state[1:], STATE[:1].clone()], [], None, settings),
        (X, [*state, STATE], [], None, settings),
        (X, [*state[1:], STATE.double()], [], None, settings),
        (X, [], [torch.ones(3)], None, one),
        (X, [], [torch.ones(8)[::2]], None, one),
        (X, [], [torch.ones(4).double()], None, one),
        (X, [], [torch.ones(4)], None, settings),
        (X, [], [torch.ones(4)], None, ([count], *one[1:])),
        (X, [], [], torch.ones(3, 3), settings),
        (X, [], [], torch.ones(3, 4).double(), settings),
        (X, [], [], torch.ones(4, 3).mT, settings),
        (X, [], [], None, ([], values[1:], *settings[2:])),
        (X, [], [], None, (*settings[:3], "LIF-unknown", *settings[4:])),
        (X, [], [], None, (*settings[:-1], [len(state)])),
    ):
        with pytest.raises(RuntimeError, match="stdano: "):
            operator(x, states, constants, affine, *others)


# --- NaN and infinity are input like any other ---


@every_backend
@every_neuron
@pytest.mark.parametrize("v_reset", (None, 0.0), ids=("soft", "hard"))
def test_nan_stays_in_its_neuron_and_does_not_spike(neuron, v_reset, backend):
    x = make_x((20, 2, 3, 7), torch.float32)
    clean = run(neuron, x, backend=backend, v_reset=v_reset)
    x[5, 1, 2, 3] = NAN
    dirty = run(neuron, x, backend=backend, v_reset=v_reset)
    assert (dirty["spikes"][5:, 1, 2, 3] == 0).all() and dirty["v_seq"][5:, 1, 2, 3].isnan().all()
    assert dirty["v"][1, 2, 3].isnan()
    assert torch.equal(dirty["spikes"][:5], clean["spikes"][:5])
    others = torch.ones(2, 3, 7, dtype=torch.bool)
    others[1, 2, 3] = False
    for name in clean:
        a, b = (r[name][..., others] for r in (dirty, clean))
        assert torch.equal(a, b), name


@every_backend
@every_neuron_of_the_paper
@every_surrogate
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
def test_an_infinite_spike_and_the_hard_reset_leave_nothing_infinite(neuron, backend, surrogate, dtype):
    """+inf fires and is reset; what follows, and every gradient, is finite: no 0*inf anywhere."""
    x = make_x((6, 4), dtype)
    x[2, 1] = INF
    result = run(neuron, x, backend=backend, v_reset=0.0, surrogate=surrogate)
    assert result["spikes"][2, 1] >= 1
    for name in ("v", "v_seq", "grad x"):
        assert result[name].isfinite().all(), name
    x[2, 1] = 1e4
    large = run(neuron, x, backend=backend, v_reset=0.0, surrogate=surrogate)
    assert torch.equal(result["spikes"], large["spikes"])
    if neuron != "slif":  # where +inf lets tau adapt a little more than 1e4 does
        assert torch.equal(result["v_seq"], large["v_seq"])


@every_backend
@every_neuron
@pytest.mark.parametrize("v_reset", (None, 0.0), ids=("soft", "hard"))
def test_minus_infinity_silences_a_neuron(neuron, v_reset, backend):
    x = make_x((6, 4))
    x[2, 1] = -INF
    result = run(neuron, x, backend=backend, v_reset=v_reset)
    assert (result["spikes"][2:, 1] == 0).all() and (result["v_seq"][2:, 1] == -INF).all()
    assert not result["grad x"].isnan().any()


@every_backend
@every_neuron_of_the_paper
@every_surrogate
def test_infinity_with_the_soft_reset_stays_infinite(neuron, surrogate, backend):
    """v' = inf - theta: the neuron fires for ever; nothing turns into NaN, with a loss on the spikes."""
    x = make_x((6, 4))
    x[2, 1] = INF
    spikes_only = {"spikes": make_cotangents(neuron, x)["spikes"]}
    result = run(neuron, x, backend=backend, v_reset=None, surrogate=surrogate, cotangents=spikes_only)
    assert (result["spikes"][2:, 1] >= 1).all() and (result["v_seq"][2:, 1] == INF).all()
    assert not result["grad x"].isnan().any()


@every_backend
@every_neuron
def test_infinity_with_the_soft_reset_and_a_loss_on_the_potential(neuron, backend):
    x = make_x((6, 4))
    x[2, 1] = INF
    result = run(neuron, x, backend=backend, v_reset=None)
    assert not result["grad x"].isnan().any()


@every_backend
@every_neuron
def test_infinity_and_a_decay_that_rounds_to_zero(neuron, backend):
    """tau = 1 + 1e-9 with linear decay: 1 - 1/tau is 0 in float32, and 0*inf must not arise."""
    x = torch.tensor([[INF], [0.7], [0.7]])
    _, v = FUNCTIONS[neuron](x, tau=1 + 1e-9, decay="linear", v_reset=None, return_v_seq=True, backend=backend)
    assert not v.isnan().any()

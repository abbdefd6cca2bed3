"""super_neuron, bn_neuron and affine: every wrong argument is an error that names it, what was given and what is
allowed, before anything is computed."""

import re

import pytest
import torch
from channels_common import start_statistics
from kernels_common import FUNCTIONS, NEURONS, every_neuron
from torch.utils._python_dispatch import TorchDispatchMode

from stdano_kernels import bn_neuron, super_neuron

INF, NAN = float("inf"), float("nan")
X = torch.zeros(4, 2, 3, 5)
META = {"device": "meta"}
both = pytest.mark.parametrize("kind", ("super", "bn"))


def refused(kind, error, pattern, x=X, weights=None, mean=None, var=None, **arguments):
    """The call raises, no operator has run, and statistics are as they were."""
    ran = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "stdano" in str(function):
                ran.append(str(function))
            return function(*args, **(kwargs or {}))

    rows = (3, 3) if kind == "super" else (3,)
    start_mean, start_var = start_statistics(rows, torch.float32)
    mean, var = start_mean if mean is None else mean, start_var if var is None else var
    with pytest.raises(error, match=pattern), Record():
        if kind == "super":
            super_neuron(x, torch.ones(3) if weights is None else weights, mean, var, **arguments)
        else:
            bn_neuron(arguments.pop("neuron", "lif"), x, mean, var, **arguments)
    assert ran == []
    for changed, start in zip((start_mean, start_var), start_statistics(rows, torch.float32), strict=True):
        assert torch.equal(changed, start)


@both
@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize(
    "x, error, pattern",
    (
        ([1.0], TypeError, "x must be a torch.Tensor, got list"),
        (torch.zeros(4, 2, 3, dtype=torch.int64), TypeError, "x must be float32, .*bfloat16, got torch.int64"),
        (torch.zeros(4, 2, 3).to_sparse(), TypeError, "x must be a dense .*got layout torch.sparse_coo"),
        (torch.zeros(()), ValueError, r"x must have a time dimension.* got a tensor of shape \(\)"),
        (torch.zeros(4, 3), ValueError, r"x must have channels, \[T, B, C, ...\]; got a tensor of shape \[4, 3\]"),
    ),
    ids=("list", "int64", "sparse", "0-d", "2-d"),
)
def test_x(kind, x, error, pattern, training):
    refused(kind, error, pattern, x, training=training)


@both
@pytest.mark.parametrize("shape", ((1, 1, 3), (1, 1, 3, 1, 1)), ids=str)
def test_too_few_values_for_statistics(kind, shape):
    pattern = re.escape(
        f"x must have more than one value for each channel in training, got a tensor of shape {[*shape]}: leave out a "
        "last batch of one (drop_last=True of a DataLoader), or call eval() first"
    )
    refused(kind, ValueError, pattern, torch.zeros(shape), training=True)


def test_neurons():
    for value in ((), [], "lif", None, 7, {"lif"}, iter(("lif",)), ("lif",) * 9):
        pattern = f"neurons must be a sequence of one to 8 neurons, got {re.escape(repr(value))}"
        refused("super", ValueError, pattern, neurons=value)
    for value in ("plif", "LIF"):
        pattern = f"neurons must be some of {', '.join(NEURONS)}, or declared neurons, got '{value}'"
        refused("super", ValueError, pattern, neurons=("lif", value))
    refused("super", ValueError, "neurons must be different ones, got", neurons=("lif", "lif"))
    refused("super", ValueError, "neurons must have spikes of 0 or 1", neurons=("integer_lif",))
    refused("super", TypeError, "neurons must be names or declared neurons, got", neurons=[["lif"]])
    for value in ("plif", "LIF", "", None, 1, ("lif",)):
        pattern = re.escape(f"neuron must be one of {', '.join(map(repr, NEURONS))}, got {value!r}")
        refused("bn", ValueError, pattern, neuron=value)
    for value in (int, torch.nn.ReLU):
        refused(
            "bn", TypeError, "neuron must be a subclass of stdano_kernels.Neuron with a step, got <class", neuron=value
        )


def test_weights():
    shape = re.escape("weights must be a floating-point tensor of shape [3], got ")
    for value, got in (
        (torch.ones(2), r"torch.float32 \[2\]"),
        (torch.ones(3, 1), r"torch.float32 \[3, 1\]"),
        (torch.ones(()), r"torch.float32 \[\]"),
        (torch.ones(3, dtype=torch.int64), r"torch.int64 \[3\]"),
        ([0.2, 0.3, 0.5], "list"),
    ):
        refused("super", ValueError, shape + got, weights=value)
    refused("super", ValueError, r"weights must .*shape \[1\], got torch.float32 \[3\]", neurons=("llif",), mean=X)
    refused(
        "super",
        ValueError,
        "weights must be on the device of x, cpu, got a tensor on meta",
        weights=torch.ones(3, **META),
    )


@both
@pytest.mark.parametrize("name", ("running_mean", "running_var"))
@pytest.mark.parametrize("training", (True, False))
def test_running_statistics(kind, name, training):
    rows, key = ((3, 3) if kind == "super" else (3,)), name.removeprefix("running_")
    shape = re.escape(f"{name} must be a floating-point tensor of shape {[*rows]}, got ")
    for value, got in (
        (torch.ones(2), r"torch.float32 \[2\]"),
        (torch.ones(*rows, 1), "torch.float32"),
        (torch.ones(rows, dtype=torch.int32), "torch.int32"),
        (0.5, "float"),
    ):
        refused(kind, ValueError, shape + got, **{key: value}, training=training)
    refused(kind, ValueError, f"{name} must be on the device of x, cpu, got a tensor on meta",
            **{key: torch.ones(rows, **META)}, training=training)  # fmt: skip


@both
def test_missing_statistics(kind):
    first = (X, torch.ones(3)) if kind == "super" else ("lif", X)
    function = super_neuron if kind == "super" else bn_neuron
    given = torch.ones((3, 3) if kind == "super" else (3,))
    for pair in ((None, given), (given, None)):
        with pytest.raises(ValueError, match="running_mean and running_var must both be given or both be None"):
            function(*first, *pair, training=True)
    with pytest.raises(ValueError, match="running_mean and running_var must be given where training is False"):
        function(*first, None, None)


@pytest.mark.parametrize("name", ("weight", "bias"))
def test_weight_and_bias(name):
    shape = re.escape(f"{name} must be None or a floating-point tensor of shape [3], got ")
    for value, got in (
        (torch.ones(2), r"torch.float32 \[2\]"),
        (torch.ones(1, 3), r"torch.float32 \[1, 3\]"),
        (torch.ones(3, dtype=torch.int64), r"torch.int64 \[3\]"),
        (1.0, "float"),
    ):
        refused("bn", ValueError, shape + got, **{name: value})
    refused(
        "bn",
        ValueError,
        f"{name} must be on the device of x, cpu, got a tensor on meta",
        **{name: torch.ones(3, **META)},
    )


@both
@pytest.mark.parametrize("name, lowest", (("momentum", -0.1), ("eps", 0.0)))
def test_momentum_and_eps(kind, name, lowest):
    allowed = "from 0 to 1" if name == "momentum" else "above 0"
    refused(kind, ValueError, f"{name} must be a .*number {allowed}, got {lowest}", **{name: lowest})
    for value, error in (
        (INF, ValueError),
        (NAN, ValueError),
        (None, TypeError),
        (True, TypeError),
        ("0.1", TypeError),
    ):
        refused(kind, error, f"{name} must be a .*number.*got {value!r}", **{name: value})
    if name == "momentum":
        refused(kind, ValueError, "momentum must be a number from 0 to 1, got 1.5", momentum=1.5)
        for value in (torch.ones(1), torch.tensor(1)):
            refused(
                kind,
                ValueError,
                r"momentum must be a number or a floating-point tensor of shape \[\], got",
                momentum=value,
            )
        refused(kind, ValueError, "momentum must be on the device of x", momentum=torch.ones((), **META))


@both
@pytest.mark.parametrize("name", ("training", "decay_input", "detach_reset"))
def test_flags(kind, name):
    for value in (1, None, "yes", torch.tensor(True)):
        refused(kind, TypeError, f"{name} must be True or False, got", **{name: value})


@both
def test_choices(kind):
    for name, allowed in (
        ("surrogate", "'triangle', 'rectangle', .*"),
        ("decay", "'exp', 'linear'"),
        ("spike", "'hard', 'soft'"),
        ("backend", "'auto', 'reference', 'cpu', 'triton', 'cuda'"),
    ):
        refused(kind, ValueError, f"{name} must be one of {allowed}, got 'other'", **{name: "other"})
    function, first = (super_neuron, (X, torch.ones(3))) if kind == "super" else (bn_neuron, ("lif", X))
    rows = (3, 3) if kind == "super" else (3,)
    with pytest.raises((ValueError, RuntimeError), match='backend="cuda" (needs|is not available)'):
        function(*first, *start_statistics(rows, torch.float32), backend="cuda")


NUMBERS = ("tau", "v_threshold", "v_reset", "slif_v_reset", "gamma", "beta", "tau_min", "alpha")


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_super_neuron(name):
    for value, error in ((INF, ValueError), (NAN, ValueError), ("2", TypeError), (True, TypeError), (None, TypeError)):
        if not (name.endswith("v_reset") and value is None) and not (
            name.startswith("tau") and value == INF
        ):  # no leak
            refused("super", error, f"^{name} must be a .*number.*got {value!r}", **{name: value})
    for lowest in (0, 1) if name in ("tau", "tau_min") else ():
        pattern = f"^{name} must be a finite number above {lowest}, got {lowest}"
        refused("super", ValueError, pattern, **{name: lowest}, decay=("exp", "linear")[lowest])


@pytest.mark.parametrize("name", ("tau", "v_threshold", "v_reset", "gamma", "beta", "tau_min"))
def test_constants_of_the_super_neuron_are_numbers(name):
    refused("super", TypeError, rf"{name} must be a number in a super neuron, got a tensor of shape \[3\]",
            **{name: torch.full((3,), 2.0)})  # fmt: skip


@both
@pytest.mark.parametrize("training", (True, False))
def test_process_group(kind, training):
    pattern = "process_group must be None or a torch.distributed.ProcessGroup, got str"
    refused(kind, TypeError, pattern, process_group="gloo", training=training)


@every_neuron
@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize(
    "arguments, error, pattern",
    (
        (dict(tau=-1.0), ValueError, "tau must be a finite number above 0, got -1.0"),
        (dict(v_threshold=torch.ones(2)), ValueError, "v_threshold must be a number or a tensor of shape"),
        (dict(state=(torch.zeros(2, 3),) * 2), (TypeError, ValueError), "state"),
        (dict(return_state=1), TypeError, "return_state must be True or False, got 1"),
        (dict(affine=torch.zeros(3, 3)), ValueError, "affine must be left out"),
        (dict(unknown=1), TypeError, "unexpected keyword argument 'unknown'"),
    ),
    ids=str,
)
def test_settings_of_the_neuron_behind_batch_norm(neuron, arguments, error, pattern, training):
    """Statistics stay as they were; the sums of x may have been taken by then."""
    if neuron == "if_" and "tau" in arguments:
        error, pattern = TypeError, "unexpected keyword argument 'tau'; allowed are v_threshold, "
    mean, var = start_statistics((3,), torch.float32)
    with pytest.raises(error, match=pattern):
        bn_neuron(neuron, X, mean, var, training=training, **arguments)
    assert all(torch.equal(a, b) for a, b in zip((mean, var), start_statistics((3,), torch.float32), strict=True))


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_affine(neuron, backend):
    def call(affine, x=X):
        FUNCTIONS[neuron](x, affine=affine, backend=backend)

    for shape in ((3,), (2, 3), (3, 2), (3, 3, 1), (3, 4)):
        pattern = re.escape(f"affine must have the shape [3, 3] (dimension 2 of x), got {[*shape]}")
        with pytest.raises(ValueError, match=pattern):
            call(torch.ones(shape))
    for value, got in ((torch.ones(3, 3, dtype=torch.int64), "torch.int64"), ([1.0], "list"), (1.0, "float")):
        with pytest.raises(
            TypeError, match=rf"affine must be None or a floating-point tensor of shape \[3, C\], got {got}"
        ):
            call(value)
    with pytest.raises(ValueError, match="affine must be on the device of x, cpu, got a tensor on meta"):
        call(torch.ones(3, 3, **META))
    with pytest.raises(ValueError, match=r"x must have channels, \[T, B, C, ...\]; got a tensor of shape \[4, 3\]"):
        call(torch.ones(3, 3), torch.zeros(4, 3))

"""Helpers of the kernel tests: inputs, one call with all its outputs and gradients, comparisons."""

import itertools
import re
from contextlib import contextmanager

import pytest
import torch
from tolerances import TOLERANCES

from stdano_kernels import SURROGATES, functional, reference
from stdano_kernels.neurons import NEURONS as DECLARED
from stdano_kernels.spec import spec_of

# Every neuron that comes with the library, by the table that everything else reads.
NEURONS = tuple(DECLARED)
PAPER = ("lif", "llif", "slif")
STATES = {name: tuple(neuron.states) for name, neuron in DECLARED.items()}


def _function(neuron):
    """A neuron's function that ignores what a neuron without a leak has no use for."""

    def call(x, **settings):
        if neuron == "if_":
            settings = {k: v for k, v in settings.items() if k not in ("tau", "decay", "decay_input")}
        return functional.FUNCTIONS[neuron](x, **settings)

    return call


FUNCTIONS = {neuron: _function(neuron) for neuron in NEURONS}
BACKENDS = ("reference", "cpu")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALF = (torch.bfloat16, torch.float16)
# T around the distance K = 16 of two checkpoints: none, exactly one chunk, one and two checkpoints.
STEPS = (1, 5, 16, 17, 33)


def supported_levels():
    """The CPU kernels' builds that this processor can run, by the library's own word; the generic one first."""
    try:
        torch.ops.stdano.cpu_capability("none")
    except RuntimeError as error:
        return re.search("must be one of (.*) on this processor", str(error))[1].split(", ")
    except AttributeError:  # no compiled kernels
        return []


LEVELS = supported_levels()
several_levels = pytest.mark.skipif(len(LEVELS) < 2, reason=f"builds of the CPU kernels for this processor: {LEVELS}")
every_neuron = pytest.mark.parametrize("neuron", NEURONS)
LEAKY = tuple(neuron for neuron in NEURONS if "tau" in spec_of(DECLARED[neuron]).defaults)
every_leaky_neuron = pytest.mark.parametrize("neuron", LEAKY)
every_neuron_of_the_paper = pytest.mark.parametrize("neuron", PAPER)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)


def short(value):
    """A parameter's name in a test's id."""
    if isinstance(value, dict):
        return "-".join(f"{k}={short(v)}" for k, v in value.items()) or "defaults"
    return getattr(value, "__name__", str(value)).removeprefix("torch.")


def by_dtype(dtypes=DTYPES):
    return pytest.mark.parametrize("dtype", dtypes, ids=short)


def product(**choices):
    """Every combination of settings, as dictionaries."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


# Every setting that changes the equations, and every pair of them (an orthogonal array).
OPTIONS = [
    {
        "v_reset": (None, -0.1)[a],
        "decay": ("exp", "linear")[b],
        "decay_input": (False, True)[c],
        "detach_reset": (False, True)[a ^ b],
        "detach_adapt": (False, True)[a ^ b ^ c],
    }
    for a, b, c in itertools.product((0, 1), repeat=3)
]


def options_of(neuron, options):
    """Settings without those that a neuron does not have."""
    return {k: v for k, v in options.items() if k in spec_of(DECLARED[neuron]).defaults}


def compute_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def make_x(shape, dtype=torch.float32, seed=0):
    """Input with both signs, at which a neuron fires in about every third step."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.9 + 0.3).to(dtype)


# Every element of a block of memory once, in several orders of dimensions.
DENSE_LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.movedim(2, -1).contiguous().movedim(-1, 2),
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels outermost": lambda x: x.movedim(2, 0).contiguous().movedim(0, 2),
    "time innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


def make_state(neuron, x, seed=1):
    generator = torch.Generator().manual_seed(seed)
    dtype = compute_dtype(x.dtype)

    def uniform(low, high):
        return (torch.rand(x.shape[1:], generator=generator) * (high - low) + low).to(dtype)

    ranges = {"v": (-0.5, 0.8), "theta": (0.8, 1.3)}
    return tuple(uniform(*ranges.get(name, (0.0, 0.7))) for name in STATES[neuron])


def constant_tensors(kind, x):
    """Constants of shape [] or [C]: both per channel, one of the two, neither."""
    dtype, channels = compute_dtype(x.dtype), x.shape[2]
    spread = torch.linspace(0, 1, channels, dtype=dtype)
    tau, threshold = torch.tensor(1.8, dtype=dtype), torch.tensor(0.9, dtype=dtype)
    if "tau" in kind:
        tau = 1.3 + 2 * spread
    if "v_threshold" in kind:
        threshold = 0.7 + 0.5 * spread
    return {"tau": tau, "v_threshold": threshold}


def make_cotangents(neuron, x, seed=2):
    """Gradients of every output, multiples of 1/32 below 2: the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    state = tuple(x.shape[1:])

    def draw(shape):
        return torch.randint(-64, 65, shape, generator=generator) / 32

    out = {"spikes": draw(tuple(x.shape)), "v_seq": draw(tuple(x.shape))}
    return out | {name: draw(state) for name in STATES[neuron]}


@contextmanager
def one_thread():
    """The reference's many small operations: spread over threads they cost far more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_affine(x, seed=5):
    """Centre, scale and shift for each channel of x, under which neurons still fire now and then."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(3, x.shape[2], generator=generator, dtype=compute_dtype(x.dtype))
    return spread + torch.tensor([[-0.3], [0.6], [-0.2]], dtype=spread.dtype)


def run(
    neuron,
    x,
    *,
    backend="cpu",
    state=None,
    cotangents=None,
    gradients=True,
    tau=2.0,
    v_threshold=1.0,
    affine=None,
    **settings,
):
    """One call with everything asked for: outputs by name, and "grad NAME" of every tensor that went in.

    A gradient that autograd leaves out counts as zero.
    """

    def leaf(t):
        return t.detach().requires_grad_(gradients) if isinstance(t, torch.Tensor) else t

    x, affine = leaf(x), leaf(affine)
    constants = {k: leaf(c) for k, c in options_of(neuron, {"tau": tau, "v_threshold": v_threshold}).items()}
    settings = {k: leaf(t) for k, t in options_of(neuron, settings).items()}
    constants |= {k: t for k, t in settings.items() if isinstance(t, torch.Tensor)}
    state = None if state is None else tuple(leaf(t) for t in state)
    spikes, final, v_seq = FUNCTIONS[neuron](
        x,
        affine=affine,
        state=state,
        return_state=True,
        return_v_seq=True,
        backend=backend,
        **{**settings, **constants},
    )
    out = {"spikes": spikes, **final._asdict(), "v_seq": v_seq}
    leaves = {"x": x, **dict(zip(STATES[neuron], state or (), strict=False)), **constants, "affine": affine}
    leaves = {k: t for k, t in leaves.items() if isinstance(t, torch.Tensor)}
    result = {k: t.detach() for k, t in out.items()}
    if gradients:
        cotangents = make_cotangents(neuron, x) if cotangents is None else cotangents
        used = {k: t for k, t in out.items() if t.requires_grad and k in cotangents}
        grads = torch.autograd.grad(
            list(used.values()),
            list(leaves.values()),
            [cotangents[k].to(t.dtype) for k, t in used.items()],
            allow_unused=True,
        )
        for (name, t), grad in zip(leaves.items(), grads, strict=True):
            result[f"grad {name}"] = torch.zeros_like(t) if grad is None else grad
    return result


def oracle(neuron, x, *, state=None, tau=2.0, v_threshold=1.0, **settings):
    """The float64 reference of the same call: every tensor in float64."""

    def wide(t):
        return t.double() if isinstance(t, torch.Tensor) else t

    state = None if state is None else tuple(wide(t) for t in state)
    settings = {k: wide(t) for k, t in {"tau": tau, "v_threshold": v_threshold, **settings}.items()}
    with one_thread():
        return run(neuron, x.double(), backend="reference", state=state, **settings)


def bits(t):
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()]
    return t.contiguous().view(integer) if t.dim() else t.reshape(1).view(integer)


def assert_same_bits(actual, expected, names=None):
    for name in names or expected:
        a, b = actual[name], expected[name]
        assert a.dtype == b.dtype, f"{name}: {a.dtype} and {b.dtype}"
        assert a.shape == b.shape, f"{name}: {a.shape} and {b.shape}"
        different = int((bits(a) != bits(b)).sum())
        worst = (a.double() - b.double()).abs().max().item() if different else 0.0
        assert different == 0, f"{name}: {different} of {a.numel()} differ in some bit, by up to {worst:.3g}"


def assert_close(actual, expected, tolerance, names=None):
    for name in names or expected:
        torch.testing.assert_close(
            actual[name],
            expected[name],
            rtol=tolerance.rtol,
            atol=tolerance.atol,
            check_dtype=False,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def assert_close_to_oracle(actual, expected, dtype=torch.float64):
    """Equal spikes, everything else within the table's tolerance."""
    torch.testing.assert_close(actual["spikes"].double(), expected["spikes"], rtol=0, atol=0)
    assert_close({k: t.double() for k, t in actual.items()}, expected, TOLERANCES[dtype])


@contextmanager
def recorded_u():
    """Lists u, the distance to the threshold, of every step that the reference computes inside the block; of a spike of
    several levels one after the other."""
    steps, fire = [], reference._APPLY["spike"]
    reference._APPLY["spike"] = lambda u, slope: (steps.append(u.detach()), fire(u, slope))[1]
    try:
        yield steps
    finally:
        reference._APPLY["spike"] = fire

"""BatchNorm and the neuron behind it by one operator, a few channels after the other where the layout allows that,
against the same by a pass after the other."""

import pytest
import torch
from kernels_common import FUNCTIONS, HALF, make_state, make_x
from tolerances import TOLERANCES

from stdano_kernels import bn_neuron
from stdano_kernels.normalise import Norm

# Channels go together as long as they fill a block of 1,024 neurons, into 32 groups or more.
SHAPES = {
    "images": (2, 32, 32, 32),
    "more than a block": (2, 32, 40, 33),
    "small images": (1, 128, 16, 16),
    "a last group": (2, 131, 16, 16),
    "part of a vector": (3, 32, 1, 1031),
    "no groups": (2, 31, 32, 32),
    "too large": (40, 32, 64, 64),
}
LAYOUTS = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


def run(neuron, x, given, state=None, backend="cpu", **settings):
    """Everything that a train step gives."""
    leaves = {"x": x.clone(memory_format=torch.preserve_format) if x.is_contiguous() else x}
    channels = x.shape[2]
    if "weight" in given:
        leaves |= {"weight": torch.linspace(0.7, 1.6, channels), "bias": torch.linspace(-0.2, 0.4, channels)}
    if "tau" in given:
        settings["tau"] = leaves["tau"] = torch.linspace(1.2, 3.0, channels)
    if state is not None:
        leaves |= {f"state {j}": t for j, t in enumerate(state)}
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    leaves = {k: (t if k == "x" else t.to(real)).detach().requires_grad_() for k, t in leaves.items()}
    settings |= {"tau": leaves["tau"]} if "tau" in given else {}
    mean, var = torch.full((channels,), 0.3, dtype=real), torch.full((channels,), 0.8, dtype=real)
    if state is not None:
        settings["state"] = tuple(t for k, t in leaves.items() if k.startswith("state"))
    numbers = (leaves.get("weight"), leaves.get("bias"))
    spikes, last = bn_neuron(
        neuron, leaves["x"], mean, var, *numbers, training=True, return_state=True, backend=backend, **settings
    )
    cotangent = torch.linspace(-1, 1, spikes.numel(), dtype=torch.float64).view_as(spikes).to(spikes.dtype)
    loss = (spikes * cotangent).sum() + sum(t.sum() for t in last)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    exact = {"spikes": spikes, **{f"last {j}": t for j, t in enumerate(last)}}
    return exact, {"mean": mean, "var": var, **dict(zip(leaves, grads, strict=True))}


def assert_equals_apart(neuron, x, given, **settings):
    """The sums of a channel are taken in another order, so what follows from them agrees to a rounding."""
    exact, rounded = run(neuron, x, given, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Norm, "is_joint", lambda *_: False)
        expected, expected_rounded = run(neuron, x, given, **settings)
    assert 0.01 < exact["spikes"].float().mean() < 0.9
    assert torch.equal(exact["spikes"], expected["spikes"])
    rtol, atol = TOLERANCES[x.dtype]
    if x.dtype in HALF:  # the gradient of x is rounded twice
        rtol, atol = 2 * rtol, 4e-3
    for name, value in (expected | expected_rounded).items():
        actual = (exact | rounded)[name]
        if x.dtype != torch.float64 and name in expected:  # affine has no room for a rounding in double
            assert torch.equal(actual, value), name
        torch.testing.assert_close(actual, value, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("given", ("weight and bias", "nothing", "weight and tau"))
@pytest.mark.parametrize("steps", (1, 4, 19))
@pytest.mark.parametrize("neuron", ("lif", "llif"))
@pytest.mark.parametrize("shape", tuple(SHAPES))
def test_equals_the_passes_apart(shape, neuron, steps, given):
    if shape == "too large" and (steps, given) != (4, "weight and bias"):
        pytest.skip("one of these is enough")
    assert_equals_apart(neuron, make_x((steps, *SHAPES[shape])), given)


@pytest.mark.parametrize("given", ("weight and bias", "weight and tau"))
@pytest.mark.parametrize("layout", ("as it is", *LAYOUTS))
def test_equals_the_composition(layout, given):
    """Of torch's BatchNorm and the neuron's equations, in double, where no spike is in doubt."""
    x = LAYOUTS.get(layout, lambda x: x)(make_x((3, *SHAPES["small images"]), torch.float64))
    ours, theirs = (run("llif", x, given, backend=backend) for backend in ("cpu", "reference"))
    for name, value in (theirs[0] | theirs[1]).items():
        torch.testing.assert_close(
            (ours[0] | ours[1])[name], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("dtype", (torch.float64, torch.float16, torch.bfloat16))
@pytest.mark.parametrize("neuron", tuple(FUNCTIONS))
def test_every_dtype(neuron, dtype):
    assert_equals_apart(neuron, make_x((5, *SHAPES["images"]), dtype), "weight and bias")


@pytest.mark.parametrize("layout", tuple(LAYOUTS))
def test_layouts(layout):
    x = LAYOUTS[layout](make_x((4, *SHAPES["small images"])))
    assert_equals_apart("llif", x, "weight and bias")


@pytest.mark.parametrize("neuron", ("lif", "slif"))
def test_with_a_state(neuron):
    x = make_x((6, *SHAPES["images"]))
    assert_equals_apart(neuron, x, "weight and bias", state=make_state(neuron, x))


@pytest.mark.parametrize("shape", ("images", "no groups"))
def test_the_number_of_threads_does_not_matter(shape):
    x = make_x((4, *SHAPES[shape]))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(run("slif", x, "weight and tau"))
    torch.set_num_threads(threads)
    for exact, rounded in results[1:]:
        assert all(torch.equal(value, results[0][0][name]) for name, value in exact.items())
        assert all(torch.equal(value, results[0][1][name]) for name, value in rounded.items())


@pytest.mark.parametrize("dtype", (torch.float16, torch.float64))
@pytest.mark.parametrize("momentum", (0.0, 0.3, 0.7, 1.0, torch.tensor(0.25)))
def test_running_statistics_in_a_dtype_of_their_own(dtype, momentum):
    """Or by a momentum on the device: the operator then leaves them alone, and they are moved all the same."""
    x = make_x((4, *SHAPES["images"]))
    ours, theirs = ([torch.full((32,), v, dtype=d) for v in (0.25, 0.5)] for d in (dtype, torch.float64))
    bn_neuron("lif", x, *ours, training=True, momentum=momentum)
    torch.nn.functional.batch_norm(x.double().flatten(0, 1), *theirs, training=True, momentum=float(momentum))
    rtol, atol = (2e-3, 1e-3) if dtype == torch.float16 else (1e-6, 1e-7)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol)

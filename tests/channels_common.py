"""Helpers of the tests of BatchNorm and the super neuron: the compositions of PyTorch's modules that they replace, one
call with everything it gives, and inputs at which no spike is in doubt."""

import itertools

import torch
from kernels_common import DECLARED, FUNCTIONS, OPTIONS, one_thread, options_of, recorded_u
from kernels_common import PAPER as NEURONS
from tolerances import REDUCTION, SPIKE_BAND
from torch import nn

from stdano_kernels import Constant, Neuron, State, bn_neuron, function, super_neuron
from stdano_kernels.define import spike
from stdano_kernels.functional import kernel_for, settle
from stdano_kernels.spec import spec_of

# Every choice and order of the paper's neurons, 3 + 6 + 6, and some with others among them.
SUBSETS = [names for size in (1, 2, 3) for names in itertools.permutations(NEURONS, size)]
SUBSETS += [("alif",), ("cuba_lif", "slif"), ("if_", "alif", "lif"), ("slif", "if_", "cuba_lif", "llif", "alif", "lif")]
# As many as a code has bits. A search takes different ones, the operators need not know.
EIGHT = ("alif", "lif", "cuba_lif", "slif", "lif", "if_", "llif", "alif")
# T = 4 has loops of its own; 8, 16 and their neighbours are where states are kept on the way.
STEPS = (1, 2, 4, 5, 16, 17, 33)
RESETS = ({"v_reset": None, "slif_v_reset": None}, {"v_reset": -0.1, "slif_v_reset": 0.05})
# Every setting both ways: what is built around neurons passes them on, and has no part in how they go together.
SOME_OPTIONS = [{**o, "slif_v_reset": o["v_reset"] and 0.05} for o in (OPTIONS[1], OPTIONS[3], OPTIONS[4])]


class Tired(Neuron):
    """A neuron that the library has not."""

    v = State()
    b = State("floor")
    kappa = Constant(0.2)
    floor = Constant(0.25)

    def step(n, x, v, b):
        h = n.charge(x, v) - n.kappa * b
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold), n.floor + 0.75 * (b - n.floor) + s


# Declarations with settings of their own: one neuron again and again, surrogates, alphas, resets, one from here.
ANY = (
    (DECLARED["lif"], dict(tau=1.4, alpha=0.75)),
    (DECLARED["lif"], dict(tau=4.0, alpha=2.0, surrogate="sigmoid")),
    (Tired, dict(tau=1.7)),
    (DECLARED["slif"], dict(v_reset=None, beta=0.2, alpha=1.25)),
    (Tired, dict(kappa=0.4, floor=-0.1, v_reset=None, surrogate="sigmoid", alpha=1.5)),
    (DECLARED["llif"], dict(gamma=0.3, v_threshold=0.8)),
    (DECLARED["lif"], dict(v_reset=None)),
    (DECLARED["lif"], dict(tau=1.4, alpha=0.5)),
)


def own_settings(neuron, v_reset=0.0, slif_v_reset=None, **settings):
    """The super neuron's settings as the function of one neuron takes them."""
    return options_of(neuron, {**settings, "v_reset": slif_v_reset if neuron == "slif" else v_reset})


def declared(member, **settings):
    """A neuron's declaration and settings: its own, or those of a name."""
    return member if isinstance(member, tuple) else (DECLARED[member], own_settings(member, **settings))


def members(neurons, x, **settings):
    """Several neurons as the super neuron's operators take them: kernels, and the constants and alpha of each."""
    kernels, values = [], []
    for member in neurons:
        neuron, own = declared(member, **settings)
        settled, constants = settle(spec_of(neuron), own, x)
        kernel, missing = kernel_for(settled.neuron, settled.variant.plain, "cpu", x.dtype == torch.float64)
        assert missing is None, missing
        kernels.append(kernel)
        values += [*constants, settled.alpha]
    return kernels, values


def bits_of_codes(codes, count):
    """The spikes of each neuron, 0 or 1."""
    return [codes >> k & 1 for k in range(count)]


def batch_norm(x, mean, var, training, momentum=0.1, eps=1e-5, weight=None, bias=None):
    """nn.BatchNorm2d over the merged T*B and whatever comes after the channels."""
    affine = weight is not None or bias is not None
    norm = nn.BatchNorm2d(x.shape[2], eps, momentum, affine, mean is not None, dtype=x.dtype).train(training)
    norm.running_mean, norm.running_var = mean, var
    parameters = {k: t for k, t in (("weight", weight), ("bias", bias)) if t is not None}
    images = x.flatten(0, 1)
    images = images.reshape(*images.shape[:2], -1, 1) if images.dim() != 4 else images
    return torch.func.functional_call(norm, parameters, (images,)).reshape(x.shape)


def compose_super(
    x, weights, mean, var, neurons=NEURONS, training=False, momentum=0.1, eps=1e-5, backend="reference", **settings
):
    y = torch.zeros_like(x)
    for k, member in enumerate(neurons):
        neuron, own = declared(member, **settings)
        spikes = function(neuron)(x, backend=backend, **own)
        of_one = (None, None) if mean is None else (mean[k], var[k])
        y = y + weights[k] * batch_norm(spikes, *of_one, training, momentum, eps)
    return y


def compose_bn(
    neuron,
    x,
    mean,
    var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    backend="reference",
    **settings,
):
    normalised = batch_norm(x, mean, var, training, momentum, eps, weight, bias)
    return FUNCTIONS[neuron](normalised, backend=backend, **settings)


def draw(shape, seed, dtype=torch.float64):
    """Multiples of 1/32 below 2: the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-64, 65, tuple(shape), generator=generator) / 32).to(dtype)


def start_statistics(rows, dtype):
    """Running statistics that are neither 0 nor 1, different in every place."""
    count = torch.Size(rows).numel()
    mean = torch.linspace(0.1, 0.6, count).reshape(rows).to(dtype)
    return mean, (1.5 - mean).to(dtype)


def run_super(
    x,
    function=super_neuron,
    neurons=NEURONS,
    training=True,
    statistics="given",
    cotangent=None,
    logits=None,
    **settings,
):
    """y, running statistics and the gradients of x, the weights and, through softmax, of what they are made from."""
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, var = start_statistics((len(neurons), x.shape[2]), real) if statistics else (None, None)
    x = x.detach().requires_grad_()
    logits = draw((len(neurons),), 5, real) if logits is None else logits
    logits = logits.detach().requires_grad_()
    weights = torch.softmax(logits, 0)
    y = function(x, weights, mean, var, neurons=neurons, training=training, **settings)
    cotangent = draw(x.shape, 6, x.dtype) if cotangent is None else cotangent.to(x.dtype)
    grads = torch.autograd.grad(y, (x, weights, logits), cotangent)
    result = {"y": y.detach(), **dict(zip(("grad x", "grad weights", "grad alpha"), grads, strict=True))}
    return result if mean is None else {**result, "mean": mean, "var": var}


def run_bn(
    neuron, x, function=bn_neuron, training=True, statistics="given", given=("weight", "bias"), cotangents=None,
    state=None, tau=2.0, v_threshold=1.0, **settings
):  # fmt: skip
    """All outputs, running statistics and the gradients of everything that went in as a tensor."""
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    channels = x.shape[2]
    mean, var = start_statistics((channels,), real) if statistics else (None, None)
    constants = options_of(neuron, {"tau": tau, "v_threshold": v_threshold})
    of_bn = {k: settings[k] for k in ("momentum", "eps", "process_group", "backend") if k in settings}
    tensors = {"x": x, **constants}
    tensors["weight"] = torch.linspace(0.7, 1.6, channels, dtype=real) if "weight" in given else None
    tensors["bias"] = torch.linspace(-0.2, 0.6, channels, dtype=real) if "bias" in given else None
    tensors |= {f"state{i}": t for i, t in enumerate(state or ())}
    leaves = {k: t.detach().requires_grad_() for k, t in tensors.items() if isinstance(t, torch.Tensor)}
    tensors |= leaves
    spikes, final, v_seq = function(
        neuron, tensors["x"], mean, var, tensors["weight"], tensors["bias"], training=training,
        **{k: tensors[k] for k in constants},
        state=None if state is None else tuple(tensors[f"state{i}"] for i in range(len(state))),
        return_state=True, return_v_seq=True, **of_bn, **options_of(neuron, settings),
    )  # fmt: skip
    out = {"spikes": spikes, "v_seq": v_seq, **{f"final{i}": t for i, t in enumerate(final)}}
    if cotangents is None:
        cotangents = {k: draw(t.shape, 7 + i) for i, (k, t) in enumerate(out.items())}
    used = {k: t for k, t in out.items() if t.requires_grad and k in cotangents}
    grads = torch.autograd.grad(
        list(used.values()), list(leaves.values()), [cotangents[k].to(t.dtype) for k, t in used.items()],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    result = {k: t.detach() for k, t in out.items()}
    result |= {f"grad {k}": g for k, g in zip(leaves, grads, strict=True)}
    return result if mean is None else {**result, "mean": mean, "var": var}


def distances(neuron, x, surrogate="triangle", alpha=1.0, affine=None, **settings):
    """Of every step |u| in float64, at the nearest of several thresholds; and for the rectangle the distance to its
    jumps at 1/(2 alpha), if that is smaller."""
    with recorded_u() as steps, one_thread(), torch.no_grad():
        FUNCTIONS[neuron](x.double(), affine=affine, backend="reference", **settings)
    u = torch.stack(steps).abs()
    u = torch.minimum(u, (u - 0.5 / alpha).abs()) if surrogate == "rectangle" else u
    return u.unflatten(0, (x.shape[0], -1)).amin(1)


def without_doubt(x, neurons=NEURONS, **settings):
    """x with a silent sequence (0.25 at each step) in place of each neuron that float32 could decide differently."""
    band = SPIKE_BAND[torch.float32]
    doubtful = torch.zeros(x.shape[1:], dtype=torch.bool)
    for name in neurons:
        doubtful |= (distances(name, x, **own_settings(name, **settings)) < band).any(0)
    assert doubtful.float().mean() < 0.05, "the band must not hide the test"
    return torch.where(doubtful, torch.full_like(x, 0.25), x)


def assert_sums_close(actual, expected, magnitude, dtype):
    """Within the table's share of the sum of magnitudes."""
    worst = ((actual.double() - expected.double()).abs() / magnitude.clamp(min=1)).max().item()
    assert worst <= REDUCTION[dtype].rtol, f"off by {worst:.3g} of the sum of magnitudes"

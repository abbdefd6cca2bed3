"""The neurons against the equations and their adjoints in plain Python floats, one neuron and one step at a time.

Nothing here is shared with the package: forward and adjoint are typed from the equations, so that an error in
the reference, which every kernel is held against, cannot hide.
"""

import math

import pytest
import torch
from kernels_common import BACKENDS, FUNCTIONS, every_backend, every_neuron, every_neuron_of_the_paper, run, short
from kernels_common import OPTIONS as SETTINGS
from kernels_common import STATES as NAMES
from tolerances import TOLERANCES

# name: (derivative, primitive), from the table in stdano_kernels/surrogate.py
SURROGATE = {
    "triangle": (
        lambda u, a: max(0.0, a - a * a * abs(u)),
        lambda u, a: (lambda z: 0.5 + math.copysign(z - z * z / 2, u))(min(a * abs(u), 1.0)),
    ),
    "rectangle": (
        lambda u, a: a if abs(u) < 0.5 / a else 0.0,
        lambda u, a: 0.5 + math.copysign(min(a * abs(u), 0.5), u),
    ),
    "sigmoid": (
        lambda u, a: a * (1 / (1 + math.exp(-a * u))) * (1 - 1 / (1 + math.exp(-a * u))),
        lambda u, a: 1 / (1 + math.exp(-a * u)),
    ),
    "atan": (
        lambda u, a: a / 2 / (1 + (math.pi / 2 * a * u) ** 2),
        lambda u, a: 0.5 + math.atan(math.pi / 2 * a * u) / math.pi,
    ),
    "piecewise_exp": (
        lambda u, a: a / 2 * math.exp(-a * abs(u)),
        lambda u, a: 1 - math.exp(-a * u) / 2 if u >= 0 else math.exp(a * u) / 2,
    ),
    "fast_sigmoid": (
        lambda u, a: 1 / (1 + a * abs(u)) ** 2,
        lambda u, a: 0.5 + u / (1 + a * abs(u)),
    ),
}


class Scalar:
    """One neuron in plain floats."""

    def __init__(
        self,
        neuron,
        *,
        tau,
        v_threshold,
        v_reset,
        decay="exp",
        decay_input=False,
        surrogate="triangle",
        alpha=1.0,
        detach_reset=False,
        detach_adapt=False,
        spike="hard",
        rate=0.1,
        tau_min=1.05,
    ):
        self.neuron, self.tau, self.v_threshold, self.soft = neuron, tau, v_threshold, v_reset is None
        self.r = 0.0 if v_reset is None else v_reset
        self.linear, self.decay_input = decay == "linear", decay_input
        self.detach_reset, self.detach_adapt = detach_reset, detach_adapt
        self.rate, self.tau_min = rate, tau_min
        self.derivative = lambda u: SURROGATE[surrogate][0](u, alpha)
        if spike == "soft":
            self.fire = lambda u: SURROGATE[surrogate][1](u, alpha)
        else:
            self.fire = lambda u: 1.0 if u >= 0 else 0.0

    def forward(self, x, state=None):
        v, adapt = state or (self.r, {"lif": None, "llif": self.v_threshold, "slif": 0.0}[self.neuron])
        self.given_state = state is not None
        self.steps, spikes, v_seq = [], [], []
        for xt in x:
            k = {"x": xt, "v": v, "adapt": adapt, "tau": self.tau}
            if self.neuron == "slif":
                k["wanted"] = self.tau - self.rate * math.tanh(adapt)
                k["tau"] = max(self.tau_min, k["wanted"])
            tau = k["tau"]
            k["a"] = 1 - 1 / tau if self.linear else math.exp(-1 / tau)
            k["c"] = 1 / tau if self.decay_input else 1.0
            k["h"] = k["a"] * (v - self.r) + self.r + k["c"] * xt
            k["theta"] = adapt if self.neuron == "llif" else self.v_threshold
            k["u"] = k["h"] - k["theta"]
            k["s"] = self.fire(k["u"])
            if self.soft:
                v = k["h"] - k["s"] * k["theta"]
            else:
                v = k["h"] + k["s"] * (self.r - k["h"])
            if self.neuron == "llif":
                adapt = k["theta"] + self.rate * math.tanh(max(xt, 0.0) - xt)
            if self.neuron == "slif":
                adapt = k["s"] * k["u"]
            self.steps.append(k)
            spikes.append(k["s"])
            v_seq.append(v)
        return {"spikes": spikes, "v": v, "adapt": adapt, "v_seq": v_seq}

    def adjoint(self, gs, gv, gadapt, gv_seq):
        """The recurrences, and beyond them the gradients of tau and v_threshold as sums over the steps."""
        gx, gtau, gthreshold = [0.0] * len(gs), 0.0, 0.0
        if self.detach_adapt:
            gadapt = 0.0
        for t in reversed(range(len(gs))):
            k = self.steps[t]
            x, h, s, u, theta = k["x"], k["h"], k["s"], k["u"], k["theta"]
            sigma = self.derivative(u)
            gv = gv + gv_seq[t]
            q = gs[t]
            if not self.detach_reset:
                q += -gv * theta if self.soft else gv * (self.r - h)
            gu = 0.0
            if self.neuron == "slif":
                q += gadapt * u
                gu = gadapt * s
            gu += q * sigma
            gh = (gv if self.soft else gv * (1 - s)) + gu
            gtheta = -gu - (gv * s if self.soft else 0.0)
            gx[t] = k["c"] * gh
            # da/dtau and dc/dtau
            slope_a = 1 / k["tau"] ** 2 * (1.0 if self.linear else k["a"])
            slope_c = -1 / k["tau"] ** 2 if self.decay_input else 0.0
            slope = gh * ((k["v"] - self.r) * slope_a + x * slope_c)
            if self.neuron == "lif":
                gtau += slope
                gthreshold += gtheta
            if self.neuron == "llif":
                gtau += slope
                if not self.detach_adapt:
                    if x <= 0:
                        gx[t] -= gadapt * self.rate * (1 - math.tanh(max(x, 0.0) - x) ** 2)
                    gadapt += gtheta
            if self.neuron == "slif":
                gthreshold += gtheta
                gadapt_before = 0.0
                if k["wanted"] >= self.tau_min:
                    gtau += slope
                    gadapt_before = slope * -self.rate * (1 - math.tanh(k["adapt"]) ** 2)
                gadapt = 0.0 if self.detach_adapt else gadapt_before
            gv = k["a"] * gh
        if self.neuron == "llif" and not self.given_state:
            gthreshold += gadapt
        return {"grad x": gx, "grad v": gv, "grad adapt": gadapt, "grad tau": gtau, "grad v_threshold": gthreshold}


# Seven steps that hold what matters: a spike at u = 0 exactly (x = v_threshold from rest), inhibition, x = 0,
# two spikes in a row, a large excess (p large enough for tau_min to act), silence.
X = [1.0, -0.7, 0.0, 1.9, 1.6, 0.4, 0.3]
# The same without u = 0, where primitives made of |u| have a corner for autograd (see the test of it below).
X_SOFT = [0.95, *X[1:]]
GS = [0.5, -1.25, 0.75, 1.0, -0.5, 0.25, 1.5]
GV_SEQ = [0.25, 0.0, -0.5, 1.0, 0.0, -0.25, 0.5]
STATES = {"lif": (0.35, None), "llif": (0.35, 1.15), "slif": (0.35, 0.4)}


def scalar_and_package(neuron, backend, tau, v_threshold, state, x=None, **options):
    """What the plain floats and what the package compute, as dictionaries of lists of numbers."""
    if x is None:
        x = X_SOFT if options.get("spike") == "soft" else X
    scalar = Scalar(neuron, tau=tau, v_threshold=v_threshold, **options)
    steps = len(x)
    expected = scalar.forward(x, state)
    expected |= scalar.adjoint(GS[:steps], 0.75, -0.5, GV_SEQ[:steps])
    if neuron == "lif":
        expected = {k: v for k, v in expected.items() if "adapt" not in k}
    if state is None:
        expected = {k: v for k, v in expected.items() if k not in ("grad v", "grad adapt")}

    def tensor(values):
        return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)

    actual = run(
        neuron,
        tensor(x),
        backend=backend,
        state=None if state is None else tuple(tensor([s])[0] for s in state if s is not None),
        tau=torch.tensor(tau, dtype=torch.float64),
        v_threshold=torch.tensor(v_threshold, dtype=torch.float64),
        cotangents={
            "spikes": tensor(GS[:steps]),
            "v": tensor([0.75])[0],
            NAMES[neuron][-1]: tensor([0.75 if neuron == "lif" else -0.5])[0],
            "v_seq": tensor(GV_SEQ[:steps]),
        },
        **options,
    )
    adapt = NAMES[neuron][-1] if neuron != "lif" else None
    names = {adapt: "adapt", f"grad {adapt}": "grad adapt"}
    return expected, {names.get(k, k): t.flatten().tolist() for k, t in actual.items()}


def assert_equal_numbers(expected, actual):
    tolerance = TOLERANCES[torch.float64]
    for name, value in expected.items():
        value = value if isinstance(value, list) else [value]
        assert actual[name] == pytest.approx(value, rel=tolerance.rtol, abs=tolerance.atol), name


OPTIONS = [{**settings, "spike": spike} for settings in SETTINGS for spike in ("hard", "soft")]
OPTIONS += [{"v_reset": 0.0, "spike": spike} for spike in ("hard", "soft")]


@every_backend
@every_neuron_of_the_paper
@pytest.mark.parametrize("options", OPTIONS, ids=short)
def test_every_option_against_plain_floats(neuron, backend, options):
    for tau, state in ((2.0, None), (1.12, STATES[neuron])):
        expected, actual = scalar_and_package(neuron, backend, tau, 1.0, state, **options)
        assert_equal_numbers(expected, actual)


@every_backend
@pytest.mark.parametrize("spike", ("hard", "soft"))
@pytest.mark.parametrize("surrogate", SURROGATE)
def test_every_surrogate_against_plain_floats(backend, surrogate, spike):
    for alpha in (0.5, 1.0, 2.5):
        expected, actual = scalar_and_package(
            "slif", backend, 1.6, 0.9, STATES["slif"], v_reset=0.1, surrogate=surrogate, alpha=alpha, spike=spike
        )
        assert_equal_numbers(expected, actual)


@every_backend
@pytest.mark.parametrize("surrogate", SURROGATE)
def test_soft_spike_exactly_at_the_threshold(backend, surrogate):
    """At u = 0 the derivative of a soft spike is the surrogate there, not what autograd makes of |u|."""
    expected, actual = scalar_and_package(
        "lif", backend, 2.0, 1.0, None, x=[1.0], v_reset=0.0, surrogate=surrogate, spike="soft"
    )
    assert_equal_numbers(expected, actual)


@every_backend
@pytest.mark.parametrize("rate, tau_min", ((0.0, 1.05), (0.1, 1.05), (0.8, 1.05), (0.8, 1.5), (-0.3, 1.05)))
@pytest.mark.parametrize("neuron", ("llif", "slif"))
def test_adaptation_against_plain_floats(neuron, backend, rate, tau_min):
    """gamma and beta of any size and sign; tau_min acting in some of the steps."""
    settings = {"llif": {"gamma": rate}, "slif": {"beta": rate, "tau_min": tau_min}}[neuron]
    scalar = Scalar(neuron, tau=1.7, v_threshold=1.0, v_reset=None, rate=rate, tau_min=tau_min)
    expected = scalar.forward(X)
    x = torch.tensor(X, dtype=torch.float64)[:, None].requires_grad_()
    spikes, state, v_seq = FUNCTIONS[neuron](
        x, tau=1.7, v_reset=None, backend=backend, return_state=True, return_v_seq=True, **settings
    )
    loss = (spikes[:, 0] * torch.tensor(GS)).sum() + (v_seq[:, 0] * torch.tensor(GV_SEQ)).sum()
    (loss + 0.75 * state[0].sum() - 0.5 * state[1].sum()).backward()
    gradients = scalar.adjoint(GS, 0.75, -0.5, GV_SEQ)
    actual = {"spikes": spikes, "v_seq": v_seq, "v": state[0], "adapt": state[1], "grad x": x.grad}
    expected["grad x"] = gradients["grad x"]
    assert_equal_numbers(expected, {k: t.flatten().tolist() for k, t in actual.items()})


@every_backend
def test_lif_numbers_by_hand(backend):
    """Linear decay with tau = 2: h = v/2 + x, in numbers that are exact in binary."""
    x = torch.tensor([0.5, 0.75, 0.25, 0.5, 0.625])
    spikes, v = FUNCTIONS["lif"](x, decay="linear", return_v_seq=True, backend=backend)
    assert v.tolist() == [0.5, 0.0, 0.25, 0.625, 0.9375]
    assert spikes.tolist() == [0, 1, 0, 0, 0]
    spikes, v = FUNCTIONS["lif"](x, decay="linear", v_reset=None, return_v_seq=True, backend=backend)
    assert v.tolist() == [0.5, 0.0, 0.25, 0.625, 0.9375]
    spikes, v = FUNCTIONS["lif"](x + 0.5, decay="linear", v_reset=None, return_v_seq=True, backend=backend)
    assert v.tolist() == [0.0, 0.25, 0.875, 0.4375, 0.34375]
    assert spikes.tolist() == [1, 1, 0, 1, 1]


@every_backend
@every_neuron
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16, torch.float16), ids=short)
def test_at_the_threshold_it_fires(neuron, backend, dtype):
    """u = 0 fires, the number before it does not: what tells >= from >."""
    below = torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype))
    x = torch.stack([torch.ones((), dtype=dtype), below])[None]
    assert FUNCTIONS[neuron](x, backend=backend).tolist() == [[1.0, 0.0]]
    state = [torch.zeros(2), *torch.zeros(len(NAMES[neuron]) - 1, 2)]
    if "theta" in NAMES[neuron]:
        state[1] = torch.ones(2)
    assert FUNCTIONS[neuron](x, state=tuple(state), backend=backend).tolist() == [[1.0, 0.0]]


def test_backends_tested_here_exist():
    from stdano_kernels import backends

    assert all(backends()[name].available for name in BACKENDS)

"""The neurons beyond the paper's against their equations in plain Python floats, typed from their docstrings; the
paper's are in test_reference.py. Gradients follow from the equations (test_gradients.py, test_kernels.py)."""

import math

import pytest
import torch
from kernels_common import FUNCTIONS, STATES, every_backend, short
from tolerances import TOLERANCES

# Silence, inhibition, a spike at u = 0 exactly, two in a row, one that reaches several thresholds.
X = [0.4, -0.7, 1.0, 0.0, 1.9, 1.6, 4.2, 0.3, 0.3]


def fires(h, threshold):
    return 1.0 if h >= threshold else 0.0


def reset(h, s, threshold, v_reset):
    return h - s * threshold if v_reset is None else (v_reset if s else h)


def integrate_and_fire(x, v_threshold, v_reset):
    v, steps = v_reset or 0.0, []
    for xt in x:
        h = v + xt
        s = fires(h, v_threshold)
        v = reset(h, s, v_threshold, v_reset)
        steps.append((s, v))
    return steps


def charge(x, v, tau, v_reset, decay_input):
    r = v_reset or 0.0
    return math.exp(-1 / tau) * (v - r) + r + (x / tau if decay_input else x)


def alif(x, v_threshold, v_reset, tau, decay_input, tau_adapt, kappa):
    v, b, steps = v_reset or 0.0, 0.0, []
    for xt in x:
        theta = v_threshold + kappa * b
        h = charge(xt, v, tau, v_reset, decay_input)
        s = fires(h, theta)
        v, b = reset(h, s, theta, v_reset), math.exp(-1 / tau_adapt) * b + s
        steps.append((s, v, b))
    return steps


def cuba_lif(x, v_threshold, v_reset, tau, decay_input, tau_syn):
    v, i, steps = v_reset or 0.0, 0.0, []
    for xt in x:
        i = math.exp(-1 / tau_syn) * i + xt
        h = charge(i, v, tau, v_reset, decay_input)
        s = fires(h, v_threshold)
        v = reset(h, s, v_threshold, v_reset)
        steps.append((s, v, i))
    return steps


def integer_lif(x, v_threshold, v_reset, tau, decay_input):
    v, steps = v_reset or 0.0, []
    for xt in x:
        h = charge(xt, v, tau, v_reset, decay_input)
        s = float(sum(h >= k * v_threshold for k in (1, 2, 3, 4)))
        v = reset(h, s, v_threshold, v_reset)
        steps.append((s, v))
    return steps


LEAKY = {"tau": 1.7, "decay_input": True}
CASES = [
    ("if_", integrate_and_fire, {}),
    ("alif", alif, {**LEAKY, "tau_adapt": 3.0, "kappa": 0.4}),
    ("alif", alif, {"tau": 2.0, "decay_input": False, "tau_adapt": 20.0, "kappa": -0.2}),
    ("cuba_lif", cuba_lif, {**LEAKY, "tau_syn": 1.5}),
    ("integer_lif", integer_lif, LEAKY),
    ("integer_lif", integer_lif, {"tau": 20.0, "decay_input": False, "v_threshold": 0.75}),
]


@every_backend
@pytest.mark.parametrize("v_reset", (None, 0.0, -0.2))
@pytest.mark.parametrize("neuron, equations, constants", CASES, ids=short)
def test_values(neuron, equations, constants, v_reset, backend):
    x = torch.tensor(X, dtype=torch.float64)[:, None]
    settings = {"v_threshold": 1.0, "v_reset": v_reset, **constants}
    expected = torch.tensor(equations(X, **settings), dtype=torch.float64)
    spikes, sequences = FUNCTIONS[neuron](x, return_sequences=STATES[neuron], backend=backend, **settings)
    actual = torch.stack([spikes, *sequences], -1)[:, 0]
    assert torch.equal(actual[:, 0], expected[:, 0]) and expected[:, 0].any()
    torch.testing.assert_close(actual, expected, **TOLERANCES[torch.float64]._asdict())


def test_an_integer_neuron_fires_up_to_four_times():
    x = torch.linspace(0, 6, 25)[None]
    assert FUNCTIONS["integer_lif"](x).unique().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]

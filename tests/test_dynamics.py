"""States, thresholds, time constants and spikes over time."""

import math

import pytest
import torch
from torch import nn

import stdano
from stdano.analysis import decay_range, dynamics, layer_dynamics
from stdano.pictures.dynamics import raster, traces
from stdano_kernels import Constant, Neuron, State
from stdano_kernels.define import sigmoid, spike
from stdano_kernels.neurons import NEURONS

T, N = 12, 30
SETTINGS = {"lif": {"v_reset": -0.1}, "llif": {"gamma": 0.3}, "slif": {"beta": 0.4}, "alif": {"kappa": 0.3}}


class Parametric(Neuron):
    """A neuron that charges by itself."""

    v = State()
    w = Constant(0.0)

    def step(n, x, v):
        h = v + sigmoid(n.w) * (x - v)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)


@pytest.fixture
def x():
    return torch.randn(T, N, generator=torch.Generator().manual_seed(0)) * 1.2 + 0.3


def rows(x, first):
    """Values before each step from those after it."""
    return torch.cat([torch.full_like(x[:1], first), x[:-1]])


@pytest.mark.parametrize("name", NEURONS)
def test_what_is_seen_makes_the_kernels_spikes_and_states(name, x):
    settings = SETTINGS.get(name, {})
    seen = dynamics(name, x, **settings)
    values = seen.values
    assert seen.neuron == NEURONS[name].__name__ and seen.neurons == tuple(range(N)) and torch.equal(seen.x, x)
    assert {*NEURONS[name].states, "h", "threshold"} <= {*values} and 20 < seen.spikes.sum() < 0.8 * 4 * T * N
    levels = 4 if name == "integer_lif" else 1
    ratio = 1 + values["h"] - values["threshold"] if levels == 1 else values["h"] / values["threshold"]
    assert torch.equal(seen.spikes, ratio.floor().clamp(0, levels))
    soft = name in ("slif", "integer_lif")
    v = values["h"] - seen.spikes * values["threshold"] if soft else values["h"].clone()
    v[~torch.full_like(v, soft, dtype=torch.bool) & (seen.spikes > 0)] = settings.get("v_reset", 0.0)
    torch.testing.assert_close(values["v"], v)


def test_thresholds_and_time_constants_by_the_papers_equations(x):
    seen = dynamics("LLIF", x, gamma=0.3, v_threshold=0.9).values
    rise = torch.tanh(x.clamp(min=0) - x)
    torch.testing.assert_close(seen["threshold"], 0.9 + 0.3 * (rows(rise, 0.0).cumsum(0)))  # eqs. 6 and 7
    assert torch.equal(seen["threshold"], rows(seen["theta"], 0.9)) and (seen["tau"] == 2.0).all()
    seen = dynamics("SLIF", x, tau=1.4, beta=0.4)
    p = seen.spikes * (seen.values["h"] - 1)  # eq. 8
    torch.testing.assert_close(seen.values["p"], p)
    tau = (1.4 - 0.4 * torch.tanh(rows(p, 0.0))).clamp(min=1.05)  # eq. 9
    torch.testing.assert_close(seen.values["tau"], tau)
    torch.testing.assert_close(seen.values["decay"], torch.exp(-1 / tau))
    assert (seen.values["threshold"] == 1).all() and (tau < 1.3).any()


def test_slifs_decay_hardly_moves():
    """With the paper's tau of 1.1: between 0.386 and 0.403, or with the linear decay between 0.048 and 0.091."""
    hard = torch.full((3, 1), 50.0)  # far above the threshold, tanh is 1
    for decay, expected in (("exp", (0.386, 0.403)), ("linear", (0.048, 0.091))):
        low, high = decay_range("SLIF", hard, tau=1.1, decay=decay)
        assert (round(low, 3), round(high, 3)) == expected
        assert decay_range("LIF", hard, tau=1.1, decay=decay) == pytest.approx((high, high))
    assert decay_range("SLIF", hard, tau=2.0, beta=0.5) == pytest.approx((math.exp(-1 / 1.5), math.exp(-1 / 2)))
    quiet = decay_range("SLIF", -hard, tau=1.1)
    assert quiet[0] == quiet[1] == pytest.approx(math.exp(-1 / 1.1))
    with pytest.raises(ValueError, match=r"neuron must be one that calls n.charge, Parametric does not"):
        decay_range(Parametric, hard, backend="reference")


def test_a_declared_neuron_with_constants_that_are_tensors(x):
    x = x.view(T, 2, 3, 5)
    w = torch.tensor([-1.0, 0.0, 2.0])
    layer = stdano.node(Parametric)(w=nn.Parameter(w), v_threshold=torch.rand(3, 5), backend="reference")
    seen = dynamics(layer, x)
    assert {*seen.values} == {"v", "h", "threshold"} and not any(v.requires_grad for v in seen.values.values())
    v = rows(seen.values["v"], 0.0).view_as(x)
    torch.testing.assert_close(seen.values["h"].view_as(x), v + torch.sigmoid(w)[:, None] * (x - v))
    assert torch.equal(seen.values["threshold"][0].view(2, 3, 5)[1], layer.v_threshold)
    learned = stdano.ParametricLIFNode(1.7)
    assert dynamics(learned, x).values["tau"][0, 0] == pytest.approx(1.7)


def test_chosen_neurons_and_half_precision(x):
    seen, few = dynamics("LLIF", x.half()), dynamics("LLIF", x.half(), neurons=(7, 2))
    assert few.neurons == (7, 2) and few.x.dtype == torch.float32
    assert torch.equal(few.spikes, seen.spikes[:, [7, 2]])
    assert all(torch.equal(few.values[k], v[:, [7, 2]]) for k, v in seen.values.items())
    assert torch.equal(seen.spikes, stdano.LLIFNode()(x.half()).float())
    for wrong in ((), (30,), (-1,), (True,), (0.5,)):
        with pytest.raises(ValueError, match="neurons must be integers from 0 to 29, at least one, got"):
            dynamics("LLIF", x, neurons=wrong)
    with pytest.raises(ValueError, match="spike must be \"hard\", got 'soft'"):
        dynamics("LLIF", x, spike="soft")


@pytest.mark.parametrize("mode", ("m", "s"))
def test_a_layer_of_a_network(x, mode):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(N, 8),
        stdano.LIFNode(step_mode=mode),
        nn.Linear(8, 4),
        stdano.SLIFNode(step_mode=mode, v_threshold=0.2),
    )

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x) if mode == "m" else torch.stack([self.net(step) for step in x])

    x = 3 * x[:, None]
    seen = layer_dynamics(Whole(), "net.3", x, neurons=(0, 3))
    stdano.reset_net(net)
    expected = dynamics("SLIF", net[2](stdano.LIFNode()(net[0](x))).detach(), neurons=(0, 3), v_threshold=0.2)
    assert seen.neuron == "SLIF" and seen.spikes.sum() > 0 and torch.equal(seen.spikes, expected.spikes)
    assert all(torch.equal(v, expected.values[k]) for k, v in seen.values.items())
    assert net[3].v == 0.0 and net.training
    with pytest.raises(ValueError, match=r"layer must be one of 'net.1', 'net.3', got '3'"):
        layer_dynamics(Whole(), "3", x)
    if mode == "m":
        twice = nn.Sequential(net[1], net[1])
        with pytest.raises(ValueError, match="layer must be called once, '0' was called 2 times"):
            layer_dynamics(twice, "0", x)


def test_pictures(x):
    pytest.importorskip("matplotlib")
    few = {name: dynamics(name, x, neurons=(0,)) for name in ("LIF", "LLIF", "SLIF")}
    figure = traces(few)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels == ["potential", "potential", "theta", "potential", "tau\n(steps)", "p"]
    assert [*figure.axes[5].lines[0].get_ydata()] == few["SLIF"].values["p"][:, 0].tolist()
    potential, threshold = (line.get_ydata() for line in figure.axes[1].lines)
    values = few["LLIF"].values
    assert [*potential[:2]] == [values["h"][0, 0], values["v"][0, 0]] and len(potential) == 2 * T
    assert [*threshold] == values["threshold"][:, 0].tolist()
    marks = figure.axes[0].collections[0].get_offsets()
    assert [*marks[:, 0]] == few["LIF"].spikes[:, 0].nonzero()[:, 0].tolist()
    seen = dynamics("LIF", x)
    (axis,) = raster(seen).axes
    assert len(axis.collections[0].get_offsets()) == seen.spikes.sum() and axis.get_ylabel() == "30 neurons"
    with pytest.raises(ValueError, match="given must hold 1 to 8 neurons, got 30"):
        traces({"LIF": seen})

"""Side by side with SpikingJelly: the same spikes and gradients, its helpers, its models."""

import itertools

import pytest
import torch
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode

sj = pytest.importorskip("spikingjelly.activation_based", reason="SpikingJelly is not installed")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
layer = pytest.importorskip("spikingjelly.activation_based.layer")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

SURROGATES = {
    "triangle": surrogate.PiecewiseQuadratic(alpha=1.5),
    "rectangle": surrogate.Rect(alpha=0.7),
    "sigmoid": surrogate.Sigmoid(alpha=4.0),
    "atan": surrogate.ATan(alpha=2.0),
    "piecewise_exp": surrogate.PiecewiseExp(alpha=1.2),
    "fast_sigmoid": surrogate.SuperSpike(alpha=1.0),
}


def run(node, x, weight):
    """Spikes, final v and gradient, in the step mode of the node."""
    x = x.clone().requires_grad_()
    spikes = node(x) if node.step_mode == "m" else torch.stack([node(step) for step in x])
    (spikes * weight).sum().backward()
    return spikes.detach(), node.v.detach(), x.grad


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_lif_equals_spikingjelly(name, step_mode):
    """Inputs on a grid of 1/64 and tau = 2 keep every potential exact in float64, so no rounding can flip a spike."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 256, (8, 5, 40), generator=generator).double() / 64
    weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    for v_reset, decay_input, detach_reset, tau in itertools.product(
        (0.0, -0.25, None), (True, False), (True, False), (2.0, 4.0)
    ):
        settings = dict(
            tau=tau, decay_input=decay_input, v_reset=v_reset, detach_reset=detach_reset, step_mode=step_mode
        )
        theirs = neuron.LIFNode(**settings, v_threshold=1.0, surrogate_function=SURROGATES[name])
        ours = LIFNode(**settings, v_threshold=1.0, surrogate_function=SURROGATES[name], decay="linear")
        expected, actual = run(theirs, x, weight), run(ours, x, weight)
        assert expected[0].sum() > 100
        assert torch.equal(expected[0], actual[0]), settings
        torch.testing.assert_close(actual[1], expected[1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(actual[2], expected[2], rtol=1e-10, atol=1e-10)


def test_lif_equals_spikingjelly_in_float32():
    x = torch.randint(-128, 256, (8, 5, 400), generator=torch.Generator().manual_seed(1)).float() / 64
    theirs = neuron.LIFNode(tau=2.0, decay_input=True, step_mode="m")
    ours = LIFNode(2.0, True, 1.0, 0.0, theirs.surrogate_function, decay="linear")
    expected, actual = run(theirs, x, torch.ones_like(x)), run(ours, x, torch.ones_like(x))
    assert torch.equal(expected[0], actual[0])
    torch.testing.assert_close(actual[2], expected[2], rtol=1e-5, atol=1e-6)


def test_reset_net_and_set_step_mode():
    net = nn.Sequential(layer.Linear(6, 5), LLIFNode())
    functional.set_step_mode(net, "s")
    assert net[1].step_mode == "s"
    net(torch.randn(3, 6))
    assert net[1].v.shape == (3, 5)
    functional.reset_net(net)
    assert net[1].v == 0.0
    functional.set_step_mode(net, "m")
    assert net(torch.randn(4, 3, 6)).shape == (4, 3, 5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (surrogate.Erf(), "surrogate_function must be one of triangle.*PiecewiseQuadratic.*got Erf"),
        (surrogate.SuperSpike(alpha=2.0), "SuperSpike must have alpha=1, got 2.0"),
        (surrogate.Sigmoid(spiking=False), 'spike="soft"'),
    ],
    ids=["kind", "meaning", "soft"],
)
def test_surrogates_without_counterpart(function, message):
    with pytest.raises(ValueError, match=message):
        LIFNode(surrogate_function=function)
    with pytest.raises(ValueError, match="alpha=3.0 contradicts surrogate_function Sigmoid"):
        LIFNode(surrogate_function=surrogate.Sigmoid(), alpha=3.0)


class SpikingCNN(nn.Module):
    """A SpikingJelly model whose layers run in another order than they are defined in."""

    def __init__(self):
        super().__init__()
        self.last = neuron.LIFNode(tau=3.0, surrogate_function=surrogate.ATan())
        self.conv = nn.Sequential(layer.Conv2d(1, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.LIFNode(tau=2.0))
        self.middle = neuron.IFNode(v_reset=None)
        self.fc = nn.Sequential(layer.Flatten(), layer.Linear(4 * 36, 7))
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.last(self.fc(self.middle(self.conv(x))))


def test_convert_spikingjelly_model_to_equal_model():
    torch.manual_seed(0)
    theirs, ours = SpikingCNN(), SpikingCNN()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 1, 6, 6)
    functional.reset_net(ours)  # fills SpikingJelly's cache of modules to reset, which convert must renew
    assert stdano.convert(ours, {"LIF": "LIF"}) is ours
    assert isinstance(ours.last, LIFNode) and isinstance(ours.middle, neuron.IFNode)
    assert ours.last.tau == 3.0 and ours.last.decay == "linear" and ours.last.surrogate_function == "atan"
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
        functional.reset_net(theirs)
        functional.reset_net(ours)
        assert ours.last.v == 0.0


@pytest.mark.parametrize("example", [None, torch.randn(4, 2, 1, 6, 6)], ids=["traced", "example"])
def test_convert_counts_layers_in_order_of_execution(example):
    net = stdano.convert(SpikingCNN(), "012", example_input=example, tau=1.1, decay="exp")
    assert [type(m).__name__ for m in (net.conv[2], net.middle, net.last)] == ["LIFNode", "LLIFNode", "SLIFNode"]
    assert net.last.tau == 1.1 and net.last.decay == "exp" and net.last.v_reset is None
    assert net.conv[2].step_mode == "m"
    net(torch.randn(4, 2, 1, 6, 6)).sum().backward()

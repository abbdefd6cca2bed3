"""tau = inf is a neuron that does not leak: exactly IF, as a function, a module and in the place of SpikingJelly's."""

import math

import pytest
import torch
from torch import nn

import stdano
import stdano_kernels
from stdano import LIFNode, LLIFNode, SuperNeuron
from stdano.nodes.neurons import NEURONS

T, N = 6, 64


def integrated(x, v_reset):
    """By hand: v + x, and the reset."""
    v, spikes = torch.full_like(x[0], v_reset or 0.0), []
    for step in x:
        v = v + step
        spikes.append((v >= 1.0).to(x.dtype))
        v = v - spikes[-1] if v_reset is None else torch.where(spikes[-1] > 0, v_reset, v)
    return torch.stack(spikes), v


def grid(dtype=torch.float32):
    """Multiples of 1/64, on which sums are exact."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(-64, 96, (T, 2, N), generator=generator) / 64).to(dtype)


@pytest.mark.parametrize("backend", ("auto", "reference"))
@pytest.mark.parametrize("decay", ("exp", "linear"))
@pytest.mark.parametrize("v_reset", (0.0, 0.25, None))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
def test_lif_without_a_leak_integrates(backend, decay, v_reset, dtype):
    x = grid(dtype).requires_grad_()
    spikes, (v,) = stdano_kernels.lif(x, tau=math.inf, decay=decay, v_reset=v_reset, return_state=True, backend=backend)
    expected, expected_v = integrated(x.detach().to(v.dtype), v_reset)
    assert torch.equal(spikes.to(v.dtype), expected) and torch.equal(v, expected_v)
    spikes.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("neuron", [name for name in NEURONS if name != "IF"])
def test_every_neuron_takes_it(neuron):
    node = NEURONS[neuron](tau=math.inf, decay="linear")
    assert "tau=inf" in str(node) and node(grid()).isfinite().all()
    y = SuperNeuron(N, tau=math.inf)(grid())
    assert y.isfinite().all()


def test_an_input_divided_by_it_is_refused():
    for call in (lambda: LIFNode(math.inf, True), lambda: SuperNeuron(2, tau=math.inf, decay_input=True)):
        with pytest.raises(ValueError, match="tau must be finite with decay_input=True"):
            call()


class TestSpikingJelly:
    @pytest.fixture
    def neuron(self):
        return pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")

    @pytest.mark.parametrize("step_mode", ("m", "s"))
    @pytest.mark.parametrize("v_reset", (0.0, None))
    def test_an_if_node_goes_on_as_it_was(self, neuron, step_mode, v_reset):
        old = neuron.IFNode(v_reset=v_reset, detach_reset=True, step_mode=step_mode)
        x, out = grid(torch.float64), []
        for node in (old, stdano.convert(nn.Sequential(old), "LIF")[0]):
            own = x.clone().requires_grad_()
            spikes = node(own) if step_mode == "m" else torch.stack([node(step) for step in own])
            (spikes * torch.linspace(-1, 1, N)).sum().backward()
            out.append((spikes.detach(), node.v.detach(), own.grad))
        assert isinstance(node, LIFNode) and node.tau == math.inf and node.step_mode == step_mode
        assert torch.equal(out[0][0], out[1][0]) and torch.equal(out[0][1], out[1][1])
        torch.testing.assert_close(out[0][2], out[1][2], rtol=1e-12, atol=1e-12)

    def test_what_takes_its_place(self, neuron):
        assert stdano.convert(neuron.IFNode(), "LLIF").tau == math.inf
        net = nn.Sequential(nn.Linear(2, 2), neuron.IFNode())
        for kind, layer in (("SLIF", r"layer '1' \(IFNode\)"), ("2", r"layer '1' \(IFNode\)")):
            with pytest.raises(ValueError, match=rf"tau must be given: {layer} has none to inherit"):
                stdano.convert(net, kind)
        assert isinstance(net[1], neuron.IFNode)
        assert stdano.convert(net, "SLIF", tau=1.5)[1].tau == 1.5
        with pytest.raises(ValueError, match="does not leak, and SLIF shortens a finite one"):
            stdano.convert(LLIFNode(math.inf), "SLIF")

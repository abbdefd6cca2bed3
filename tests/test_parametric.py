"""A learned time constant, 1/tau = sigmoid(w): as in SpikingJelly, with its checkpoints, and through all rewriting."""

import copy
import pickle

import pytest
import torch
from fuse_common import assert_equal, everything
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode, ParametricLIFNode, SLIFNode
from stdano.nodes.neurons import PARAMETRIC

kinds = pytest.mark.parametrize("kind", PARAMETRIC)


@kinds
def test_it_is_the_neuron_with_that_tau_and_its_gradient(kind):
    node = PARAMETRIC[kind](3.0, decay="linear")
    tau = torch.tensor(3.0, requires_grad=True)
    twin = type(node).__mro__[2](tau=tau, decay="linear")
    assert isinstance(node, {"LIF": LIFNode, "LLIF": LLIFNode, "SLIF": SLIFNode}[kind])
    x = torch.randn(6, 2, 40)
    (node(x) * x).sum().backward()
    (twin(x) * x).sum().backward()
    assert node.tau.item() == pytest.approx(3.0)
    slope = -torch.exp(-node.w.detach())  # of tau = 1 + exp(-w)
    assert twin.tau.grad != 0
    torch.testing.assert_close(node.w.grad, twin.tau.grad * slope, rtol=1e-4, atol=1e-4)


@kinds
def test_state_copies_and_words(kind):
    node = PARAMETRIC[kind](3.0)
    assert list(node.state_dict()) == ["w"] and [*dict(node.named_parameters())] == ["w"]
    for copied in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        twin = copied(node)
        assert twin.w is not node.w and twin.tau.item() == node.tau.item()
    assert "tau=Tensor(3)" in str(node)
    node.tau = 5.0
    assert node.w.item() == pytest.approx(-torch.tensor(4.0).log().item())
    assert node.double().tau.dtype == torch.float64


def test_the_first_argument_is_init_tau():
    node = ParametricLIFNode(4.0, True, 0.5, None, "atan", True, "s")
    assert (node.decay_input, node.v_threshold, node.v_reset, node.detach_reset) == (True, 0.5, None, True)
    assert ParametricLIFNode(init_tau=4.0).tau.item() == pytest.approx(4.0)
    for wrong, error in ((1.0, ValueError), (float("inf"), ValueError), (torch.tensor(2.0), TypeError)):
        with pytest.raises(error, match="init_tau must be a"):
            ParametricLIFNode(wrong)


def test_any_w_is_a_tau():
    for w in (-200.0, 200.0):
        for decay in ("exp", "linear"):
            node = ParametricLIFNode(decay=decay)
            nn.init.constant_(node.w, w)
            node(torch.randn(3, 2, 4)).sum().backward()
            assert node.w.grad.isfinite()


@kinds
def test_convert_keeps_the_parameter(kind):
    net = nn.Sequential(nn.Linear(4, 4), ParametricLIFNode(3.0, v_reset=0.25))
    w = net[1].w
    stdano.convert(net, kind)
    assert type(net[1]) is PARAMETRIC[kind] and net[1].w is w
    assert net[1].v_reset == (None if kind == "SLIF" else 0.25)
    assert not isinstance(stdano.convert(net, kind, tau=2.0)[1], PARAMETRIC[kind])


def test_fused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Unflatten(0, (3, 5)), ParametricLIFNode(1.5)).double()
    twin = copy.deepcopy(net)
    assert stdano.fuse(net).fused == [("1", "3")]
    xs = [torch.randn(15, 4).double() for _ in range(2)]
    assert_equal(everything(net, xs), everything(twin, xs))
    assert len(stdano.fuse(stdano.convert(net, "LLIF")).fused) == 1 and type(net[3]).__name__ == "ParametricLLIFNode"


@pytest.mark.slow
def test_compiled():
    node, x = ParametricLIFNode(1.5), torch.randn(4, 2, 6)
    twin = copy.deepcopy(node)
    y = torch.compile(node, fullgraph=True, backend="aot_eager")(x)
    (y * x).sum().backward()
    (twin(x) * x).sum().backward()
    torch.testing.assert_close(node.w.grad, twin.w.grad)


def test_equals_spikingjelly():
    """tau = 2 and inputs on a grid keep every potential exact in float64, so no rounding can flip a spike."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    x = torch.randint(-128, 256, (8, 5, 40), generator=torch.Generator().manual_seed(0)).double() / 64
    weight = torch.randn_like(x)
    for step_mode in ("m", "s"):
        for v_reset, decay_input in ((0.0, True), (None, False), (-0.25, True)):
            theirs = neuron.ParametricLIFNode(2.0, decay_input, 1.0, v_reset, step_mode=step_mode).double()
            surrogate = theirs.surrogate_function
            ours = ParametricLIFNode(2.0, decay_input, 1.0, v_reset, surrogate, False, step_mode, decay="linear")
            converted = stdano.convert(nn.Sequential(copy.deepcopy(theirs)), {"ParametricLIF": "LIF"})[0]
            assert str(converted) == str(ours.double())
            ours.load_state_dict(theirs.state_dict())
            out = []
            for node in (theirs, ours, converted):
                own = x.clone().requires_grad_()
                spikes = node(own) if step_mode == "m" else torch.stack([node(step) for step in own])
                (spikes * weight).sum().backward()
                out.append((spikes.detach(), own.grad, node.w.grad))
            assert out[0][0].sum() > 100
            for other in out[1:]:
                assert torch.equal(out[0][0], other[0])
                torch.testing.assert_close(other[1:], out[0][1:], rtol=1e-10, atol=1e-10)

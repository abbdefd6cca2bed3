"""Super neurons in models that know nothing of them, SpikingJelly's included: what is found in them and retrained."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode, SLIFNode, SuperNeuron

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

from stdano.rewrite.convert import execution_order
from stdano.search import Architect, to_super
from stdano.search.architect import alphas, super_neurons, weights
from stdano.search.architecture import chosen

T, B, CLASSES = 2, 3, 5


def network(*neurons):
    layers = [nn.Linear(4, 6), *neurons]
    return nn.Sequential(*layers[:2], nn.Linear(6, 5), *layers[2:])


class Untraceable(nn.Module):
    """Defined in another order than it runs in."""

    def __init__(self, times=1, idle=False):
        super().__init__()
        self.b, self.a = LIFNode(), LLIFNode()
        self.linear, self.times, self.idle = nn.Linear(3, 4), times, idle

    def forward(self, x):
        if x.sum() > 1e9 or self.idle:
            return self.a(x)
        for _ in range(self.times):
            x = self.a(x)
        return self.b(self.linear(x))


def reset(net):
    stdano.reset_net(net)
    return net


class TestSpikingJelly:
    @pytest.fixture
    def jelly(self):
        reason = "SpikingJelly is not installed"
        pytest.importorskip("spikingjelly.activation_based.model.spiking_resnet", reason=reason)
        from spikingjelly.activation_based import functional, neuron, surrogate
        from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

        def make(name):
            torch.manual_seed(0)
            options = {"spiking_neuron": neuron.LIFNode, "surrogate_function": surrogate.ATan(), "detach_reset": True}
            if name == "spiking_resnet18":
                net = spiking_resnet.spiking_resnet18(num_classes=CLASSES, **options)
            else:
                net = sew_resnet.sew_resnet18(num_classes=CLASSES, cnf="ADD", **options)
            functional.set_step_mode(net, "m")
            return net

        return make, neuron, surrogate

    @pytest.mark.parametrize(("name", "layers"), [("spiking_resnet18", 17), ("sew_resnet18", 20)])
    def test_search_and_retraining(self, jelly, name, layers):
        make, _, _ = jelly
        net, x, target = make(name), 2 * torch.randn(T, B, 3, 32, 32), torch.arange(B)
        assert to_super(net, x) is net
        assert [n.num_channels for n in super_neurons(net).values()][:5] == [64] * 5
        assert list(alphas(net)) == [layer for layer, _ in execution_order(make(name))]

        def loss(model):
            return lambda: F.cross_entropy(reset(model)(x).mean(0), target)

        before = [p.detach().clone() for p in weights(net)]
        optimiser = torch.optim.SGD(weights(net), lr=0.1)
        alpha_loss = Architect(net, lr=0.5).step(loss(net))
        assert all(torch.equal(p, old) for p, old in zip(weights(net), before, strict=True))
        assert all((alpha.abs() > 0.4).all() for alpha in alphas(net).values())
        weight_loss = loss(net)()
        weight_loss.backward()
        optimiser.step()
        assert alpha_loss.isfinite() and weight_loss.isfinite()
        assert not any(torch.equal(p, old) for p, old in zip(weights(net), before, strict=True))

        found = chosen(net)
        assert len(found) == layers and len(set(found)) > 1
        stdano.convert(net, {"SuperNeuron": lambda neuron: neuron.node()})
        fresh = stdano.convert(make(name), found)
        assert [str(m) for m in fresh.modules()] == [str(m) for m in net.modules()]
        fresh.load_state_dict(net.state_dict())
        assert torch.equal(reset(fresh)(x), reset(net)(x))
        loss(fresh)().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in fresh.parameters())

    @pytest.mark.parametrize("options", [{}, {"tau": 1.5, "decay_input": False, "v_reset": None, "v_threshold": 0.5}])
    def test_its_neuron_goes_on_in_the_super_neuron(self, jelly, options):
        _, neuron, surrogate = jelly
        node = neuron.LIFNode(step_mode="m", surrogate_function=surrogate.Sigmoid(alpha=2.0), **options)
        x = torch.randn(4, B, 6, 5).requires_grad_()
        twin = x.detach().clone().requires_grad_()
        spikes = copy.deepcopy(node)(twin)
        expected = F.batch_norm(spikes.flatten(0, 1), None, None, training=True).unflatten(0, (4, B))
        actual = to_super(node, x.detach(), ["LIF"])(x)
        assert 0 < spikes.mean() < 1
        torch.testing.assert_close(actual, expected)
        cotangent = torch.randn_like(x)
        actual.backward(cotangent)
        expected.backward(cotangent)
        torch.testing.assert_close(x.grad, twin.grad)

    def test_one_without_tau(self, jelly):
        _, neuron, _ = jelly
        net, x = network(neuron.IFNode(step_mode="m")), torch.randn(T, B, 4)
        with pytest.raises(ValueError, match=r"tau must be given: layer '1' \(IFNode\) has none to inherit"):
            to_super(net, x)
        assert isinstance(net[1], neuron.IFNode)
        assert to_super(copy.deepcopy(net), x, tau=1.5)[1].tau == 1.5
        twin = copy.deepcopy(net[1])
        mixed = to_super(net, x, ("LIF", "LLIF"))[1]
        assert mixed.tau == math.inf
        x = torch.randint(-64, 128, (6, B, 6)) / 64
        assert torch.equal(mixed.node("LIF")(x), twin(x))

    def test_a_learned_tau_and_an_unknown_surrogate(self, jelly):
        _, neuron, surrogate = jelly
        x = torch.randn(T, B, 4)
        net = network(neuron.ParametricLIFNode(init_tau=4.0, step_mode="m"))
        with pytest.raises(ValueError, match=r"tau must be given: layer '1' \(ParametricLIFNode\) learns its own"):
            to_super(net, x)
        fixed = to_super(net, x, tau=4.0)[1]
        assert fixed.tau == 4.0 and fixed.decay == "linear"
        net = network(neuron.LIFNode(surrogate_function=surrogate.Erf(), step_mode="m"))
        with pytest.raises(ValueError, match=r"layer '1' \(LIFNode\): surrogate_function must be one of"):
            to_super(net, x)


def test_settings_are_inherited_and_overridden():
    net = network(
        LIFNode(tau=1.5, v_reset=0.25, alpha=2.0, decay="linear"),
        nn.Linear(5, 5),
        LLIFNode(gamma=0.3, detach_adapt=True, surrogate_function="atan"),
        SLIFNode(beta=0.2, tau_min=1.2, v_reset=0.1, backend="reference"),
    )
    to_super(net, torch.randn(T, B, 4), ("SLIF", "LIF"), tau=1.25, eps=0.5)
    first, second, third = super_neurons(net).values()
    assert [n.num_channels for n in (first, second, third)] == [6, 5, 5]
    for neuron in (first, second, third):
        assert neuron.neurons == ("SLIF", "LIF") and neuron.tau == 1.25 and neuron.eps == 0.5
    assert (first.v_reset, first.slif_v_reset, first.surrogate_alpha, first.decay) == (0.25, None, 2.0, "linear")
    assert (second.gamma, second.detach_adapt, second.surrogate_function) == (0.3, True, "atan")
    assert (third.beta, third.tau_min, third.backend) == (0.2, 1.2, "reference")
    assert (third.v_reset, third.slif_v_reset) == (0.0, 0.1)


def test_nodes_that_come_back_are_those_that_went_in():
    nodes = LIFNode(tau=1.5), SLIFNode(beta=0.2, v_reset=0.1), LLIFNode(gamma=0.3)
    for node in nodes:
        name = type(node).__name__.removesuffix("Node")
        neuron = to_super(copy.deepcopy(node), torch.randn(T, B, 4), [name])
        assert str(neuron.node()) == str(node)


def test_the_run_leaves_no_trace():
    net = Untraceable()
    net.norm = nn.BatchNorm1d(4).eval()  # frozen
    before = copy.deepcopy(net.state_dict())
    to_super(net, torch.ones(T, B, 3))
    assert net.training and net.a.training and not net.norm.training
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert not any(m._forward_pre_hooks for m in net.modules())
    assert not net.a.running_mean.any() and net.a.num_batches_tracked == 0
    assert not to_super(network(LIFNode()).eval(), torch.ones(T, B, 4))[1].training


def test_the_order_of_execution_is_remembered():
    net = to_super(Untraceable(), torch.ones(T, B, 3))
    assert list(alphas(net)) == ["a", "b"] == list(alphas(copy.deepcopy(net)))
    with torch.no_grad():
        net.a.alpha.copy_(torch.tensor([0.0, 0.0, 1.0]))
        net.b.alpha.copy_(torch.tensor([1.0, 0.0, 0.0]))
    fresh = stdano.convert(Untraceable(), chosen(net), example_input=torch.ones(T, B, 3))
    assert isinstance(fresh.a, SLIFNode) and isinstance(fresh.b, LIFNode)


def test_super_neurons_stay():
    there = SuperNeuron(6)
    net = to_super(network(there, LIFNode()), torch.randn(T, B, 4))
    assert net[1] is there and list(alphas(net)) == ["1", "3"]


def test_dtype_of_the_input():
    double = to_super(network(LIFNode()).double(), torch.randn(T, B, 4).double())
    assert double[1].alpha.dtype == double[1].running_var.dtype == torch.float64
    half = to_super(network(LIFNode()).bfloat16(), torch.randn(T, B, 4).bfloat16())
    assert half[1].alpha.dtype == torch.float32
    assert half(torch.randn(T, B, 4).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Linear(4, 4), "model must have spiking layers of stdano or SpikingJelly, Linear has none"),
        (network(LIFNode(step_mode="s")), r"layer '1' \(LIFNode\) must have step_mode \"m\", .*; got 's'"),
        (network(LIFNode(store_v_seq=True)), r"layer '1' \(LIFNode\) must have store_v_seq=False"),
        (network(LIFNode(tau=torch.tensor(2.0))), r"layer '1' \(LIFNode\): tau must be a number in a super neuron"),
        (
            network(LLIFNode(gamma=torch.tensor(0.2))),
            r"layer '1' \(LLIFNode\): gamma must be a number in a super neuron",
        ),
        (network(LLIFNode(squash="hardtanh")), r"layer '1' \(LLIFNode\) has squash='hardtanh', which a super neuron"),
        (nn.Sequential(nn.Flatten(0, 1), LIFNode()), r"must have an input \[T, B, C, ...\], got .* shape \[6, 4\]"),
        (Untraceable(times=2), r"layer 'a' \(LLIFNode\) must run once in a forward call, it runs twice"),
        (Untraceable(idle=True), r"must run all spiking layers of the model, it does not run \['b'\]"),
    ],
    ids=("none", "step by step", "potentials", "tensor", "own tensor", "own option", "no channels", "twice", "never"),
)
def test_models_that_cannot_be_searched(net, message):
    before = list(net.modules())
    x = torch.ones(T, B, 3 if isinstance(net, Untraceable) else 4)
    with pytest.raises((TypeError, ValueError), match=message):
        to_super(net, x)
    assert list(net.modules()) == before and not any(m._forward_pre_hooks for m in before)


def test_a_fused_layer_and_wrong_candidates():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Unflatten(0, (T, B)), LIFNode())
    stdano.fuse(net)
    x = torch.randn(T * B, 2, 3, 3)
    with pytest.raises(ValueError, match=r"fused with its norm can only become .*call unfuse\(\) first"):
        to_super(net, x)
    with pytest.raises(ValueError, match="candidates must have spikes of 0 or 1"):
        to_super(stdano.unfuse(net), x, ("LIF", "IntegerLIF"))
    assert isinstance(net[3], LIFNode)
    assert to_super(net, x, ("LIF", "ALIF"))[3].neurons == ("LIF", "ALIF")

"""convert() and to_super() on layers that a neuron of stdano does not express or cannot reach, and what moves along."""

import copy
import sys
import types

import pytest
import torch
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode, SLIFNode, SuperNeuron

T, B = 4, 3


class Gain(LIFNode):
    def forward(self, x):
        return super().forward(3 * x)


class Net(nn.Module):
    def __init__(self, holder=None):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 4), LIFNode()
        if holder is not None:
            self.tail = holder(self.lif)

    def forward(self, x):
        return self.lif(x=self.fc(x))


def to_super(*arguments, **settings):
    pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
    from stdano.search import to_super

    return to_super(*arguments, **settings)


# --- layers without counterpart ---


def patched():
    node = LIFNode()
    node.forward = lambda x: x
    return node


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(Gain, "it is a class of its own"), (patched, "it has a forward of its own")],
    ids=("subclass", "patched"),
)
def test_what_would_be_lost(layer, reason):
    net = nn.Sequential(nn.Linear(4, 4), layer())
    name, before = type(net[1]).__name__, net[1]
    for neurons in ("LLIF", "1"):
        with pytest.raises(ValueError, match=rf"layer '1' \({name}\) cannot be converted: {reason}"):
            stdano.convert(net, neurons, example_input=torch.randn(T, B, 4))
    with pytest.raises(ValueError, match=rf"layer '1' \({name}\) cannot become a super neuron: {reason}"):
        to_super(net, torch.randn(T, B, 4))
    assert net[1] is before
    with pytest.warns(RuntimeWarning, match=rf"layer '1' \({name}\) is replaced, but {reason}"):
        stdano.convert(net, {name: "LLIF"})
    assert type(net[1]) is LLIFNode
    assert type(stdano.convert(nn.Sequential(layer()), lambda old: SLIFNode())[0]) is SLIFNode


def test_spikingjellys_neurons_without_counterpart():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    tried = 0
    for name in ("QIFNode", "EIFNode", "IzhikevichNode", "LIAFNode", "KLIFNode", "HalfThresholdIFNode", "ILIFNode"):
        kind = getattr(neuron, name, None)
        if kind is None:
            continue
        layer = kind(torch.nn.ReLU(), False) if name == "LIAFNode" else kind()
        with pytest.raises(ValueError, match=rf"layer '0' \({name}\) cannot be converted: its dynamics would be lost"):
            stdano.convert(nn.Sequential(layer), "LIF")
        tried += 1
    assert tried
    with pytest.warns(RuntimeWarning, match="its dynamics would be lost"):
        assert type(stdano.convert(nn.Sequential(neuron.QIFNode()), {"QIF": "LIF"})[0]) is LIFNode

    class Own(neuron.LIFNode):
        pass

    with pytest.raises(ValueError, match="it is a class of its own"):
        stdano.convert(nn.Sequential(Own()), "LIF")


# --- layers in plain containers ---


@pytest.mark.parametrize(
    "holder",
    [
        lambda lif: [lif],
        lambda lif: ("name", (lif,)),
        lambda lif: {"a": [lif]},
        lambda lif: [nn.Sequential(nn.Identity(), LIFNode())],
    ],
    ids=("list", "tuple", "dict", "unknown to the model"),
)
def test_layers_in_plain_containers(holder):
    net = Net(holder)
    for change in (lambda: stdano.convert(net, "SLIF"), lambda: to_super(net, torch.randn(T, B, 4))):
        with pytest.raises(
            ValueError, match=r"LIFNode\)? must not be held in tail, a (list|tuple|dict) .*nn.ModuleList"
        ):
            change()
    assert type(net.lif) is LIFNode


def test_containers_that_do_no_harm():
    net = Net(lambda lif: [nn.Linear(2, 2), lif])
    net.lif = LLIFNode()  # the other stays behind, and a mapping leaves it alone
    net.tail = [net.fc, net]
    net.tail.append(net.tail)
    assert type(stdano.convert(net, {"LLIF": "SLIF"}).lif) is SLIFNode
    net.tail = [net.lif]
    stdano.convert(nn.Sequential(net, LIFNode()), {"LIF": "LLIF"})


# --- what moves along ---


def test_hooks_move_to_the_new_layer():
    net, seen = nn.Sequential(LIFNode(), nn.Linear(4, 4)), []
    net[0].register_forward_pre_hook(lambda m, args, kwargs: seen.append("pre"), with_kwargs=True)
    handle = net[0].register_forward_hook(lambda m, args, out: seen.append(type(m)))
    net[0].register_forward_hook(lambda m, args, out: seen.append("always"), always_call=True)
    net[0].register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
    x = torch.randn(T, B, 4, requires_grad=True)
    stdano.convert(net, "LLIF")(x).sum().backward()
    assert seen == ["pre", LLIFNode, "always", "backward"]
    handle.remove()
    seen.clear()
    net.eval()(x)
    assert seen == ["pre", "always"]
    to_super(net, torch.randn(T, B, 4))
    seen.clear()
    assert type(net[0]) is SuperNeuron and net(x) is not None and seen == ["pre", "always"]
    inside = stdano.convert(nn.Sequential(net[0]), lambda old: nn.Sequential(old))
    seen.clear()
    inside(x)
    assert seen == ["pre", "always"]


def test_calls_by_keyword():
    x = torch.randn(T, B, 4)
    assert type(stdano.convert(Net(), "1", example_input=x).lif) is LLIFNode
    assert to_super(Net(), x).lif.num_channels == 4


def test_a_reset_of_the_users_own():
    class Own(Net):
        def reset(self, batch):
            raise AssertionError("convert has no batch")

    x = torch.randn(T, B, 4)
    assert type(stdano.convert(Own(), "1", example_input=x).lif) is LLIFNode
    stdano.fuse(Own(), x)


def test_tracing_leaves_no_symbols_in_attributes():
    class Keeping(Net):
        def forward(self, x):
            self.kept = self.fc(x)
            return self.lif(self.kept)

    net = stdano.convert(Keeping(), "1")
    assert not hasattr(net, "kept")


def test_set_backend_asks_what_there_is():
    for layer in (LIFNode(), SuperNeuron(2)):
        assert {"auto", "reference"} <= {*layer.supported_backends}


# --- SpikingJelly's clock_driven, as far as convert looks at it ---


@pytest.fixture
def clock_driven(monkeypatch):
    """A package of that name: the step mode is in the class, there is no attribute for it."""

    class BaseNode(nn.Module):
        def __init__(self, v_threshold=1.0, v_reset=0.0):
            super().__init__()
            self.v_threshold, self.v_reset, self.detach_reset = v_threshold, v_reset, False
            self.surrogate_function, self.v = "sigmoid", 0.0

        def reset(self):
            self.v = 0.0

    class LIFNode(BaseNode):
        def __init__(self, tau=2.0):
            super().__init__()
            self.tau, self.decay_input = tau, True

        def step(self, x):
            h = self.v + (x - self.v) / self.tau
            spikes = (h >= self.v_threshold).to(x.dtype)
            self.v = h * (1 - spikes)
            return spikes

        def forward(self, x):
            return self.step(x)

    class MultiStepLIFNode(LIFNode):
        def forward(self, x):
            return torch.stack([self.step(step) for step in x])

    class IFNode(BaseNode):
        pass

    class ParametricLIFNode(BaseNode):
        def __init__(self):
            super().__init__()
            self.decay_input, self.w = False, nn.Parameter(torch.tensor(0.5))

    class MultiStepParametricLIFNode(ParametricLIFNode):
        pass

    module = types.ModuleType("spikingjelly.clock_driven.neuron")
    for kind in (BaseNode, LIFNode, MultiStepLIFNode, IFNode, ParametricLIFNode, MultiStepParametricLIFNode):
        kind.__module__ = module.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_clock_driven_neurons_keep_their_step_mode(clock_driven):
    x = torch.randint(-64, 160, (T, B, 5)).float() / 64
    single, multi = clock_driven.LIFNode(), clock_driven.MultiStepLIFNode()
    ours = [stdano.convert(copy.deepcopy(layer), "LIF") for layer in (single, multi)]
    assert [node.step_mode for node in ours] == ["s", "m"]
    expected = multi(x)
    assert 0 < expected.mean() < 1
    assert torch.equal(torch.stack([ours[0](step) for step in x]), expected) and torch.equal(ours[1](x), expected)
    assert stdano.convert(clock_driven.IFNode(), "LIF").tau == float("inf")
    for kind, mode in ((clock_driven.ParametricLIFNode, "s"), (clock_driven.MultiStepParametricLIFNode, "m")):
        layer = kind()
        converted = stdano.convert(layer, "LLIF")
        assert converted.w is layer.w and converted.step_mode == mode


def test_clock_driven_neurons_in_a_search(clock_driven):
    x = torch.randn(T, B, 4)
    net = to_super(nn.Sequential(nn.Linear(4, 6), clock_driven.MultiStepLIFNode()), x)
    assert net[1].num_channels == 6 and net[1].decay == "linear"
    with pytest.raises(ValueError, match=r"layer '1' \(LIFNode\) must have step_mode \"m\".*got 's'"):
        to_super(nn.Sequential(nn.Linear(4, 6), clock_driven.LIFNode()), x)

"""A neuron that is declared here, as a module: all that the neurons of the library can."""

import copy
import inspect
import pickle

import pytest
import torch
from fuse_common import assert_equal, everything
from torch import nn

import stdano
import stdano_kernels
from stdano import BaseNode, BatchNormNeuron, LIFNode, LLIFNode
from stdano.models import create_model
from stdano_kernels import Constant, DeclarationError, Neuron, Option, State
from stdano_kernels.define import detach, spike

T, B, C = 6, 2, 3


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.5 + 0.3


class Tired(Neuron):
    """Each spike tires the neuron, which then charges less::

    b[t] = floor + exp(-1/tau_tired)*(b[t-1] - floor) + s[t]
    """

    v = State()
    b = State("floor")
    tau_tired = Constant(4.0, above=0.0, doc="of the tiredness, in time steps")
    kappa = Constant(0.2, doc="how much tiredness weakens the charge")
    floor = Constant(0.25, doc="what tiredness returns to")
    detach_tired = Option(False, doc="b counts as a constant in the backward pass")

    def step(n, x, v, b):
        h = n.charge(x, v) - n.kappa * (detach(b) if n.detach_tired else b)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold), n.floor + n.decay(n.tau_tired) * (b - n.floor) + s


TiredNode = stdano.node(Tired)


class Longer(stdano_kernels.neurons.LLIF):
    """LLIF whose threshold also rises by itself."""

    momentum = Constant(0.1, doc="of the rise")

    def step(n, x, v, theta):
        s, v, theta = super().step(x, v, theta)
        return s, v, theta + n.momentum


def learned(dtype=torch.float32, **settings):
    """kappa one a channel, floor one a neuron."""
    kappa, floor = torch.tensor([0.1, 0.3, 0.5], dtype=dtype), torch.linspace(-0.2, 0.4, C * 4, dtype=dtype)
    return TiredNode(tau=1.7, kappa=nn.Parameter(kappa), floor=nn.Parameter(floor.view(C, 2, 2)), **settings)


def by_hand(x, kappa, floor, tau=1.7, tau_tired=4.0):
    """Spikes, potentials and b, in double."""
    kappa, floor = kappa.view(-1, 1, 1), floor.expand(x.shape[1:])
    v, b, out = torch.zeros_like(x[0]), floor, []
    for step in x:
        h = torch.exp(torch.tensor(-1 / tau)) * v + step - kappa * b
        s = (h >= 1).to(x.dtype)
        v, b = torch.where(s > 0, 0.0, h), floor + torch.exp(torch.tensor(-1 / tau_tired)) * (b - floor) + s
        out.append((s, v, b))
    return [torch.stack(values) for values in zip(*out, strict=True)]


def test_class_and_arguments():
    assert stdano.node(Tired) is TiredNode and (TiredNode.__name__, TiredNode.__module__) == ("TiredNode", __name__)
    positional = "tau decay_input v_threshold v_reset surrogate_function detach_reset step_mode backend store_v_seq"
    own = ["tau_tired", "kappa", "floor", "detach_tired"]
    parameters = inspect.signature(TiredNode).parameters
    assert [*parameters] == [*positional.split(), "decay", "alpha", "spike", *own]
    assert [parameters[name].default for name in own] == [4.0, 0.2, 0.25, False]
    doc = inspect.getdoc(TiredNode)
    assert "\n    b[t] = floor + " in doc and "kappa: how much tiredness weakens the charge; default 0.2." in doc
    with pytest.raises(
        TypeError, match=r"TiredNode\(\) got an unexpected keyword argument 'gamma'; its arguments are ta"
    ):
        TiredNode(gamma=0.1)
    for name, wrong in (("tau_tired", 0.0), ("kappa", torch.tensor([0.1, torch.nan])), ("detach_tired", 2)):
        with pytest.raises((ValueError, TypeError), match=f"{name} must be"):
            TiredNode(**{name: wrong})
    with pytest.raises(TypeError, match="neuron must be a subclass of stdano_kernels.Neuron"):
        stdano.node(LIFNode)


@pytest.mark.parametrize("backend", ("auto", "reference"))
def test_states_and_sequences(backend):
    node, x = learned(backend=backend), random(T, B, C, 2, 2)
    assert node.v == 0.0 and node.b is node.floor and [*node.state_dict()] == ["kappa", "floor"]
    expected = by_hand(x.double(), node.kappa.double(), node.floor.double())
    for cut in (T, 2):
        node.reset()
        parts = [node(part, return_sequences=("v", "b")) for part in (x[:cut], x[cut:]) if len(part)]
        spikes, v, b = (torch.cat(a) for a in zip(*[(s, *values) for s, values in parts], strict=True))
        assert expected[0].sum() > 10 and torch.equal(spikes.double(), expected[0])
        torch.testing.assert_close(v.double(), expected[1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(b.double(), expected[2], rtol=1e-5, atol=1e-5)
        assert torch.equal(node.b, b[-1])
    node.reset()
    node.v = torch.full_like(x[0], 0.5)
    assert torch.equal(node.b, node.floor.expand(B, C, 2, 2))


def test_gradients_through_the_module():
    node = learned(torch.float64, spike="soft", surrogate_function="sigmoid")
    x = random(T, B, C, 2, 2, dtype=torch.float64).requires_grad_()

    def call(x, kappa, floor):
        node.reset()
        arguments = {"return_sequences": ("b",)}
        spikes, (b,) = torch.func.functional_call(node, {"kappa": kappa, "floor": floor}, (x,), arguments)
        return spikes, b, node.v

    assert torch.autograd.gradcheck(call, (x, *node.parameters()))


def test_copies_are_found_by_the_declaration():
    node, x = learned(), random(T, B, C, 2, 2)
    node(x)
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert type(twin) is TiredNode and torch.equal(twin.b, node.b) and twin.kappa is not node.kappa
        assert torch.equal(twin(x), copy.deepcopy(node)(x))
    again = learned()
    again.load_state_dict(node.state_dict())
    assert pickle.loads(pickle.dumps(TiredNode)) is TiredNode


def test_behind_a_norm():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, C, 3), nn.BatchNorm2d(C), nn.Unflatten(0, (T, B)), learned()).double()
    twin = copy.deepcopy(net)
    assert stdano.fuse(net).fused == [("1", "3")]
    xs = [random(T * B, 2, 4, 4, seed=seed, dtype=torch.float64) for seed in range(2)]
    assert_equal(everything(net, xs), everything(twin, xs))
    stdano.reset_net(net)
    assert net[3].v == 0.0 and stdano.unfuse(net)[3]._link is None
    assert BatchNormNeuron(C, Tired, kappa=0.3)[1].kappa == 0.3 and type(BatchNormNeuron(C, TiredNode)[1]) is TiredNode


def test_in_the_place_of_others():
    net = stdano.convert(
        nn.Sequential(LLIFNode(1.4, v_reset=0.1, gamma=0.5), LIFNode(1.2, step_mode="s")), Tired, kappa=0.4
    )
    assert [type(m) for m in net] == [TiredNode, TiredNode] and net[0].v_reset == 0.1 and net[0].kappa == 0.4
    assert (net[0].tau, net[1].tau, net[1].step_mode) == (1.4, 1.2, "s")
    stdano.convert(net, {"Tired": lambda old: TiredNode(floor=old.kappa), "TiredNode": "LLIF"})
    assert type(net[0]) is LLIFNode and net[0].tau == 1.4 and net[0].gamma == 0.1
    other = stdano.ALIFNode(1.5, kappa=0.7)
    assert stdano.convert(nn.Sequential(other), Tired)[0].kappa == 0.2  # of the same name alone
    assert stdano.convert(nn.Sequential(LLIFNode(gamma=0.5, squash="hardtanh")), Longer)[0].gamma == 0.5
    mixed = stdano.SuperNeuron(C, gamma=0.4, tau=1.3)
    assert (mixed.settings_of(Longer)["gamma"], "momentum" in mixed.settings_of(Longer)) == (0.4, False)
    learns = stdano.convert(nn.Sequential(stdano.ParametricLIFNode(3.0)), Tired)[0]
    assert type(learns).__name__ == "ParametricTiredNode" and type(pickle.loads(pickle.dumps(learns))) is type(learns)


def test_in_a_network():
    model = create_model("vgg-small", Tired, T=2, size=8, width=0.1, kappa=0.3, tau=1.3, gamma=0.2)
    layers = [m for m in model.modules() if isinstance(m, BaseNode)]
    assert len(layers) == 4 and all(type(m) is TiredNode and (m.kappa, m.tau) == (0.3, 1.3) for m in layers)
    assert len(stdano.fuse(model).fused) == 4
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    with pytest.raises(TypeError, match="settings must be some of .*kappa.*, got lambda_"):
        create_model("vgg-small", TiredNode, lambda_=1)


def test_compiled():
    net = nn.Sequential(nn.BatchNorm2d(C), nn.Unflatten(0, (T, B)), learned())
    stdano.fuse(net)
    twin, x = copy.deepcopy(net), random(T * B, C, 2, 2)
    out = []
    for module in (torch.compile(net, fullgraph=True, backend="aot_eager"), twin):
        y = module(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        out.append([y.detach()])
    out[0] += [p.grad for p in net.parameters()]
    out[1] += [p.grad for p in twin.parameters()]
    for ours, others in zip(*out, strict=True):
        torch.testing.assert_close(ours, others)


def test_a_subclass_is_one_of_its_own():
    class Louder(TiredNode):
        def forward(self, x):
            return super().forward(2 * x)

    class Named(BaseNode):
        neuron = Tired

    assert Named(kappa=0.3).kappa == 0.3 and "Named" in repr(Named())
    for cls, base in ((Louder, "TiredNode"), (Named, "BaseNode")):
        report = stdano.fuse(nn.Sequential(nn.BatchNorm2d(C), cls()))
        assert f"is a subclass of {base}, which may do something else" in report.left[0][1]


@pytest.mark.parametrize("name", ("training", "half", "step_mode"))
def test_names_that_modules_have(name):
    content = {"v": State(), name: Constant(1.0), "step": lambda n, x, v: (spike(x + getattr(n, name)), v)}
    with pytest.raises(DeclarationError, match=f"Own: '{name}' is a name that its module has for something else"):
        stdano.node(type("Own", (Neuron,), content))
    with pytest.raises(TypeError, match="Nothing must have a subclass of stdano_kernels.Neuron"):
        type("Nothing", (BaseNode,), {})()


def test_a_neuron_without_v():
    class Rate(Neuron):
        """Counts."""

        u = State(0.5)

        def step(n, x, u):
            s = spike(u + x - n.v_threshold)
            return s, u + x - s

    node = stdano.node(Rate)()
    assert "store_v_seq" not in inspect.signature(type(node)).parameters and not hasattr(node, "v") and node.u == 0.5
    x = torch.tensor([0.25, 0.5, 0.5, 0.0])[:, None]
    spikes, (u,) = node(x, return_sequences=["u"])
    assert spikes.flatten().tolist() == [0, 1, 0, 0] and u.flatten().tolist() == [0.75, 0.25, 0.75, 0.75]
    assert torch.equal(node.u, u[-1]) and node.v_seq is None
    assert stdano_kernels.function(Rate) is stdano_kernels.function(Rate)


def test_a_neuron_without_constants():
    class Bare(Neuron):
        """Its step needs its input and its state alone."""

        v = State()

        def step(n, x, v):
            s = spike(v + x - 1)
            return s, v + x - s

    spikes = stdano_kernels.function(Bare)(torch.tensor([0.5, 0.5, 0.25, 0.75])[:, None], backend="reference")
    assert spikes.flatten().tolist() == [0, 1, 0, 1]


class Either(Neuron):
    """Which of two constants the step reads depends on an option."""

    v = State()
    mode = Option("up", "down")
    higher = Constant(0.2)
    lower = Constant(0.3)

    def step(n, x, v):
        h = n.charge(x, v)
        s = spike(h - n.v_threshold - n.higher if n.mode == "up" else h - n.v_threshold + n.lower)
        return s, n.reset(h, s, n.v_threshold)


@pytest.mark.parametrize("backend", [b for b in ("reference", "cpu") if stdano_kernels.backends()[b].available])
def test_constants_that_another_option_reads(backend):
    x = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(0))
    layers = [stdano.node(Either)(mode=m, higher=0.2, lower=0.3, backend=backend) for m in ("up", "down")]
    up, down = (layer(x) for layer in layers)
    assert torch.equal(up, stdano.LIFNode(v_threshold=1.2, v_reset=0.0, backend=backend)(x))
    assert torch.equal(down, stdano.LIFNode(v_threshold=0.7, v_reset=0.0, backend=backend)(x))
    lower = torch.tensor(0.3, requires_grad=True)
    stdano_kernels.function(Either)(x, mode="up", lower=lower, backend=backend).sum()
    assert lower.grad is None
    with pytest.raises(ValueError, match="lower must be"):
        stdano_kernels.function(Either)(x, mode="up", lower=float("nan"), backend=backend)
    mixed = stdano.SuperNeuron(3, [Either(mode="down"), "LIF"], backend=backend)
    assert mixed(torch.randn(2, 2, 3, 4, 4)).isfinite().all()

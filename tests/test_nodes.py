"""Every neuron that comes with stdano as a module: arguments, state, what PyTorch does to modules, fuse and convert."""

import copy
import inspect
import pickle

import pytest
import torch
from fuse_common import assert_equal, everything
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
import stdano_kernels
from stdano import BatchNormNeuron, IFNode, LIFNode
from stdano.nodes.neurons import NEURONS, class_of

T, B, C = 5, 3, 4
ORDER = ["tau", "decay_input", "v_threshold", "v_reset", "surrogate_function", "detach_reset", "step_mode", "backend"]
ORDER += ["store_v_seq"]
nodes = pytest.mark.parametrize("Node", NEURONS.values(), ids=lambda cls: cls.__name__)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.5 + 0.3


def arguments_of(Node):
    return inspect.signature(Node).parameters


def network():
    """Of every neuron one."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *(Node() for Node in NEURONS.values()), nn.Linear(6, 3))


def states(module):
    return [t for m in module.modules() if isinstance(m, stdano.BaseNode) for t in m._state]


@nodes
def test_arguments_and_defaults_are_the_declarations(Node):
    names = arguments_of(Node).values()
    positional = [p.name for p in names if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [name for name in ORDER if name in positional]
    assert all(p.kind is p.KEYWORD_ONLY for p in names if p.name not in ORDER)
    function = inspect.signature(stdano_kernels.function(Node.neuron)).parameters
    spelled = {"surrogate_function": "surrogate"}
    for p in names:
        if p.name not in ("step_mode", "backend", "store_v_seq", "alpha"):
            assert p.default == function[spelled.get(p.name, p.name)].default
        assert f"    {p.name}: " in Node.__doc__
    missing = {*function} - {spelled.get(p.name, p.name) for p in names}
    assert missing == {"x", "affine", "state", "return_state", "return_v_seq", "return_sequences"}
    assert stdano.node(Node.neuron) is Node and class_of(Node.neuron.__name__) is Node


@nodes
def test_wrong_arguments_are_named(Node):
    with pytest.raises(
        TypeError, match=rf"{Node.__name__}\(\) got an unexpected keyword argument 'gama'; its arguments"
    ):
        Node(gama=1)
    with pytest.raises(TypeError, match=rf"{Node.__name__}\(\) too many positional arguments; its arguments are"):
        Node(*[None] * 10)


@nodes
def test_state_carries_is_visible_and_reset(Node):
    node, x, names = Node(store_v_seq=True), random(T, B, C), list(Node.neuron.states)
    rest = {name: getattr(node, name) for name in names}
    assert all(isinstance(value, float) for value in rest.values())
    whole, values = node(x, return_sequences=names)
    final = [getattr(node, name) for name in names]
    assert all(torch.equal(v[-1], state) for v, state in zip(values, final, strict=True))
    assert torch.equal(values[names.index("v")], node.v_seq)
    node.reset()
    assert {name: getattr(node, name) for name in names} == rest
    assert torch.equal(torch.cat([node(x[:2]), node(x[2:])]), whole)
    assert all(torch.equal(getattr(node, name), state) for name, state in zip(names, final, strict=True))
    single = Node(step_mode="s")
    steps = [single(step, return_sequences=names[-1:]) for step in x]
    assert torch.equal(torch.stack([spikes for spikes, _ in steps]), whole)
    assert torch.equal(torch.stack([value for _, (value,) in steps]), values[-1])


@nodes
def test_setting_v_leaves_the_rest_at_rest(Node):
    v, x, names = torch.full((B, C), 0.9), random(T, B, C), list(Node.neuron.states)
    node, plain = Node(), Node()
    node.v = v
    rest = tuple(v if name == "v" else torch.full_like(v, getattr(plain, name)) for name in names)
    assert torch.equal(node(x), stdano_kernels.function(Node.neuron)(x, state=rest))


@nodes
def test_copies(Node):
    x = random(T, B, C).requires_grad_()
    node = Node(v_threshold=nn.Parameter(torch.tensor(0.8)))
    node(x)
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert type(twin) is Node and list(twin.state_dict()) == ["v_threshold"]
        assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(twin._state, node._state, strict=True))
        assert torch.equal(twin(x), copy.deepcopy(node)(x))
    shown = repr(node)
    assert all(f"{'surrogate' if name == 'surrogate_function' else name}=" in shown for name in arguments_of(Node))


@nodes
def test_every_constant_is_learned(Node):
    """As numbers a channel and one a neuron, against the reference."""
    constants = [
        name for name, p in arguments_of(Node).items() if name in Node.neuron.constants and p.default is not None
    ]
    shapes = [(C,), (C, 2), ()] * 2
    grads = []
    for backend in ("auto", "reference"):
        defaults = {name: arguments_of(Node)[name].default for name in constants}
        defaults |= {"tau": 1.1, "v_reset": 0.1}  # near SLIF's tau_min
        values = {
            name: nn.Parameter(torch.full(shape, 1.01 * defaults[name], dtype=torch.float64))
            for name, shape in zip(constants, shapes, strict=False)
        }
        node = Node(**values, backend=backend)
        assert [*dict(node.named_parameters())] == constants == [*node.state_dict()]
        out = node(random(8, B, C, 2, dtype=torch.float64))
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        grads.append([p.grad for p in node.parameters()])
    assert all(grad.abs().sum() > 0 for grad in grads[0])
    for ours, others in zip(*grads, strict=True):
        torch.testing.assert_close(ours, others, rtol=1e-9, atol=1e-9)


@nodes
def test_fused_with_a_norm(Node):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, C, 3), nn.BatchNorm2d(C), nn.Unflatten(0, (T, B)), Node()).double()
    nn.init.normal_(net[1].bias, 0.4)
    twin = copy.deepcopy(net)
    assert stdano.fuse(net).fused == [("1", "3")]
    xs = [random(T * B, 2, 6, 6, seed=seed, dtype=torch.float64) for seed in range(2)]
    assert_equal(everything(net, xs), everything(twin, xs))
    stdano.unfuse(net)
    assert net[3]._link is None
    layers = [BatchNormNeuron(C, kind) for kind in (Node.neuron.__name__, Node.__name__, Node.neuron, Node, Node())]
    assert all(type(layer[1]) is Node and layer[1]._link is not None for layer in layers)
    norm, node = nn.BatchNorm2d(C), Node()
    _, expected = node(norm(random(T * B, C, 2, 2)).unflatten(0, (T, B)), return_sequences=("v",))
    _, values = layers[0](random(T, B, C, 2, 2)), layers[0][1].v
    torch.testing.assert_close(values, expected[0][-1], rtol=1e-4, atol=1e-5)


@nodes
def test_convert(Node):
    for kind in (Node.neuron.__name__, Node.neuron, Node):
        net = stdano.convert(nn.Sequential(nn.Linear(2, 2), LIFNode(1.7, True, 0.8, decay="linear", alpha=2.0)), kind)
        assert type(net[1]) is Node and (net[1].v_threshold, net[1].alpha) == (0.8, 2.0)
        assert getattr(net[1], "tau", 1.7) == 1.7 and getattr(net[1], "decay", "linear") == "linear"
        back = stdano.convert(net, LIFNode)[1]
        assert back.tau == (torch.inf if Node is IFNode else 1.7) and back.alpha == 2.0 and back.v_reset == 0.0


def test_learned_tau_goes_on_into_any_neuron():
    net = stdano.convert(nn.Sequential(stdano.ParametricLIFNode(3.0)), "ALIF", kappa=0.3)
    node = net[0]
    assert type(node).__name__ == "ParametricALIFNode" and node.tau.item() == pytest.approx(3.0) and node.kappa == 0.3
    node(random(T, B, C)).sum().backward()
    assert node.w.grad != 0
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert type(twin) is type(node) and torch.equal(twin.w, node.w)
    assert stdano.fuse(nn.Sequential(nn.BatchNorm2d(C), nn.Unflatten(0, (T, B)), node)).fused
    assert type(stdano.convert(net, "IF")[0]) is IFNode
    for old, tau in ((stdano.ParametricLIFNode(3.0), 3.0), (stdano.ALIFNode(1.7), 1.7)):
        new = stdano.convert(nn.Sequential(old), stdano.ParametricLIFNode)[0]
        assert type(new) is stdano.ParametricLIFNode and new.tau.item() == pytest.approx(tau)


def test_behind_a_norm_whose_channels_are_others():
    """The norm's N is the neuron's T, and its channels are the neuron's neurons."""
    net = nn.Sequential(nn.BatchNorm1d(C), stdano.LLIFNode(gamma=nn.Parameter(torch.linspace(-0.5, 0.5, C)))).double()
    twin = copy.deepcopy(net)
    assert stdano.fuse(net).fused == [("0", "1")]
    x = random(20, C, dtype=torch.float64)
    assert_equal(everything(net, [x]), everything(twin, [x]))


def test_compiled():
    def train(compiled):
        net = network()
        forward = torch.compile(net, fullgraph=True, backend="aot_eager") if compiled else net
        with torch.no_grad():
            net(random(T, B, 6))  # a state to go on from
        (forward(random(T, B, 6, seed=1)) ** 2).mean().backward()
        return [p.grad for p in net.parameters()] + states(net)

    for ours, others in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(ours, others)


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_checkpointed(use_reentrant):
    def train(forward, net):
        forward(random(T, B, 6).requires_grad_()).sum().backward()
        return [p.grad for p in net.parameters()] + states(net)

    net, twin = network(), network()
    ours = train(lambda x: checkpoint(net, x, use_reentrant=use_reentrant), net)
    assert all(torch.equal(a, b) for a, b in zip(ours, train(twin, twin), strict=True))


def test_autocast_and_half_precision():
    net = network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(random(T, B, 6))
    assert out.dtype == torch.bfloat16 and all(t.dtype == torch.float32 for t in states(net))
    out.float().sum().backward()
    assert net[0].weight.grad is not None
    for module in network().half()[1:-1]:
        x = random(T, B, 6).half()
        spikes, (v,) = module(x, return_sequences=("v",))
        assert spikes.dtype == v.dtype == torch.float16 and module.v.dtype == torch.float32
        twin = type(module)()
        assert torch.equal(spikes.float(), twin(x.float())) and torch.equal(module.v, twin.v)


def test_wrong_sequences_are_named():
    for wrong in ("v", ("u",), ("v", "theta")):
        with pytest.raises(ValueError, match="return_sequences must be a sequence of names from v, got"):
            LIFNode()(random(T, B, C), return_sequences=wrong)


@pytest.mark.parametrize("step_mode", ("m", "s"))
def test_if_equals_spikingjelly(step_mode):
    """Inputs on a grid, on which sums are exact."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    x = torch.randint(-64, 96, (6, 2, 40), generator=torch.Generator().manual_seed(0)).double() / 64
    for v_reset in (0.0, -0.25, None):
        theirs = neuron.IFNode(0.75, v_reset, detach_reset=True, step_mode=step_mode)
        out = []
        for node in (theirs, IFNode(0.75, v_reset, theirs.surrogate_function, True, step_mode)):
            own = x.clone().requires_grad_()
            spikes = node(own) if step_mode == "m" else torch.stack([node(step) for step in own])
            (spikes * torch.linspace(-1, 1, 40)).sum().backward()
            out.append((spikes.detach(), node.v.detach(), own.grad))
        assert torch.equal(out[0][0], out[1][0]) and torch.equal(out[0][1], out[1][1])
        torch.testing.assert_close(out[1][2], out[0][2], rtol=1e-12, atol=1e-12)
    assert type(stdano.convert(nn.Sequential(theirs), "IF")[0]) is IFNode


def test_a_potential_that_is_set_has_thresholds_of_each_channel_beside_it():
    thresholds = torch.tensor([0.5, 1.0, 2.0])
    layer = stdano.LLIFNode(v_threshold=thresholds)
    layer.v = torch.zeros(2, 3, 4, 5)  # [B, C, H, W]
    assert torch.equal(layer.theta, thresholds.reshape(3, 1, 1).expand(2, 3, 4, 5))

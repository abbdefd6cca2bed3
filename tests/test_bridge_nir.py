"""to_nir and from_nir: round trips in all bits, what other libraries read and write, and what is refused."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import stdano
from stdano import ALIFNode, CubaLIFNode, IFNode, LIFNode, LLIFNode, ParametricLIFNode
from stdano.models import create_model, merged

nir = pytest.importorskip("nir", reason="nir is not installed")

NEURONS = {
    "exp": lambda: LIFNode(tau=2.5, v_reset=-0.1, surrogate_function="atan", alpha=3.0),
    "linear": lambda: LIFNode(tau=3.0, decay="linear", decay_input=True, v_threshold=0.4, detach_reset=True),
    "exp input": lambda: LIFNode(tau=1.3, decay_input=True, v_threshold=0.4),
    "soft": lambda: LIFNode(tau=3.7, v_reset=None),
    "learned": lambda: ParametricLIFNode(init_tau=3.3),
    "IF": lambda: IFNode(v_threshold=0.9),
    "no leak": lambda: LIFNode(tau=math.inf),
    "current": lambda: CubaLIFNode(tau=2.2, tau_syn=3.1, v_threshold=torch.linspace(0.5, 2, 6)),
    "channels": lambda: LIFNode(tau=nn.Parameter(torch.linspace(1.5, 9, 6)), v_threshold=torch.tensor(0.8)),
}


@pytest.mark.parametrize("name", NEURONS)
def test_there_and_back_in_all_bits(name, tmp_path):
    neuron = NEURONS[name]()
    net = nn.Sequential(nn.Linear(5, 6, bias=name != "exp"), neuron, nn.Linear(6, 4), LIFNode(tau=1.7, v_threshold=0.2))
    x = 3 * torch.randn(200, 3, 5)
    expected = net(x)
    stdano.reset_net(net)
    graph = stdano.to_nir(net, x, strict=name != "soft")
    nir.write(tmp_path / "net.nir", graph)
    for source in (graph, tmp_path / "net.nir", str(tmp_path / "net.nir")):
        back = stdano.from_nir(source)
        assert torch.equal(back(x), expected) and expected.sum() > 20
    assert list(stdano.to_nir(back, x, strict=name != "soft").nodes) == list(graph.nodes)
    for setting in ("surrogate_function", "alpha", "detach_reset", "v_reset"):
        assert getattr(back.layers["1"], setting) == getattr(neuron, setting)
    settings = dict(surrogate_function="sigmoid", detach_reset=True)
    other = stdano.from_nir(graph, **settings).layers["1"]
    assert other.surrogate_function == "sigmoid" and other.detach_reset and other.alpha == 1.0
    assert torch.equal(
        torch.as_tensor(other.tau if name != "IF" else 1.0), torch.as_tensor(getattr(back.layers["1"], "tau", 1.0))
    )


def test_the_fields_are_those_of_euler_steps():
    net = nn.Sequential(
        LIFNode(tau=4.0, decay="linear", v_reset=-0.5), LIFNode(tau=4.0), IFNode(), CubaLIFNode(tau=3.0)
    )
    nodes = stdano.to_nir(net, torch.randn(3, 2, 2), dt=1e-3).nodes
    assert list(nodes) == ["input", "0", "1", "2", "3", "output"]
    n = 1 / (1 - math.exp(-1 / 4))
    for name, field, value in [
        ("0", "tau", 4e-3), ("0", "r", 4.0), ("0", "v_leak", -0.5), ("0", "v_reset", -0.5), ("0", "v_threshold", 1.0),
        ("1", "tau", n * 1e-3), ("1", "r", n), ("2", "r", 1e3), ("3", "tau_mem", 1e-3 / (1 - math.exp(-1 / 3))),
        ("3", "tau_syn", 1e-3 / (1 - math.exp(-1 / 5))), ("3", "w_in", 1 / (1 - math.exp(-1 / 5))),
    ]:  # fmt: skip
        assert np.allclose(getattr(nodes[name], field), [value, value], rtol=1e-12), (name, field)


def euler(node, x, dt):
    """Spikes of a node by its equations, in float64."""
    v = np.broadcast_to(node.v_reset, x.shape[1:]).astype(float)
    current, out = np.zeros_like(v), []
    for step in x:
        if isinstance(node, nir.CubaLIF):
            current = current + dt / node.tau_syn * (node.w_in * step - current)
            v = v + dt / node.tau_mem * (node.v_leak - v + node.r * current)
        elif isinstance(node, nir.LIF):
            v = v + dt / node.tau * (node.v_leak - v + node.r * step)
        else:
            v = v + dt * node.r * step
        spikes = v >= node.v_threshold
        v = np.where(spikes, node.v_reset, v)
        out.append(spikes)
    return np.array(out, dtype=float)


@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
def test_graphs_of_others_do_euler_steps(kind):
    dt, shape = 2e-3, (3, 2)
    fields = {k: np.random.default_rng(0).uniform(0.5, 1.5, shape) for k in ("r", "v_threshold", "w_in", "tau")}
    reset = np.full(shape, 0.0 if kind == "CubaLIF" else -0.2)
    if kind == "IF":
        node = nir.IF(r=fields["r"] * 300, v_threshold=fields["v_threshold"], v_reset=reset)
    else:
        common = dict(r=fields["r"] * 3, v_leak=reset, v_threshold=fields["v_threshold"], v_reset=reset)
        tau = fields["tau"] * 20e-3
        if kind == "LIF":
            node = nir.LIF(tau=tau, **common)
        else:
            node = nir.CubaLIF(tau_mem=tau, tau_syn=2 * tau, w_in=fields["w_in"] * 4, **common)
    graph = nir.NIRGraph.from_list(nir.Input(np.array(shape)), node, nir.Output(np.array(shape)))
    x = 1 + 3 * torch.randn(300, 4, *shape, dtype=torch.float64)
    expected = euler(node, x.numpy(), dt)
    assert expected.sum() > 100
    actual = stdano.from_nir(graph, dt=dt).double()(x)
    assert np.mean(actual.numpy() != expected) < 1e-4  # constants are kept in float32


def test_fields_that_were_changed_count():
    net = nn.Sequential(LIFNode(tau=4.0))
    graph = stdano.to_nir(net, torch.randn(3, 2, 5))
    graph.nodes["0"].v_threshold = graph.nodes["0"].v_threshold * 2
    with pytest.warns(RuntimeWarning, match="node '0': its fields are not those of its metadata"):
        layer = stdano.from_nir(graph).layers["0"]
    assert layer.v_threshold == 2.0 and layer.decay == "linear"
    assert layer.tau == pytest.approx(1 / (1 - math.exp(-1 / 4)))
    graph.nodes["0"].metadata["stdano"] = {"neuron": "LIF"}
    with pytest.raises(ValueError, match="node '0' has metadata of stdano that cannot be read"):
        stdano.from_nir(graph)


class Residual(nn.Module):
    """Convolutions, norms in all places, a shortcut; T and B are merged around what knows no time."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.lif1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), LIFNode(v_threshold=0.3)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4)
        self.lif2 = CubaLIFNode(v_threshold=torch.tensor([0.3, 0.5, 0.7, 0.9]))
        self.pool, self.drop, self.fc = nn.AvgPool2d(2, divisor_override=1), nn.Dropout(0.5), nn.Linear(36, 5)

    def forward(self, x):
        y = self.lif1(merged(self.norm1, merged(self.conv1, x)))
        z = merged(lambda images: self.norm2(self.conv2(images) + images), y) + y
        z = merged(self.pool, self.lif2(z))
        return self.fc(self.drop(z).flatten(2))


def test_residual_networks_and_norms(tmp_path):
    net = Residual()
    x = 2 * torch.randn(20, 3, 2, 6, 6)
    net(x)  # moves the statistics
    with pytest.raises(ValueError, match="model must be in eval mode, but in training mode are norm1, norm2, drop"):
        stdano.to_nir(net, x)
    stdano.reset_net(net.eval())
    expected = net(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graph = stdano.to_nir(net, x)
    assert [type(n).__name__ for n in graph.nodes.values()] == [
        "Input", "Conv2d", "LIF", "Conv2d", "Conv2d", "CubaLIF", "SumPool2d", "Flatten", "Affine", "Output",
    ]  # fmt: skip
    nir.write(tmp_path / "net.nir", graph)
    back = stdano.from_nir(tmp_path / "net.nir")
    torch.testing.assert_close(back(x), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1 and back.layers["lif2"].v_threshold.shape == (4,)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(("name", "size"), [("vgg-small", 32), ("resnet18", 8)])
def test_models_of_stdano(name, size):
    net = create_model(name, width=0.25, size=size).eval()
    stdano.fuse(net)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var.fill_(0.1)
            m.bias.data.fill_(0.3)
    x = torch.randn(4, 2, 3, size, size)
    expected = net(x)
    back = stdano.from_nir(stdano.to_nir(net, x))
    torch.testing.assert_close(back(x), expected, rtol=1e-4, atol=1e-6)
    assert expected.abs().max() > 1e-3


def test_spikingjelly_reads_and_writes(tmp_path):
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange.from_nir")
    export = pytest.importorskip("spikingjelly.activation_based.nir_exchange.to_nir")
    from spikingjelly.activation_based import functional, layer, neuron

    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, step_mode="m"),
        neuron.LIFNode(tau=2.0, decay_input=False, step_mode="m"),
        layer.AvgPool2d(2, 2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(16, 6, step_mode="m"),
        neuron.IFNode(v_threshold=0.5, step_mode="m"),
        layer.Linear(6, 5, step_mode="m"),
        neuron.ParametricLIFNode(v_threshold=0.2, step_mode="m"),
    )
    x = 2 * torch.randn(50, 3, 2, 6, 6)
    expected = net(x)
    functional.reset_net(net)
    assert expected.sum() > 20
    assert torch.equal(stdano.from_nir(export.export_to_nir(net, x))(x), expected)
    functional.reset_net(net)
    ours = stdano.convert(net, {"LIF": "LIF", "ParametricLIF": "LIF", "IF": "IF"})
    nir.write(tmp_path / "ours.nir", stdano.to_nir(ours, x))
    theirs = exchange.import_from_nir(str(tmp_path / "ours.nir"), step_mode="m")
    assert torch.equal(theirs(x)[0], expected)


def test_snntorch_reads_and_writes():
    snn = pytest.importorskip("snntorch")
    read = pytest.importorskip("snntorch.import_nir").import_from_nir
    write = pytest.importorskip("snntorch.export_nir").export_to_nir
    ours = nn.Sequential(nn.Linear(8, 16), LIFNode(tau=2.0), nn.Linear(16, 5), LIFNode(tau=5.0, v_threshold=0.4))
    x = 3 * torch.randn(100, 4, 8)
    expected = ours(x)
    theirs, state, out = read(stdano.to_nir(ours, x)), None, []
    for step in x:
        spikes, state = theirs(step, state)
        out.append(spikes)
    assert expected.sum() > 20 and torch.equal(torch.stack(out).float(), expected)

    def leaky(n, beta):
        constants = dict(beta=torch.full((n,), beta), threshold=torch.full((n,), 0.8))
        return snn.Leaky(**constants, reset_mechanism="zero", reset_delay=False, init_hidden=True)

    theirs = nn.Sequential(nn.Linear(8, 16), leaky(16, 0.5), nn.Linear(16, 6), leaky(6, 0.8))
    expected = torch.stack([theirs(step) for step in x])
    for m in (theirs[1], theirs[3]):
        m.reset_mem()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = write(theirs, x[0], ignore_dims=[0])
    assert expected.sum() > 20 and torch.equal(stdano.from_nir(graph)(x), expected)


class Twice(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.lif, self.function = LIFNode(), function

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(LIFNode(v_reset=None)), "layer '0' .*instead of the soft reset. strict=False"),
        (lambda: nn.Sequential(LLIFNode()), r"layer '0' \(LLIFNode\).*NIR has IF, LIF and CubaLIF"),
        (lambda: nn.Sequential(ALIFNode()), r"layer '0' \(ALIFNode\).*NIR has IF, LIF and CubaLIF"),
        (lambda: nn.Sequential(stdano.SuperNeuron(6)).eval(), r"layer '0' \(SuperNeuron\).*NIR has IF"),
        (lambda: nn.Sequential(LIFNode(spike="soft")), "its spikes are soft"),
        (lambda: nn.Sequential(CubaLIFNode(tau=math.inf)), "tau is infinite"),
        (lambda: nn.Sequential(nn.ReLU()), r"layer '0' \(ReLU\) cannot be converted: NIR has no node for it"),
        (lambda: nn.Sequential(nn.LayerNorm(6)), "NIR has no node for it"),
        (lambda: nn.Sequential(LIFNode(step_mode="s")), 'step_mode "m"'),
        (lambda: nn.Sequential(nn.Flatten(0, 1), LIFNode()), r"it must get \[T, B, ...\]"),
        (lambda: Twice(lambda net, x: net.lif(net.lif(x))), "layer 'lif' .*runs twice"),
        (lambda: Twice(lambda net, x: net.lif(x) * 2), "the function mul has no counterpart in NIR"),
        (lambda: Twice(lambda net, x: net.lif(x + x)), "adds a value to itself"),
        (lambda: Twice(lambda net, x: net.lif(x) if x.sum() > 0 else x), "torch.fx cannot trace Twice"),
        (lambda: Twice(lambda net, x: (net.lif(x), x)), "must return one tensor"),
        (lambda: Twice(lambda net, x: net.lif(x).flatten(1)), r"flatten makes \[4, 18\] of \[4, 3, 6\]"),
    ],
)
def test_what_nir_cannot_say(model, message):
    with pytest.raises(ValueError, match=message):
        stdano.to_nir(model(), torch.randn(4, 3, 6))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(2, 4, 3, groups=2), "groups must be 1"),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), 'padding_mode must be "zeros"'),
        (nn.Conv2d(2, 4, (3, 1)), r"the package nir takes kernels to be square, got \[3, 1\]"),
        (nn.AvgPool2d(4, ceil_mode=True), "ceil_mode"),
        (nn.AdaptiveAvgPool2d(4), r"maps of \[6, 6\] do not divide into \[4, 4\]"),
        (nn.MaxPool2d(2), "NIR has no node for it"),
    ],
    ids=["groups", "circular", "oblong", "ceil", "adaptive", "max"],
)
def test_layers_that_nir_cannot_say(layer, message):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return merged(self.layer, x)

    with pytest.raises(ValueError, match=message):
        stdano.to_nir(Net(), torch.randn(4, 3, 2, 6, 6))


def graph_of(*nodes, edges=None):
    names = {
        "input": nir.Input(np.array([2])),
        **{f"n{i}": n for i, n in enumerate(nodes)},
        "output": nir.Output(np.array([2])),
    }
    chain = list(names)
    return nir.NIRGraph(names, edges or list(itertools.pairwise(chain)), type_check=False)


ONE = np.ones(2)
LIF = dict(tau=ONE * 2e-4, r=ONE, v_leak=ONE * 0, v_threshold=ONE)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: graph_of(nir.LI(tau=ONE, r=ONE, v_leak=ONE)), r"node 'n0' \(LI\) cannot be read: stdano has no layer"),
        (lambda: graph_of(nir.LIF(**{**LIF, "v_leak": ONE})), r"node 'n0' \(LIF\).*v_leak must equal v_reset"),
        (
            lambda: graph_of(nir.LIF(**{**LIF, "tau": ONE * 1e-4})),
            "constants must be above dt = 0.0001, got 0.0001",
        ),
        (lambda: graph_of(nir.LIF(**{**LIF, "r": -ONE})), "multiplied by a number above 0"),
        (lambda: graph_of(nir.IF(r=ONE * np.inf, v_threshold=ONE)), "r must be finite"),
        (lambda: graph_of(nir.LIF(**LIF), edges=[("input", "n0"), ("n0", "n0"), ("n0", "output")]), "no cycle, got n0"),
        (lambda: graph_of(nir.LIF(**LIF), edges=[("input", "output")]), r"node 'n0' \(LIF\) has no input"),
        (lambda: graph_of(nir.Input(ONE)), "graph must have one Input, got 2"),
        (lambda: graph_of(nir.LIF(**LIF), edges=[("input", "there")]), "'there' must join nodes"),
    ],
    ids=["LI", "leak", "tau", "negative", "infinite", "cycle", "no input", "two inputs", "edge"],
)
def test_graphs_that_stdano_cannot_read(graph, message):
    with pytest.raises(ValueError, match=message):
        stdano.from_nir(graph())


def test_arguments():
    x = torch.randn(4, 3, 6)
    for dt in (0.0, -1.0, math.inf, True, "1"):
        with pytest.raises(ValueError, match="dt must be a finite number of seconds above 0"):
            stdano.to_nir(LIFNode(), x, dt=dt)
    with pytest.raises(ValueError, match=r"example_input must be a tensor \[T, B, ...\], got \[3, 6\]"):
        stdano.to_nir(nn.Sequential(LIFNode()), x[0])
    with pytest.raises(TypeError, match="graph must be an nir.NIRGraph or the path of a file, got LIF"):
        stdano.from_nir(nir.LIF(**LIF))


def test_a_layer_by_itself_and_a_graph_in_a_graph():
    x = 2 * torch.randn(20, 3, 2)
    inner = stdano.to_nir(LIFNode(tau=3.0), x)
    assert [type(n).__name__ for n in inner.nodes.values()] == ["Input", "LIF", "Output"]
    back = stdano.from_nir(graph_of(inner))
    assert torch.equal(back(x), LIFNode(tau=3.0)(x))

"""to_nir and from_nir: round trips in all bits, what other libraries read and write, and what is refused."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import stdano
from stdano import CubaLIFNode, IFNode, LIFNode, ParametricLIFNode
from stdano.models import create_model, merged

nir = pytest.importorskip("nir", reason="nir is not installed")

NEURONS = {
    "exp": lambda: LIFNode(tau=2.5, v_reset=-0.1, surrogate_function="atan", alpha=3.0),
    "linear": lambda: LIFNode(tau=3.0, decay="linear", decay_input=True, v_threshold=0.4, detach_reset=True),
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
    for constant in ("tau", "v_threshold"):
        values = [torch.as_tensor(getattr(layer, constant, 0.0)) for layer in (other, back.layers["1"])]
        assert torch.equal(*values)


def test_the_fields_are_those_of_euler_steps():
    linear = LIFNode(tau=4.0, decay="linear", v_reset=-0.5)
    net = nn.Sequential(linear, LIFNode(tau=4.0), IFNode(), CubaLIFNode(tau=3.0), LIFNode(tau=2.0, decay_input=True))
    nodes = stdano.to_nir(net, torch.randn(3, 2, 2), dt=1e-3).nodes
    assert list(nodes) == ["input", "0", "1", "2", "3", "4", "output"]
    n = 1 / (1 - math.exp(-1 / 4))
    for name, field, value in [
        ("0", "tau", 4e-3), ("0", "r", 4.0), ("0", "v_leak", -0.5), ("0", "v_reset", -0.5), ("0", "v_threshold", 1.0),
        ("1", "tau", n * 1e-3), ("1", "r", n), ("2", "r", 1e3), ("3", "tau_mem", 1e-3 / (1 - math.exp(-1 / 3))),
        ("4", "tau", 1e-3 / (1 - math.exp(-1 / 2))), ("4", "r", 0.5 / (1 - math.exp(-1 / 2))),
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
    ours = stdano.from_spikingjelly(net)
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

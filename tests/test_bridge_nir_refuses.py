"""to_nir and from_nir: what NIR cannot say, graphs that stdano cannot read, wrong arguments."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import stdano
from stdano import ALIFNode, CubaLIFNode, LIFNode, LLIFNode
from stdano.models import merged

nir = pytest.importorskip("nir", reason="nir is not installed")


def under_two_names(net, x):
    y = net.lif(x)
    z = y
    y += x
    return z


def not_taken(net, x):
    y = net.lif(x)
    y.add_(x)
    return y


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
        (
            lambda: Twice(lambda net, x: net.lif(torch.add(x, net.lif(x), alpha=2))),
            "the function add has no counterpart",
        ),
        (lambda: Twice(under_two_names), "model must give what torch.fx traces of it"),
        (lambda: Twice(not_taken), "must not read lif again after add_ has overwritten it"),
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
    for model, example in ((nn.Linear(6, 2).double(), x), (LIFNode(), x.bfloat16())):
        with pytest.raises(
            ValueError, match=r"model and example_input must be float32, .* got torch\.(float64|bfloat16)"
        ):
            stdano.to_nir(model, example)
    hooked = nn.Sequential(nn.Linear(6, 2))
    hooked[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    with pytest.raises(ValueError, match=r"no forward hooks, .* layer '0' \(Linear\)"):
        stdano.to_nir(hooked, x)
    with pytest.raises(TypeError, match="graph must be an nir.NIRGraph or the path of a file, got LIF"):
        stdano.from_nir(nir.LIF(**LIF))


def test_a_layer_by_itself_and_a_graph_in_a_graph():
    x = 2 * torch.randn(20, 3, 2)
    inner = stdano.to_nir(LIFNode(tau=3.0), x)
    assert [type(n).__name__ for n in inner.nodes.values()] == ["Input", "LIF", "Output"]
    back = stdano.from_nir(graph_of(inner))
    assert torch.equal(back(x), LIFNode(tau=3.0)(x))


def test_a_layer_whose_output_nobody_takes_is_left_out():
    net = Twice(lambda net, x: (net.unused(x), net.lif(x))[1])
    net.unused = nn.Linear(2, 3)
    graph = stdano.to_nir(net, torch.randn(4, 3, 2))
    assert list(graph.nodes) == ["input", "lif", "output"]


def test_settings_override_what_the_file_says():
    kinds = [nir.LIF(**LIF), nir.IF(**{k: LIF[k] for k in ("r", "v_threshold")})]
    layers = stdano.from_nir(graph_of(*kinds), v_threshold=0.5, v_reset=None).layers
    assert [(layer.v_threshold, layer.v_reset) for layer in layers.values()] == [(0.5, None)] * 2


@pytest.mark.parametrize("name", ["training", "", "a.b", "keys"])
def test_nodes_of_any_name(name):
    nodes = {"input": nir.Input(np.array([2])), name: nir.LIF(**LIF), "output": nir.Output(np.array([2]))}
    model = stdano.from_nir(nir.NIRGraph(nodes, [("input", name), (name, "output")]))
    assert model(torch.ones(4, 3, 2)).shape == (4, 3, 2)

"""convert() on plain modules: what is replaced, what is inherited, and errors."""

import pytest
import torch
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode, SLIFNode


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 4), LIFNode(tau=1.5, alpha=2.0), nn.Sequential(nn.Linear(4, 4), LLIFNode(gamma=0.3))
    )


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.a = LIFNode(), LIFNode()

    def forward(self, x):
        x = self.a(x)
        return self.b(x) if x.sum() >= 0 else x


def test_one_name_for_all_layers():
    net = stdano.convert(network(), "SLIF", beta=0.2)
    assert isinstance(net[1], SLIFNode) and isinstance(net[2][1], SLIFNode)
    assert net[1].tau == 1.5 and net[1].alpha == 2.0 and net[1].beta == 0.2
    assert net[1].v_reset is None  # SLIF's own reset


def test_settings_are_inherited_and_overridden():
    net = stdano.convert(network(), "LLIF", tau=3.0)
    assert net[1].tau == 3.0 and net[1].v_reset == 0.0
    assert net[2][1].gamma == 0.3  # LLIF before and after


def test_mapping_leaves_other_kinds():
    net = network()
    llif = net[2][1]
    stdano.convert(net, {"LIFNode": lambda old: SLIFNode(tau=old.tau)})
    assert isinstance(net[1], SLIFNode) and net[1].tau == 1.5
    assert net[2][1] is llif


def test_a_shared_layer_stays_shared():
    shared = LIFNode()
    net = stdano.convert(nn.Sequential(shared, nn.Linear(3, 3), shared), "1")
    assert isinstance(net[0], LLIFNode) and net[0] is net[2]


def test_a_single_layer_is_returned():
    assert isinstance(stdano.convert(LIFNode(), "LLIF"), LLIFNode)
    assert isinstance(stdano.convert(LIFNode(), "2"), SLIFNode)


def test_learned_constants_move_over():
    tau = nn.Parameter(torch.tensor(2.0))
    assert stdano.convert(nn.Sequential(LIFNode(tau=tau)), "LLIF")[0].tau is tau


def test_training_mode_is_kept():
    assert not stdano.convert(network().eval(), "LIF")[1].training


def test_example_input_tells_an_untraceable_order():
    with pytest.raises(ValueError, match=r"example_input must be given: torch.fx cannot trace Untraceable"):
        stdano.convert(Untraceable(), "12")
    net = stdano.convert(Untraceable(), "12", example_input=torch.ones(2, 3, 4))
    assert isinstance(net.a, LLIFNode) and isinstance(net.b, SLIFNode)
    assert net.a.v == 0.0  # the example left no state


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ("01", None),
        ("012", r"one for each of 2 spiking layers, 1, 2\.1; got 3, '012'"),
        ("03", r"neurons must be one of LIF, LLIF, SLIF, .*got '03'"),
        ("", r"got ''"),
        ("lif", r"got 'lif'"),
        ({"IF": "LIF"}, r"kinds that the model has, \['LIF', 'LIFNode', 'LLIF', 'LLIFNode'\]; got \['IF'\]"),
        ({"LIF": "ELIF"}, r"neurons must be one of LIF, LLIF, SLIF, .*, got 'ELIF'"),
        (7, r"neurons must be one of LIF, LLIF, SLIF, .* or a function, got 7"),
    ],
    ids=str,
)
def test_wrong_configurations(neurons, message):
    net = network()
    before = list(net.modules())
    if message is None:
        stdano.convert(net, neurons)
        return
    with pytest.raises(ValueError, match=message):
        stdano.convert(net, neurons)
    assert list(net.modules()) == before


def test_a_model_without_spiking_layers():
    with pytest.raises(ValueError, match="model must have spiking layers of stdano or SpikingJelly, Linear has none"):
        stdano.convert(nn.Linear(2, 2), "LIF")

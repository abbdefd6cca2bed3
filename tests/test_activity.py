"""How active a network is: rates, steps, silent neurons; on any mix of nodes, and as if nothing had happened."""

import math

import pytest
import torch
from torch import nn

import stdano
from stdano import IntegerLIFNode, LIFNode, LLIFNode, SLIFNode, SuperNeuron
from stdano.analysis import activity
from stdano.models import create_model
from stdano.training.activity import SpikeCounter

SETTINGS = dict(tau=1.5, v_threshold=0.6)


class Steps(nn.Module):
    """Calls layers in mode "s" once a time step, and defines them in another order than it runs them."""

    def __init__(self, last, first):
        super().__init__()
        self.last, self.first = last, first
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        return torch.stack([self.last(self.linear(self.first(step))) for step in x])


def batches(count=2, steps=4, samples=3, features=6):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(steps, samples, features, generator=generator) for _ in range(count)]


def check(layer, spikes, samples):
    """A layer's activity against its spikes ``[T, B, ...]``."""
    assert layer.shape == tuple(spikes.shape[2:])
    assert layer.rate == pytest.approx(spikes.mean().item(), rel=1e-6)
    assert layer.rates == pytest.approx(spikes.flatten(1).mean(1).tolist(), rel=1e-6)
    assert layer.spikes * samples == pytest.approx(spikes.sum().item())
    assert layer.updates * samples == spikes.numel()
    assert layer.zeros == pytest.approx((spikes == 0).double().mean().item())
    assert layer.silent == pytest.approx(1 - (spikes != 0).flatten(0, 1).any(0).double().mean().item())


def test_all_steps_at_once():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), LLIFNode(**SETTINGS), nn.Linear(40, 8), SLIFNode(**SETTINGS))
    xs = [*batches(), batches(1, samples=2)[0]]  # the last batch is smaller
    found = activity(net, [(x, "labels") for x in xs])
    assert found.samples == 8 and found.neurons == ["LLIF", "SLIF"] and list(found.rates) == ["1", "3"]
    with stdano.stateless(net):
        first = torch.cat([net[1](net[0](x)) for x in xs], 1)
        second = net[3](net[2](first))
    check(found.layers[0], first, 8)
    check(found.layers[1], second, 8)
    assert 0 < found.layers[0].silent < 1 and len(set(found.layers[0].rates)) == 4
    assert found.spikes * 8 == pytest.approx(first.sum().item() + second.sum().item())
    assert found.rate == pytest.approx(torch.cat((first.flatten(), second.flatten())).mean().item())
    counter = SpikeCounter(net.eval())
    for x in xs:
        with counter, stdano.stateless(net):
            net(x)
    assert counter.rates() == pytest.approx(found.rates) and counter.rate == pytest.approx(found.rate)


def test_step_by_step_is_the_same_as_at_once():
    torch.manual_seed(0)
    steps = Steps(LIFNode(**SETTINGS, step_mode="s"), LLIFNode(**SETTINGS, step_mode="s"))
    once = nn.Sequential(LLIFNode(**SETTINGS), steps.linear, LIFNode(**SETTINGS))
    found, expected = activity(steps, batches()), activity(once, batches())
    assert [layer.name for layer in found.layers] == ["first", "last"]  # as they run
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert vars(one) | {"name": ""} == vars(other) | {"name": ""}


def test_a_model_of_single_steps():
    net = nn.Sequential(nn.Linear(6, 5), LIFNode(**SETTINGS, step_mode="s"))
    found = activity(net, batches(), forward=lambda x: [net(step) for step in x])
    assert len(found.layers[0].rates) == 4 and found.samples == 6


@pytest.mark.parametrize("mode", ["s", "m"])
def test_spikingjellys_nodes(mode):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    lif = neuron.LIFNode(tau=2.0, v_threshold=0.6, step_mode=mode)
    linear = nn.Linear(6, 5)
    net = nn.Sequential(linear, lif) if mode == "m" else Steps(nn.Identity(), nn.Sequential(linear, lif))
    if mode == "s":
        net.linear = nn.Identity()
    ours = nn.Sequential(linear, LIFNode(tau=2.0, v_threshold=0.6, decay="linear", decay_input=True))
    net(batches()[0])
    lif.v = before = torch.full((3, 5), 0.25)
    (found,), (expected,) = activity(net, batches()).layers, activity(ours, batches()).layers
    assert 0 < found.rate < 1
    assert vars(found) | {"name": ""} == vars(expected) | {"name": ""}
    assert lif.v is before


def test_several_spikes_a_step():
    found = activity(nn.Sequential(IntegerLIFNode()), [4 * x for x in batches()])
    assert found.rate > 1 - found.layers[0].zeros
    spikes = torch.cat([IntegerLIFNode()(4 * x) for x in batches()], 1)
    check(found.layers[0], spikes, 6)


def test_a_super_neuron_counts_what_its_candidates_fire():
    torch.manual_seed(0)
    layer = SuperNeuron(6, v_threshold=0.6)
    (found,) = activity(layer, batches()).layers
    shares = layer.weights().tolist()
    fired = [torch.cat([layer.node(name)(x) for x in batches()], 1) for name in layer.neurons]
    mixed = sum(share * spikes for share, spikes in zip(shares, fired, strict=True))
    assert found.neuron == "SuperNeuron"
    assert found.rate == pytest.approx(mixed.mean().item(), rel=1e-6)
    assert found.rates == pytest.approx(mixed.flatten(1).mean(1).tolist(), rel=1e-6)
    zeros = [(spikes == 0).double().mean().item() for spikes in fired]
    assert found.zeros == pytest.approx(sum(map(math.prod, zip(shares, zeros, strict=True))))


def test_nothing_has_happened():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Dropout(), LLIFNode(**SETTINGS, store_v_seq=True), nn.BatchNorm1d(5))
    net[3].eval()
    x = torch.randn(4, 5, 6)
    net[2](net[0](x))
    v, theta, v_seq = net[2].v, net[2].theta, net[2].v_seq
    statistics = net[3].running_mean.clone()

    def flags():
        return [module.training for module in net.modules()]

    before = flags()
    found = activity(net[:3], batches(samples=5))
    assert found.samples == 10 and found == activity(net[::2], batches(samples=5))  # without dropout
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        activity(net, batches(features=7))
    assert flags() == before == [True, True, True, True, False]
    assert net[2].v is v and net[2].theta is theta and torch.equal(net[2].v_seq, v_seq)
    assert torch.equal(net[3].running_mean, statistics)
    assert not any(module._forward_hooks for module in net.modules())


def test_every_batch_begins_at_rest():
    net = nn.Sequential(LIFNode(v_threshold=1.5, tau=100.0))
    x = torch.ones(1, 1, 1)
    assert activity(net, [x, x]).spikes == 0
    assert activity(net, [torch.cat((x, x))]).spikes == 1


def test_a_compiled_model_is_counted_too():
    net = nn.Sequential(nn.Linear(6, 5), LIFNode(**SETTINGS)).eval()
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled(batches()[0])  # before there are hooks
    stdano.reset_net(net)
    assert activity(compiled, batches()).spikes == activity(net, batches()).spikes > 0


def test_fused_is_the_same():
    torch.manual_seed(0)
    net = create_model("vgg-small", "LLIF", T=3, width=0.1, size=8, in_channels=1, **SETTINGS)
    x = torch.randn(4, 1, 8, 8)
    net(x)
    expected = activity(net, [x])
    assert stdano.fuse(net).fused
    assert activity(net, [x]) == expected and len(expected.layers) == 4
    assert all(len(layer.rates) == 3 for layer in expected.layers) and expected.samples == 4


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.zeros(4, 3, 6), TypeError, r"batches must be an iterable of batches, got a tensor; give \[x\]"),
        ([], ValueError, "batches must be one or more, got none"),
        (["x"], TypeError, "batches must be tensors, or tuples that begin with one, got str"),
        ([torch.zeros(4, 3, 6), torch.zeros(4, 3, 7)], ValueError, r"layer 0 the same shape each, got \(6,\) and then"),
    ],
)
def test_wrong_batches(given, error, message):
    net = nn.Sequential(LIFNode())
    with pytest.raises(error, match=message):
        activity(net, given)
    assert not net[0]._forward_hooks


def test_no_spiking_layers():
    with pytest.raises(ValueError, match="model must have spiking layers of stdano or SpikingJelly, Linear has none"):
        activity(nn.Linear(2, 2), batches())
    net = nn.Sequential(LIFNode())
    with pytest.raises(ValueError, match="batches must go through the spiking layers 0, but none of them ran"):
        activity(net, batches(), forward=lambda x: x)

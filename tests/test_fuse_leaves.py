"""What fuse() and fuse_conv_bn() do not understand stays as it is, with the reason, and computes what it did."""

import copy

import pytest
import torch
from fuse_common import B, T
from torch import nn
from torch.nn.utils import parametrize, prune

import stdano
from stdano import BatchNormNeuron, LIFNode, SLIFNode


class Gain(LIFNode):
    """A neuron with a gain on its input."""

    def forward(self, x):
        return super().forward(3 * x)


def block(neuron=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), neuron or LIFNode(step_mode="s"))


def patched(module, factor):
    old = module.forward
    module.forward = lambda x: old(factor * x)


def halved(module, grad_input, grad_output):
    return (grad_input[0] * 0.5,)


CHANGES = {
    "subclass": (None, "is a subclass of LIFNode, which may do something else"),
    "norm's forward": (lambda net: patched(net[1], 2), "has a forward of its own"),
    "neuron's forward": (lambda net: patched(net[2], 2), "has a forward of its own"),
    "norm's hook": (lambda net: net[1].register_forward_hook(lambda m, i, o: 2 * o), "has hooks"),
    "neuron's pre-hook": (lambda net: net[2].register_forward_pre_hook(lambda m, i: None), "has hooks"),
    "neuron's hook": (lambda net: net[2].register_forward_hook(lambda m, i, o: i[0] * o), "has hooks"),
    "neuron's backward hook": (lambda net: net[2].register_full_backward_hook(halved), "has hooks"),
    "neuron's backward pre-hook": (
        lambda net: net[2].register_full_backward_pre_hook(lambda m, g: (g[0] * 0.5,)),
        "has hooks",
    ),
    "pruned norm": (lambda net: prune.random_unstructured(net[1], "weight", 0.5), "has hooks"),
}


def results(net, x):
    y = net(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in net.parameters()), *net.buffers()]


@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_norm_or_neuron_is_left(name, by_run):
    change, reason = CHANGES[name]
    pair, x = [], torch.randn(3, 2, 6, 6)
    for _ in range(2):
        net = block(Gain(step_mode="s") if change is None else None)
        if change is not None:
            change(net)
        pair.append(net)
    report = stdano.fuse(pair[0], x if by_run else None)
    assert not report.fused and reason in dict(report.left)["1"], report
    assert all(torch.equal(a, b) for a, b in zip(results(pair[0], x), results(pair[1], x), strict=True))


def test_a_parametrized_norm_is_left():
    net = block()
    parametrize.register_parametrization(net[1], "weight", nn.Softplus())
    assert not stdano.fuse(net).fused


def test_a_patched_forward_survives_unfuse():
    net = block()
    patched(net[1], 2)
    own = net[1].forward
    stdano.unfuse(net)
    assert net[1].forward is own
    net, x = block(), torch.randn(3, 2, 6, 6)
    twin = copy.deepcopy(net)
    stdano.fuse(net)
    patched(net[2], 1)
    assert torch.equal(stdano.unfuse(net)(x), twin(x)) and net[2]._link is None


def test_a_neuron_of_another_class_runs_behind_the_norm_of_its_module():
    module = BatchNormNeuron(4, Gain())
    assert module[1]._link is None and not stdano.fuse(nn.Sequential(module)).fused
    x = torch.randn(T, B, 4, 3, 3)
    expected = Gain()(nn.BatchNorm2d(4)(x.flatten(0, 1)).unflatten(0, (T, B)))
    assert torch.equal(module(x), expected)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.neuron = nn.BatchNorm1d(4), LIFNode(step_mode="s")

    def forward(self, x):
        first, second = self.norm(x), self.norm(x + 1)
        return self.neuron(first), self.neuron(second)


class Keeping(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.neuron, self.kept = nn.BatchNorm1d(4), SLIFNode(step_mode="s"), {}

    def forward(self, x):
        self.current = self.norm(x).unflatten(0, x.shape[:1])
        self.kept["current"] = [self.current]
        return self.neuron(self.current)


@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
@pytest.mark.parametrize(
    ("build", "reason"),
    [(Siamese, "it runs again before neuron (LIFNode)"), (Keeping, "the attribute current")],
    ids=("two norms in a row", "kept by an attribute"),
)
def test_calls_that_fusing_would_change(build, reason, by_run):
    net, x = build(), torch.randn(5, 4)
    report = stdano.fuse(net, x if by_run else None)
    assert not report.fused and reason in dict(report.left)["norm"], report
    net(x)


def test_tracing_leaves_no_symbols_in_attributes():
    net = Keeping()
    stdano.fuse(net)
    assert not hasattr(net, "current")
    copy.deepcopy(net)


@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
@pytest.mark.parametrize(
    ("step_mode", "tau"),
    [("s", 1.5), ("m", 1.5), ("m", torch.linspace(1.2, 3.0, 64))],
    ids=("s", "m", "a tau of each channel"),
)
def test_channels_merged_with_space_between_the_two(by_run, step_mode, tau):
    torch.manual_seed(0)
    between = [nn.Flatten()] if step_mode == "s" else [nn.Unflatten(0, (3, 2)), nn.Flatten(2)]
    neuron = LIFNode(tau, step_mode=step_mode)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), *between, neuron, nn.Linear(64, 5)).double()
    twin, x = copy.deepcopy(net), torch.randn(6, 2, 6, 6).double()
    assert len(stdano.fuse(net, x if by_run else None).fused) == 1
    for _ in range(2):
        torch.testing.assert_close(results(net, x), results(twin, x))
        torch.testing.assert_close(net[-2].v, twin[-2].v)
        net[-2].detach(), twin[-2].detach()


def test_an_example_shows_what_becomes_of_the_channels():
    net = nn.Sequential(nn.BatchNorm2d(4), nn.Unflatten(1, (2, 2)), LIFNode())
    x = torch.randn(3, 4, 5, 5)
    assert "becomes [3, 2, 2, 5, 5]" in dict(stdano.fuse(net, x).left)["0"]
    net(x)


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.neuron = nn.Linear(4, 4), nn.BatchNorm1d(4), LIFNode()

    def forward(self, x):
        y = self.norm(input=self.conv(input=torch.flatten(input=x, start_dim=0, end_dim=1)))
        return self.neuron(x=torch.unflatten(input=y, dim=0, sizes=x.shape[:2]))


@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
def test_calls_by_keyword(by_run):
    net, x = Keywords().double(), torch.randn(T, B, 4).double()
    twin = copy.deepcopy(net)
    assert stdano.fuse(net, x if by_run else None).fused == [("norm", "neuron")]
    torch.testing.assert_close(net(x), twin(x))
    net.eval()
    stdano.reset_net(net)
    torch.testing.assert_close(stdano.fuse_conv_bn(net)(x), net(x))


def test_a_reshape_by_keyword_is_seen():
    class Net(Keywords):
        def forward(self, x):
            y = self.norm(x.flatten(0, 1))
            return self.neuron(torch.unflatten(y, 0, x.shape[:2])), torch.flatten(input=y)

    for example in (None, torch.randn(T, B, 4)):
        assert "has 2 uses" in dict(stdano.fuse(Net(), example).left)["norm"]


# --- fuse_conv_bn ---


class Standardised(nn.Conv2d):
    """Computes its weight, like SpikingJelly's WSConv2d."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


LAYERS = {
    "subclass": lambda conv: Standardised(2, 4, 3),
    "pruned": lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
    "weight norm": lambda conv: nn.utils.parametrizations.weight_norm(conv),
    "old spectral norm": lambda conv: nn.utils.spectral_norm(conv),
    "patched": lambda conv: (patched(conv, 2), conv)[1],
    "hook": lambda conv: (conv.register_forward_hook(lambda m, i, o: 2 * o), conv)[1],
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_compute_their_weight_are_not_folded(name):
    net = block()
    net[0] = LAYERS[name](net[0])
    x = torch.randn(3, 2, 6, 6)
    with torch.no_grad():
        net(x)
    net.eval()
    folded = stdano.fuse_conv_bn(net)
    assert isinstance(folded[1], nn.BatchNorm2d)
    with torch.no_grad():
        assert torch.equal(folded[:2](x), net[:2](x))


def test_a_norm_in_a_plain_list_is_not_folded():
    net = block().eval()
    net.tail = [net[1]]
    assert isinstance(stdano.fuse_conv_bn(net)[1], nn.BatchNorm2d)
    del net.tail
    assert isinstance(stdano.fuse_conv_bn(net)[1], nn.Identity)

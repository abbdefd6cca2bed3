"""stdano.stateless: calls that begin at rest and leave no state, whatever is around the neuron."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import LIFNode, LLIFNode, SLIFNode
from stdano_kernels import functional

T, B, C = 5, 3, 4


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, C, 3), nn.BatchNorm2d(C), nn.Unflatten(0, (T, B)), LLIFNode(1.5), nn.Flatten(0, 1),
        nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.Unflatten(0, (T, B)), SLIFNode(), LIFNode(),
    )  # fmt: skip
    stdano.fuse(net)
    return net


def step(net, x, run):
    y = run(net, x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), *[p.grad for p in net.parameters()]]


def plain(net, x):
    stdano.reset_net(net)
    return net(x)


def within(net, x):
    with stdano.stateless(net):
        return net(x)


def checkpointed(net, x):
    with stdano.stateless(net):
        return checkpoint(net, x, use_reentrant=False)


def after_a_carried_state(net, x):
    net(x + 1)
    return within(net, x)


@pytest.mark.parametrize("run", (within, checkpointed, after_a_carried_state))
def test_as_behind_a_reset(run):
    """Outputs and gradients of a call behind reset_net. Not the norms' statistics, which other calls move."""
    x, net = torch.randn(T * B, 2, 8, 8), network()
    twin = copy.deepcopy(net)
    for ours, theirs in zip(step(net, x, run), step(twin, x, plain), strict=True):
        assert torch.equal(ours, theirs)


def test_no_state_is_asked_for_or_kept(monkeypatch):
    asked, call = [], functional.registration.call
    monkeypatch.setattr(functional.registration, "call", lambda *a: (asked.append(a[7]), call(*a))[1])
    net, x = nn.Sequential(LIFNode(), LLIFNode()), torch.randn(T, B, C)
    within(net, x)
    assert asked == [False, False] and net[0].v == 0.0 and net[1].theta == 1.0
    net(x)
    assert asked[2:] == [True, True] and net[0].v.shape == (B, C)
    first = within(net, x)
    stdano.reset_net(net)
    assert torch.equal(net(x), first)


def test_it_ends_where_it_should():
    net, x = nn.Sequential(LIFNode()), torch.randn(T, B, C)
    with pytest.raises(RuntimeError, match="from here"), stdano.stateless(net):
        raise RuntimeError("from here")
    with stdano.stateless(net):
        with stdano.stateless(net):
            pass
        net(x)
        assert net[0].v == 0.0
        values = net[0](x, return_sequences=("v",))[1][0]
    assert values.shape == x.shape and net[0].v == 0.0
    net(x)
    assert torch.equal(net[0].v, values[-1])


def test_a_single_step_is_refused():
    node = LIFNode(step_mode="s")
    with stdano.stateless(node), pytest.raises(ValueError, match=r'step_mode must be "m" in stdano.stateless, .* "s"'):
        node(torch.randn(B, C))


def test_compiled():
    net, x = nn.Sequential(LIFNode(), LLIFNode()), torch.randn(T, B, C)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.equal(within(compiled, x), within(net, x)) and net[0].v == 0.0
    first, second = compiled(x), compiled(x)
    assert torch.equal(first, plain(net, x)) and torch.equal(second, net(x))

"""Calls in which a fused pair could be noticed are computed apart; what cannot be told raises."""

import copy
import pickle

import pytest
import torch
from fuse_common import B, T, assert_equal, everything, make
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import BatchNormNeuron, LIFNode
from stdano.nodes.link import reads_output_alone


def block():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), LIFNode(step_mode="s"))


def results(net, x, forward=None):
    y = (forward or net)(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in net.parameters()), *net.buffers(), net[-1].v.detach()]


def double_norm(net):
    return net[-2].register_forward_hook(lambda m, i, o: 2 * o)


HOOKS = {
    "norm's forward hook": double_norm,
    "norm's backward hook": lambda net: net[-2].register_full_backward_hook(lambda m, gi, go: (gi[0] * 0.5,)),
    "neuron's pre-hook": lambda net: net[-1].register_forward_pre_hook(lambda m, i: (2 * i[0],)),
    "neuron's forward hook": lambda net: net[-1].register_forward_hook(lambda m, i, o: o * i[0]),
    "neuron's backward hook": lambda net: net[-1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 0.5,)),
    "global hook": lambda net: nn.modules.module.register_module_forward_hook(
        lambda m, i, o: 2 * o if isinstance(m, nn.BatchNorm2d) else None
    ),
}


@pytest.mark.parametrize("recomputed", (False, True), ids=("plain", "checkpointed"))
@pytest.mark.parametrize("name", HOOKS)
def test_hooks_set_after_fuse_see_what_they_would_see_apart(name, recomputed):
    pair, x = (block(), block()), torch.randn(3, 2, 6, 6)
    stdano.fuse(pair[0])
    out = []
    for net in pair:
        handle = HOOKS[name](net)
        try:
            again = (lambda x, net=net: checkpoint(net, x, use_reentrant=False)) if recomputed else None
            out.append(results(net, x, again))
        finally:
            handle.remove()
    # running statistics: torch's own norm moves twice under checkpointing, a fused one once
    keep = slice(0, 1 + len(list(pair[0].parameters()))) if recomputed else slice(None)
    assert all(torch.equal(a, b) for a, b in zip(out[0][keep], out[1][keep], strict=True))
    assert pair[0][-1]._link is not None
    stdano.reset_net(pair[0])
    assert pair[0][:2](x).equal(pair[0][0](x))  # fused again


def test_hooks_on_a_norm_of_batchnormneuron():
    module, x = BatchNormNeuron(4, "LIF"), torch.randn(T, B, 4, 5, 5)
    seen = []
    module[0].register_forward_hook(lambda m, i, o: seen.append(o))
    module(x)
    expected = nn.BatchNorm2d(4)(x.flatten(0, 1)).unflatten(0, (T, B))
    assert torch.equal(seen[0], expected)


def test_a_hook_that_removes_itself():
    net, x = block(), torch.randn(3, 2, 6, 6)
    twin = copy.deepcopy(net)
    stdano.fuse(net)
    handle = net[2].register_forward_pre_hook(lambda m, i: handle.remove())
    assert torch.equal(net(x), twin(x))
    stdano.reset_net(net), stdano.reset_net(twin)
    torch.testing.assert_close(net(x), twin(x))


def test_a_hook_that_reads_the_output_alone_changes_nothing():
    net, x = block(), torch.randn(3, 2, 6, 6)
    stdano.fuse(net)
    fused = net[:2](x)
    net[2].reset()
    net[2].register_forward_hook(reads_output_alone(lambda m, i, o: None))
    assert torch.equal(net[:2](x), fused)


@pytest.mark.parametrize("place", (1, 2), ids=("norm", "neuron"))
def test_a_forward_around_the_fused_one(place):
    net, x = block(), torch.randn(3, 2, 6, 6)
    twin = copy.deepcopy(net)
    stdano.fuse(net)
    for model in (net, twin):
        old = model[place].forward
        model[place].forward = lambda x, old=old: old(2 * x)
    assert torch.equal(net(x), twin(x))
    stdano.unfuse(net)
    stdano.reset_net(net), stdano.reset_net(twin)
    assert torch.equal(net(x), twin(x))


class InPlace(nn.Module):
    """Changes the norm's input before the neuron runs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.neuron = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), LIFNode(step_mode="s")

    def changed(self, x):
        x += 1
        return x

    def forward(self, x):
        x = self.conv(x)
        y = self.norm(x)
        x = self.changed(x)
        return self.neuron(y) + 0 * x


class OutOfPlace(InPlace):
    """The same, as torch can differentiate it without compiling."""

    def changed(self, x):
        return x + 1


def test_a_change_in_place_under_inference_mode():
    net, twin, x = InPlace().eval(), InPlace().eval(), torch.randn(3, 2, 6, 6)
    stdano.fuse(net)
    with torch.inference_mode():
        assert torch.equal(net(x), twin(x))
        assert net.neuron.v.equal(twin.neuron.v)
    stdano.reset_net(net)
    with torch.no_grad(), pytest.raises(RuntimeError, match="BatchNorm2d was changed in place before the neuron"):
        net(x)


@pytest.mark.slow
@pytest.mark.parametrize("training", (False, True), ids=("eval", "train"))
def test_a_change_in_place_under_compile(training):
    net, twin, x = InPlace().train(training), OutOfPlace().train(training), torch.randn(3, 2, 6, 6)
    assert stdano.fuse(net).fused
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    expected, actual = twin(x), compiled(x)
    torch.testing.assert_close(actual, expected)
    expected.sum().backward(), actual.sum().backward()
    torch.testing.assert_close(net.conv.weight.grad, twin.conv.weight.grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("norm's forward hook", "neuron's pre-hook", "neuron's forward"))
def test_hooks_under_compile(name):
    net, x = block(), torch.randn(3, 2, 6, 6)
    twin = copy.deepcopy(net)
    stdano.fuse(net)
    for model in (net, twin):
        if name in HOOKS:
            HOOKS[name](model)
        else:
            model[2].forward = lambda x, old=model[2].forward: old(2 * x)
    with torch.no_grad():
        assert torch.equal(torch.compile(net, backend="aot_eager")(x), twin(x))


@pytest.mark.slow
def test_a_change_in_place_under_export():
    net, twin, x = InPlace().eval(), InPlace().eval(), torch.randn(3, 2, 6, 6)
    stdano.fuse(net)
    with torch.no_grad():
        program = torch.export.export(net, (x,))
        assert torch.equal(program.module()(x), twin(x))


@pytest.mark.slow
def test_equal_blocks_share_their_graphs():
    counter = torch._dynamo.testing.CompileCounterWithBackend
    counts = []
    for fused in (False, True):
        torch._dynamo.reset()
        layers = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), LIFNode(step_mode="s")) for _ in range(10)]
        net, graphs = nn.Sequential(*layers), counter("eager")
        if fused:
            assert len(stdano.fuse(net).fused) == 10
        for layer in net:
            layer.compile(backend=graphs, fullgraph=True)
        net(torch.randn(5, 8))
        counts.append(graphs.frame_count)
    assert counts[1] == counts[0], counts


def test_an_empty_batch_in_training():
    net, twin = block(), block()
    stdano.fuse(net)
    x = torch.randn(0, 2, 6, 6)
    assert net(x).shape == twin(x).shape
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), twin.buffers(), strict=True))
    stdano.reset_net(net)
    module = BatchNormNeuron(4, "LIF")
    assert module(torch.randn(T, 0, 4, 5, 5)).shape == (T, 0, 4, 5, 5)


def test_a_momentum_above_one():
    net, twin, x = block(), block(), torch.randn(3, 2, 6, 6)
    stdano.fuse(net)
    net[1].momentum = twin[1].momentum = 1.5
    assert torch.equal(net(x), twin(x)) and torch.equal(net[1].running_var, twin[1].running_var)


@pytest.mark.filterwarnings("error")
def test_no_warning_after_an_error_and_a_reset():
    net = block()
    stdano.fuse(net)
    net(torch.randn(3, 2, 6, 6))
    with pytest.raises(ValueError, match=r"call reset\(\)"):
        net(torch.randn(2, 2, 6, 6))
    stdano.reset_net(net)
    net(torch.randn(2, 2, 6, 6))
    net[2].step_mode = "m"
    stdano.reset_net(net)
    y = net[:2](torch.randn(2, 2, 6, 6))
    net[2].reset()  # between the two, which is no end
    net[2](y.unsqueeze(0))


def test_copies_of_one_of_the_two():
    for copied in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        net = block().eval()
        stdano.fuse(net)
        norm, neuron = copied(net[1]), copied(net[2])
        assert norm.forward.__self__.norm is norm and neuron._link.neuron is neuron
        both = copied(net)
        assert both[1].forward.__self__ is both[2]._link and both[2]._link.norm is both[1]


def test_apart_and_fused_calls_alternate():
    net, xs, _ = make("residual")
    twin = copy.deepcopy(net)
    stdano.fuse(net)
    net(xs[0]), twin(xs[0])
    handle = net.neuron1.register_forward_hook(lambda m, i, o: None)
    net(xs[1]), twin(xs[1])
    handle.remove()
    assert_equal(everything(net, xs), everything(twin, xs))


def test_checkpointing_that_begins_behind_the_norm():
    """The norm has seen images of another size when the first call is repeated."""

    def gradients(checkpointed):
        net = block()
        stdano.fuse(net)
        xs = [torch.randn(2, 2, size, size, generator=torch.Generator().manual_seed(size)) for size in (5, 7)]
        loss = 0
        for x in (x.requires_grad_() for x in xs):
            net[2].reset()
            y = net[:2](x)
            spikes = checkpoint(net[2], y, use_reentrant=False) if checkpointed else net[2](y)
            loss = loss + spikes.square().sum()
        loss.backward()
        return [x.grad for x in xs]

    assert_equal(gradients(True), gradients(False))

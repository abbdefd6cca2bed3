"""Constant input: x that is one step, expanded over time. It gives the bits of its copies; the gradient of the step is
the sum of the steps' gradients, last one first, in the dtype of arithmetic."""

import pytest
import torch
from constant_common import CASES, assert_as_copies, case
from kernels_common import (
    DTYPES,
    FUNCTIONS,
    LEVELS,
    assert_same_bits,
    by_dtype,
    every_neuron,
    make_affine,
    make_x,
    several_levels,
)
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import stdano
from stdano.models import create_model
from stdano.models.blocks import NormNeuron
from stdano_kernels import Neuron, State, bn_neuron, function, lif, super_neuron
from stdano_kernels.constant import step_of
from stdano_kernels.define import sigmoid, spike, tanh
from stdano_kernels.normalise import Norm


@every_neuron
@by_dtype(DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_copies(neuron, dtype, name):
    assert_as_copies(neuron, *case(neuron, name, dtype))


@several_levels
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("neuron", ("llif", "slif"))
def test_on_every_instruction_set(neuron, level):
    before = torch.ops.stdano.cpu_capability()
    torch.ops.stdano.cpu_capability(level)
    try:
        assert_as_copies(neuron, *case(neuron, "affine", torch.float32))
    finally:
        torch.ops.stdano.cpu_capability(before)


class Own(Neuron):
    v = State()

    def step(n, x, v):
        h = n.decay(n.tau) * v + sigmoid(x) * tanh(x)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)


def test_an_own_neuron_and_an_own_order_of_dimensions():
    x = make_x((2, 3, 5, 7)).permute(0, 3, 1, 2)
    gs = torch.randn(4, *x.shape)
    given, copies = x.clone().requires_grad_(), x.expand(4, *x.shape).clone().requires_grad_()
    y, z = function(Own)(given.expand(4, *x.shape)), function(Own)(copies)
    assert torch.equal(y, z) and y.stride() == z.stride()
    y.backward(gs)
    z.backward(gs)
    assert torch.equal(given.grad, sum(reversed(copies.grad.unbind())))


def test_gradcheck():
    x = make_x((2, 3, 2), torch.float64).requires_grad_()
    affine = make_affine(x[None].detach()).requires_grad_()

    def call(x, affine, v):
        return FUNCTIONS["slif"](x.expand(5, *x.shape), affine=affine, v_threshold=v, spike="soft", surrogate="sigmoid")

    assert torch.autograd.gradcheck(call, (x, affine, torch.tensor(0.9, dtype=torch.float64, requires_grad=True)))


# How a tensor is expanded, and whether its gradient goes past that: where what lies in between is known.
EXPANSIONS = {
    "expand": (lambda x: x.expand(3, *x.shape), True),
    "unsqueeze": (lambda x: x.unsqueeze(0).expand(3, *x.shape), True),
    "view": (lambda x: x.view(1, *x.shape).expand(3, *x.shape), True),
    "twice": (lambda x: x.expand(1, *x.shape).expand(3, *x.shape), True),
    "more": (lambda x: x.expand(3, 2, *x.shape), True),
    "through a square": (lambda x: (x * x).expand(3, *x.shape), True),
    "broadcast": (lambda x: x[:, :1].expand(3, *x.shape), False),
    "not dense": (lambda x: x[..., ::2].expand(3, *x[..., ::2].shape), False),
    "other dimensions": (lambda x: x.unsqueeze(1).expand(3, x.shape[0], 2, *x.shape[1:]), False),
}


@pytest.mark.parametrize("name", EXPANSIONS)
def test_every_way_to_expand(name):
    expand, is_known = EXPANSIONS[name]
    x = make_x((2, 3, 4))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expanded = expand(a)
    assert (step_of(expanded) is not None) == is_known
    y, z = lif(expanded), lif(expand(b).clone())
    gs = torch.randn_like(y)
    y.backward(gs)
    z.backward(gs)
    assert torch.equal(y, z)
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("normalised", [False, True], ids=["alone", "norm"])
@pytest.mark.parametrize("when", ["before", "after", "only"])
def test_the_expanded_tensor_has_gradients_of_its_own(when, normalised):
    """Where somebody looks at them."""
    x, gs = make_x((2, 3, 4)), torch.randn(4, 2, 3, 4)

    def call(x):
        return bn_neuron("lif", x, None, None, training=True) if normalised else lif(x)

    copies = x.expand(4, *x.shape).clone().requires_grad_()
    call(copies).backward(gs)
    start = x.clone().requires_grad_()
    expanded = (start * 1).expand(4, *x.shape)
    if when == "before":
        expanded.retain_grad()
    y = call(expanded)
    if when == "only":
        (grad,) = torch.autograd.grad(y, expanded, gs)
    else:
        if when == "after":
            expanded.retain_grad()
        y.backward(gs)
        grad = expanded.grad
        torch.testing.assert_close(start.grad, grad.sum(0))
    torch.testing.assert_close(grad, copies.grad)


def test_behind_synchronised_batch_norm_there_is_no_gradient_of_all_steps(monkeypatch):
    monkeypatch.setattr(Norm, "is_joint", lambda *_: False)
    expanded = make_x((2, 3, 4)).requires_grad_().expand(4, 2, 3, 4)
    y = bn_neuron("lif", expanded, None, None, training=True)
    with pytest.raises(RuntimeError, match=r"call x.retain_grad\(\) or x.register_hook\(\) before"):
        torch.autograd.grad(y.sum(), expanded)


def test_a_leaf_that_is_expanded_gets_all_steps():
    x = make_x((2, 5))
    leaf, copies = x.expand(3, 2, 5).requires_grad_(), x.repeat(3, 1, 1).requires_grad_()
    for t in (leaf, copies):
        lif(t).sum().backward()
    assert_same_bits({"x": leaf.grad.clone()}, {"x": copies.grad})


def test_empty_batches_and_no_gradients():
    assert lif(torch.empty(0, 3, requires_grad=True).expand(4, 0, 3)).shape == (4, 0, 3)
    x = make_x((2, 3))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(lif(x.expand(4, 2, 3)), lif(x.repeat(4, 1, 1)))
    v_threshold = torch.tensor(0.9, requires_grad=True)
    lif(x.expand(4, 2, 3), v_threshold=v_threshold).sum().backward()
    assert v_threshold.grad is not None


def test_no_second_derivative():
    x = make_x((2, 3)).requires_grad_()
    (grad,) = torch.autograd.grad(lif(x.expand(4, 2, 3)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.sum().backward()


def test_activation_checkpointing_and_changes_in_place():
    conv, x = nn.Conv2d(2, 3, 3), torch.randn(2, 2, 5, 5)

    def call(x):
        return lif(conv(x).expand(4, 2, 3, 3, 3))

    grads = []
    for again in (False, True):
        y = checkpoint(call, x, use_reentrant=False) if again else call(x)
        grads.append(torch.autograd.grad(y.sum(), conv.weight)[0])
    assert torch.equal(*grads)
    start = x.clone().requires_grad_() * 1
    y = lif(start.expand(4, *x.shape))
    start += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("way", ["one operator", "apart"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
def test_batch_norm_has_the_values_of_copies(way, training, channels_last, monkeypatch):
    """Statistics, running ones too, and all gradients; with few channels and many (see csrc/cpu/norm.h), and apart, as
    with other processes."""
    if way == "apart":
        monkeypatch.setattr(Norm, "is_joint", lambda *_: False)
    for channels in (3, 64):
        x = make_x((2, channels, 9, 8), torch.float64)
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        results = []
        for copies in (False, True):
            start = x.clone().requires_grad_()
            weight, bias = (torch.linspace(a, 1.5, channels).double().requires_grad_() for a in (0.5, -0.5))
            mean, var = torch.zeros(channels).double(), torch.ones(channels).double()
            steps = start.expand(3, *x.shape)
            y = bn_neuron("llif", steps.clone() if copies else steps, mean, var, weight, bias, training=training)
            y.backward(torch.cos(torch.arange(y.numel())).view(y.shape).double())
            results.append((y, start.grad, weight.grad, bias.grad, mean, var))
        for actual, expected in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_nothing_of_all_steps_is_made_before_the_first_spikes(channels_last, training):
    """In a network whose BatchNorms and neurons are fused: no operator but the neuron's gives a tensor as large as all
    steps of its input, nor is one kept, nor is one made on the way back."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = create_model("vgg-small", "LIF", T=4, num_classes=5, size=8).to(memory_format=layout).train(training)
    stdano.fuse(model)
    first = next(m for m in model.modules() if isinstance(m, NormNeuron))
    large = 4 * 2 * first.norm.num_features * 8 * 8 * 4
    before, kept = [], []
    x = torch.randn(2, 3, 8, 8).to(memory_format=layout)

    names = []

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, call, types, arguments=(), options=None):
            out = call(*arguments, **(options or {}))
            for t in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(t, torch.Tensor) and t.untyped_storage().nbytes() >= large:
                    names.append(call.name())
            return out

    def stop(module, inputs, spikes):
        before.append(spikes)
        raise StopIteration

    first.register_forward_hook(stop)
    with Made(), saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        with pytest.raises(StopIteration):
            model(x)
        assert len(names) == 1 and names[0].startswith("stdano::"), names
        if training:
            (spikes,) = before
            gs = torch.ones_like(spikes)
            names.clear()
            spikes.backward(gs)
            assert [name for name in names if "ones" not in name] == []
    assert [t.shape for t in kept if t.untyped_storage().nbytes() >= large] == []


def test_the_super_neuron_keeps_one_step():
    x = make_x((2, 3, 4, 4)).requires_grad_()
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = super_neuron(x.expand(4, *x.shape), torch.ones(3) / 3, None, None, training=True)
    assert max(t.untyped_storage().nbytes() for t in kept if t.is_floating_point()) <= 4 * x.numel()
    copies = x.detach().repeat(4, 1, 1, 1, 1).requires_grad_()
    z = super_neuron(copies, torch.ones(3) / 3, None, None, training=True)
    gs = torch.randn_like(y)
    y.backward(gs)
    z.backward(gs)
    assert torch.equal(y, z)
    torch.testing.assert_close(x.grad, copies.grad.sum(0))


@pytest.mark.slow
def test_compiled():
    node = stdano.LIFNode()
    conv = nn.Conv2d(3, 4, 3)

    def call(x):
        stdano.reset_net(node)
        y = conv(x)
        return node(y.expand(4, *y.shape))

    x = torch.randn(2, 3, 8, 8)
    expected = call(x)
    expected.sum().backward()
    grad = conv.weight.grad.clone()
    conv.zero_grad()
    actual = torch.compile(call, backend="aot_eager")(x)
    actual.sum().backward()
    assert torch.equal(actual, expected)
    torch.testing.assert_close(conv.weight.grad, grad)

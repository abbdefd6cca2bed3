"""Spikes that autograd keeps as bits: gradients in all bits those without, whoever keeps the spikes, and memory."""

import copy
import gc
import io
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano.models import create_model
from stdano_kernels import function, lif, packed
from stdano_kernels.define import spike
from stdano_kernels.levels import MOST, Levels, levels_of
from stdano_kernels.neurons import NEURONS, IntegerLIF

T, B, C, SIDE = 2, 4, 8, 12


class Counted:
    """Within it: bytes that autograd keeps of tensors, each memory once, and as what."""

    def __enter__(self):
        self.storages, self.copies, self.packed = {}, set(), []
        pack = self.pack = packed._pack

        def counting(tensor):
            kept = pack(tensor)
            source = kept.bits
            while hasattr(source, "source"):  # is computed again
                source = source.source
            of = kept.tensor if source is None else source.bits
            self.storages[of.untyped_storage().data_ptr()] = of.untyped_storage().nbytes()
            if source is not None:
                self.copies.add(of.data_ptr())
                self.packed.append(tuple(tensor.shape))
            return kept

        packed._pack = counting
        return self

    def __exit__(self, *error):
        packed._pack = self.pack

    @property
    def bytes(self):
        return sum(self.storages.values())


def images(dtype=torch.float32):
    return torch.randn(T * B, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


def conv(inputs, outputs, dtype=torch.float32):
    return nn.Conv2d(inputs, outputs, 3, padding=1, dtype=dtype)


class Network(nn.Module):
    """A convolution, LIF, and something that takes the spikes ``[T, B, C, H, W]``, and makes a number of them."""

    def __init__(self, takes, dtype=torch.float32, neuron=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.neuron = conv(3, C, dtype), neuron or stdano.LIFNode()
        self.a, self.b = conv(C, C, dtype), conv(C, C, dtype)
        self.linear = nn.Linear(SIDE, 5, dtype=dtype)
        self.takes = takes

    def forward(self, x):
        spikes = self.neuron(3 * self.first(x).unflatten(0, (T, B)))
        return self.takes(self, spikes).square().sum()


def flat(spikes):
    return spikes.flatten(0, 1)


class Squared(torch.autograd.Function):
    """A function of one's own that keeps its input."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 1.5 * x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x * grad


def attention(n, s):
    q, k, v = (F.linear(s, w) for w in torch.split(n.a.weight.reshape(-1, SIDE)[:36], 12))
    return n.linear(F.scaled_dot_product_attention(lif(5 * q), lif(5 * k), lif(5 * v)))


def products(n, s):
    q, k = lif(5 * n.linear(s)).transpose(-2, -1), lif(4 * n.linear(s))
    return q @ k


# What takes spikes, and how many packed copies are kept for it. What has fewer than 1024
# values, or is scaled before it is kept, is none.
TAKES = {
    "convolution": (lambda n, s: n.a(flat(s)), 1),
    "channels-last": (lambda n, s: n.a(flat(s).to(memory_format=torch.channels_last)), 1),
    "two convolutions": (lambda n, s: n.a(flat(s)) + n.b(s[:, :].flatten(0, 1)), 1),
    "a convolution each step": (lambda n, s: sum(n.a(step) for step in s), 1),
    "a part": (lambda n, s: n.a(s[1, 1:, :, 2:]), 1),
    "linear": (lambda n, s: n.linear(s.permute(1, 0, 2, 3, 4)), 1),
    "a product": (lambda n, s: s.flatten(3) @ flat(s)[:1].flatten(2).transpose(1, 2)[:, None], 1),
    "attention": (attention, 2),
    "products": (products, 3),
    "a function": (lambda n, s: Squared.apply(s) + n.b.weight.sum(), 1),
    "average pooling": (lambda n, s: n.a(F.avg_pool2d(flat(s), 2)), 2),
    "own pooling": (lambda n, s: n.a(stdano.models.blocks.average_pool(flat(s), 2)), 1),
    "pooling twice": (lambda n, s: n.a(F.avg_pool2d(F.avg_pool2d(flat(s), 2), 2)), 2),
    "max pooling": (lambda n, s: n.a(F.max_pool2d(flat(s), 2)), 2),
    "a sum": (lambda n, s: n.a(flat(s + s.roll(1, 0))), 1),
    "a sum of neurons": (lambda n, s: n.a(flat(s + lif(5 * s.square()))), 2),
    "concatenation": (lambda n, s: n.a(torch.cat((s[:, :, :4], lif(2 * s[:, :, 4:])), 2).flatten(0, 1)), 1),
    "a scaled mask": (lambda n, s: n.a(flat(s * 0.7)), 0),
    "checkpoint": (lambda n, s: checkpoint(lambda t: n.b(F.relu(n.a(t))), flat(s), use_reentrant=False), 1),
    "reentrant checkpoint": (lambda n, s: checkpoint(lambda t: n.b(F.relu(n.a(t))), flat(s), use_reentrant=True), 1),
}


def gradients(network, x, context, module=None, **autocast):
    """Of x and of the parameters of a module, by default the function's own, whose result is the loss."""
    module = network if module is None else module
    stdano.reset_net(module)
    module.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", **autocast) if autocast else nullcontext(), context:
        loss = network(x)
    loss.backward()
    return [x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]


def assert_same(ones, others):
    assert len(ones) == len(others)
    assert all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("takes", TAKES)
def test_gradients_have_the_same_bits(takes, dtype):
    function, kept = TAKES[takes]
    network, x = Network(function, dtype), images(dtype)
    expected = gradients(network, x, nullcontext())
    with Counted() as counted:
        assert_same(gradients(network, x, stdano.packed_spikes()), expected)
    assert expected[1].abs().sum() > 0
    assert len(counted.copies) == kept


@pytest.mark.parametrize("takes", ["convolution", "attention", "own pooling", "a sum of neurons"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_the_spikes(takes, dtype):
    network, x = Network(TAKES[takes][0]), images()
    autocast = dict(dtype=dtype)
    expected = gradients(network, x, nullcontext(), **autocast)
    with Counted() as counted:
        assert_same(gradients(network, x, stdano.packed_spikes(), **autocast), expected)
    assert counted.packed


@pytest.mark.parametrize("neuron", NEURONS)
def test_every_neuron(neuron):
    """Among them one with more than one spike a step."""
    network = Network(TAKES["two convolutions"][0], neuron=stdano.node(NEURONS[neuron])(spike="hard"))
    expected = gradients(network, images(), nullcontext())
    with Counted() as counted:
        assert_same(gradients(network, images(), stdano.packed_spikes()), expected)
    assert counted.packed


def test_soft_spikes_are_kept_as_they_are():
    network = Network(TAKES["convolution"][0], neuron=stdano.LIFNode(spike="soft"))
    expected = gradients(network, images(), nullcontext())
    with Counted() as counted:
        assert_same(gradients(network, images(), stdano.packed_spikes()), expected)
    assert not counted.packed


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("model", ["vgg-small", "resnet18"])
def test_models(model, channels_last):
    torch.manual_seed(0)
    net = create_model(model, "SLIF", T=T, width=0.25, dropout=0.2, size=16)
    net.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    stdano.fuse(net)
    x = torch.randn(4, 3, 16, 16)

    def grads(context):
        torch.manual_seed(1)
        stdano.reset_net(net)
        net.zero_grad()
        with Counted() as counted, context:
            loss = net(x).square().sum()
        loss.backward()
        return [p.grad.clone() for p in net.parameters()], counted

    ones, counted = grads(stdano.packed_spikes())
    assert_same(ones, grads(nullcontext())[0])
    assert counted.packed


ODD = {
    "part of complex numbers": lambda: torch.complex(torch.ones(3000), torch.zeros(3000)).real,
    "negative view": lambda: torch._neg_view(torch.ones(3000)),
    "zero without memory": lambda: torch._efficientzerotensor((3000,)),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(40, 64), torch.ones(30, 64)]),
}


@pytest.mark.parametrize("odd", ODD)
def test_other_tensors_than_plain_ones(odd):
    tensor = ODD[odd]()
    kept = packed._pack(tensor)
    assert kept.bits is None and kept.tensor.data_ptr() == tensor.data_ptr()


def test_inference_mode():
    dropout = stdano.models.blocks.SharedDropout(0.3)
    network = Network(lambda n, s: dropout(stdano.models.blocks.average_pool(flat(s), 2)))
    spikes = lif(images())
    with stdano.packed_spikes(), torch.inference_mode():
        assert network(images()).shape == ()
        dropout(spikes)


def kept_by(function, x):
    with Counted() as counted, stdano.packed_spikes():
        out = function(x)
    del out
    return counted


def test_memory():
    """One copy for all that keep the spikes, one bit a value, freed with the graph."""
    x = 5 * torch.randn(4, 8, 16, 16, 16)
    a, b = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)
    counted = kept_by(lambda x: [a(s := lif(x).flatten(0, 1)), b(s), a(s), Squared.apply(s.requires_grad_())], x)
    assert len(counted.packed) == 4
    assert sum(n for n in counted.storages.values() if n == x.numel() // 8) == x.numel() // 8
    assert x.numel() * 4 not in counted.storages.values()
    # Of 2 x 2 averages three bits each.
    counted = kept_by(lambda x: a(stdano.models.blocks.average_pool(lif(x).flatten(0, 1), 2)), x.requires_grad_())
    assert x.numel() // 4 // 8 * 3 in counted.storages.values()
    # Of what dropout leaves the spikes' bits, and the mask, which its own backward keeps.
    counted = kept_by(lambda x: a(stdano.models.blocks.SharedDropout(0.3)(lif(x)).flatten(0, 1)), x)
    pool = stdano.models.blocks.average_pool
    again = kept_by(lambda x: a(pool(stdano.models.blocks.SharedDropout(0.3)(lif(x)).flatten(0, 1), 2)), x)
    assert sorted(again.storages.values()) == sorted(counted.storages.values())
    floats = [n for n in counted.storages.values() if n > x.numel() // 8]
    assert sorted(floats) == [x.numel(), 4 * x.numel()]  # the mask, of one step, and the neuron's input


def test_pooling_of_the_models_keeps_nothing():
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), lambda t: t):
        out = stdano.models.blocks.average_pool(x * 1, 2)
    assert len(kept) == 0 and out.shape == (4, 8, 8, 8)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 4, 7, 10), (1, 1, 3, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling_of_the_models_is_torchs(size, shape, channels_last):
    x = torch.randn(shape).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = stdano.models.blocks.average_pool(one, size), F.avg_pool2d(other, size)
    grad = torch.randn_like(expected)
    out.backward(grad)
    expected.backward(grad)
    assert torch.equal(out, expected) and torch.equal(one.grad, other.grad)


def test_pooling_of_the_models_takes_part_in_transforms():
    x = torch.randn(3, 2, 4, 4)

    def loss(pool):
        return lambda image: pool(image[None], 2).square().sum()

    one, other = (torch.func.grad(loss(pool)) for pool in (stdano.models.blocks.average_pool, F.avg_pool2d))
    assert torch.equal(one(x[0]), other(x[0])) and torch.equal(torch.vmap(one)(x), torch.vmap(other)(x))


def test_a_thousand_steps_take_no_more_memory():
    linear, x = nn.Linear(16, 4), torch.randn(2, 16, 4, 16)
    counts = []
    for step in range(1000):
        with stdano.packed_spikes():
            spikes = lif(x)
            loss = linear(spikes).sum() + linear(spikes.flatten(0, 1)).square().sum()
        loss.backward()
        linear.zero_grad()
        if step in (50, 999):
            del spikes, loss
            counts.append((len(gc.get_objects()), len(packed._sources)))
    assert counts[1][0] - counts[0][0] < 100
    assert counts[1][1] == counts[0][1] == 0


def test_a_part_is_unpacked_alone():
    with stdano.packed_spikes():
        spikes = lif(5 * torch.randn(8, 4000))
        kept = packed._pack(spikes[5, 100:300])
    part = packed._unpack(kept)
    assert torch.equal(part, spikes[5, 100:300])
    assert part.untyped_storage().nbytes() <= 4 * (200 + 2 * 256)
    assert part.storage_offset() % 64 == (5 * 4000 + 100) % 64, "it is aligned as the whole is"


def test_twice_through_one_graph():
    network, x = Network(TAKES["two convolutions"][0]), images()
    with stdano.packed_spikes():
        loss = network(x)
    ones = torch.autograd.grad(loss, network.parameters(), retain_graph=True, allow_unused=True)
    others = torch.autograd.grad(loss, network.parameters(), allow_unused=True)
    assert_same([g for g in ones if g is not None], [g for g in others if g is not None])
    with pytest.raises(RuntimeError, match="second time|backward through the graph"):
        torch.autograd.grad(loss, network.parameters(), allow_unused=True)


def test_second_derivatives_of_what_is_around():
    w, m = (torch.randn(2000, requires_grad=True) for _ in range(2))

    def second(context):
        with context:
            (g,) = torch.autograd.grad((w**3 * m.exp()).sum(), w, create_graph=True)
            return torch.autograd.grad(g.sum(), (w, m))

    assert_same(second(stdano.packed_spikes()), second(nullcontext()))


class Scales(torch.autograd.Function):
    """Changes its input and does not tell torch's other functions in any way but the version."""

    @staticmethod
    def forward(ctx, s):
        s.mul_(2)
        return s.sum()

    @staticmethod
    def backward(ctx, grad):
        return grad.expand(T * B, C, SIDE, SIDE)


class Spoils(torch.autograd.Function):
    """Changes in its backward what it kept."""

    @staticmethod
    def forward(ctx, s):
        ctx.save_for_backward(s)
        return s.sum()

    @staticmethod
    def backward(ctx, grad):
        (s,) = ctx.saved_tensors
        s.mul_(0)
        return grad.expand_as(s)


@pytest.mark.parametrize(
    "change",
    [lambda s: s.mul_(2), lambda s: s.view(-1)[:5].add_(1), lambda s: s.detach().zero_(), Scales.apply],
    ids=["all", "a part", "detached", "function"],
)
def test_a_change_in_place_is_noticed(change):
    network = Network(lambda n, s: n.a(flat(s)))
    spikes = network.neuron(network.first(images()).unflatten(0, (T, B))).flatten(0, 1)
    with stdano.packed_spikes():
        out = network.a(spikes).sum()
        with torch.no_grad():
            change(spikes)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation: a tensor \[8, 8, 12, 12\]"):
        out.backward()


def test_a_change_before_it_is_kept_is_noticed():
    """Then it is no spike tensor."""
    network = Network(lambda n, s: n.a(flat(s.mul_(0.5))))
    with Counted() as counted:
        ones = gradients(network, images(), stdano.packed_spikes())
    assert_same(ones, gradients(network, images(), nullcontext()))
    assert not counted.packed

    def hidden(n, s):  # torch does not notice this one, the look at the values does
        s.data.mul_(0.5)
        return n.a(flat(s))

    network = Network(hidden)
    assert_same(gradients(network, images(), stdano.packed_spikes()), gradients(network, images(), nullcontext()))


def test_a_function_that_changes_what_it_kept_harms_no_other():
    network = Network(lambda n, s: n.a(flat(s)).sum() + Spoils.apply(s))
    honest = Network(lambda n, s: n.a(flat(s)).sum() + s.sum())
    assert_same(gradients(network, images(), stdano.packed_spikes()), gradients(honest, images(), nullcontext()))


def test_other_tensors_are_watched_too():
    w = torch.randn(3000, requires_grad=True)
    with stdano.packed_spikes():
        out = (w * w).sum()
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match=r"inplace operation: a tensor \[3000\]"):
        out.backward()


def test_where_spikes_come_from():
    """As on a GPU, where nobody looks at the values."""
    x = torch.randn(T, B, C, SIDE, SIDE, requires_grad=True)
    with stdano.packed_spikes():
        s = lif(x)
        four = stdano_integer(x)
        one = Levels(1, 1)
        for same in (s, flat(s), s.bfloat16(), s.permute(1, 0, 2, 3, 4).contiguous(), F.max_pool2d(flat(s), 3)):
            assert levels_of(same) == one
        assert levels_of(torch.cat((s, s))) == levels_of(torch.stack((s, s.clone()))) == one
        assert levels_of(four) == Levels(1, 4)
        assert levels_of(four + s.half()) == Levels(1, 5)
        assert levels_of(F.avg_pool2d(flat(s), 2)) == levels_of(stdano.models.blocks.average_pool(flat(s), 2)) == (4, 4)
        pooled = F.avg_pool2d(F.avg_pool2d(flat(four), 2), (4, 1))
        assert levels_of(pooled) == (16, 64)
        no_spikes = [x * 1, s * 0.5, torch.cat((s, four)), torch.add(s, s, alpha=2), F.avg_pool2d(flat(s), 3)]
        no_spikes += [
            F.avg_pool2d(flat(s), 2, padding=1),
            F.avg_pool2d(flat(s), 2, ceil_mode=True),
            lif(x, spike="soft"),
        ]
        no_spikes += [
            F.avg_pool2d(flat(s), 2, divisor_override=3),
            F.max_pool2d(flat(s), 2, return_indices=True)[0] - 1,
        ]
        no_spikes += [
            F.avg_pool2d(flat(four), 8),
            s + F.avg_pool2d(flat(s), 1).view_as(s) * 1,
            lif(x, return_state=True)[1].v,
        ]
        for other in no_spikes:
            assert levels_of(other) is None
        assert packed._sources.get(lif(x.detach()).flatten()._base).levels == one


def test_what_was_changed_without_a_gradient_is_no_source():
    with stdano.packed_spikes():
        s = lif(torch.randn(T, 9, requires_grad=True))
        assert levels_of(s.bfloat16()) == Levels()
        s.view(-1).detach().mul_(0.5)
        assert levels_of(s.bfloat16()) is None


class Many(IntegerLIF):
    """With more spikes than eight bits hold."""

    def step(n, x, v):
        s = spike(v + x - n.v_threshold, levels=MOST + 1)
        return s, v - s


def test_more_spikes_than_bits_hold():
    with stdano.packed_spikes():
        s = function(Many)(torch.randn(T, 2000, requires_grad=True), backend="reference")
        assert levels_of(s) is None and packed._pack(s).bits is None


class Clone(torch.autograd.Function):
    """A function of one's own that is called like one of torch's."""

    @staticmethod
    def forward(ctx, a):
        return 0.3 * a

    @staticmethod
    def backward(ctx, grad):
        return 0.3 * grad


@pytest.mark.parametrize(
    "function", [Clone.apply, lambda s: torch.ops.aten.add.Scalar(s, 1.0)], ids=["own function", "a number is added"]
)
def test_where_no_spikes_come_from(function):
    with stdano.packed_spikes():
        assert levels_of(function(lif(torch.randn(T, 9, requires_grad=True)))) is None


def stdano_integer(x):
    return stdano.IntegerLIFNode()(x)


def interrupt(module, inputs):
    raise KeyboardInterrupt


def test_pack_spikes_makes_a_model_do_it_by_itself():
    network, x = Network(TAKES["own pooling"][0]), images()
    expected = gradients(network, x, nullcontext())
    names = list(network.state_dict())
    handle = stdano.pack_spikes(network)
    buffer = io.BytesIO()
    torch.save(network.linear, buffer)
    for each in (network, copy.deepcopy(network)):
        with Counted() as counted:
            assert_same(gradients(each, x, nullcontext()), expected)
        assert counted.packed and list(each.state_dict()) == names
    stdano.reset_net(network)
    with pytest.raises(RuntimeError):
        network(torch.randn(1, 1, 1, 1))
    assert packed._contexts.open == 0, "the context is left open behind an error"
    stopped = network.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        network(x)
    stopped.remove()
    assert_same(gradients(network, x, nullcontext()), expected)
    assert packed._contexts.open == 0
    handle.remove()
    with Counted() as counted:
        assert_same(gradients(network, x, nullcontext()), expected)
    assert not counted.packed
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        stdano.pack_spikes(3)


@pytest.mark.parametrize("own", [True, False])
def test_spikingjellys_layers_and_neurons(own):
    """The latter are known by their values."""
    layer = pytest.importorskip("spikingjelly.activation_based.layer", reason="needs the extra [test]")
    from spikingjelly.activation_based import neuron

    torch.manual_seed(0)
    layers = [layer.Conv2d(3, C, 3), stdano.LIFNode() if own else neuron.LIFNode(), layer.AvgPool2d(2)]
    net = nn.Sequential(*layers, layer.Conv2d(C, 4, 3))
    for part in net:
        part.step_mode = "m"
    x = 5 * images().unflatten(0, (T, B))
    expected = gradients(lambda x: net(x).sum(), x, nullcontext(), net)
    with Counted() as counted:
        assert_same(gradients(lambda x: net(x).sum(), x, stdano.packed_spikes(), net), expected)
    assert counted.packed


def test_compiled():
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, C), stdano.LIFNode(step_mode="s"), conv(C, 4), nn.Flatten(0), nn.Linear(4608, 1))
    compiled = torch.compile(net, backend="aot_eager")
    expected = gradients(compiled, images(), nullcontext())
    with Counted() as counted:
        assert_same(gradients(compiled, images(), stdano.packed_spikes()), expected)
    assert counted.packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("scale", "most"), [(1, 1), (1, 4), (4, 4), (16, 16), (9, 9), (4, 255)])
def test_operators(dtype, scale, most):
    """Every size around a byte and a part; what are no such values is refused; torch's operations give the same."""
    planes, real = most.bit_length(), torch.float64 if dtype == torch.float64 else torch.float32
    for count in (0, 1, 7, 8, 9, 1023, 1024, 1025, 40_000):
        x = (torch.randint(0, most + 1, (count,)).to(real) / scale).to(dtype)
        bits, wrong, exact = torch.ops.stdano.pack_spikes(x, scale, planes)
        assert exact and bits.shape == (planes, (count + 7) // 8) and len(wrong) == 0
        assert torch.equal(torch.ops.stdano.unpack_spikes(bits, wrong, scale, x)[:count], x)
        if count:
            assert torch.equal(packed.pack_by_torch(x, scale, planes)[0], bits)
            assert torch.equal(packed.unpack_by_torch(bits, wrong, scale, x)[:count], x)
            for value in (-0.0, 0.3, float("nan"), float("inf"), -1.0, 2**planes / scale):
                bad = x.clone()
                bad[count - 1] = value
                assert not torch.ops.stdano.pack_spikes(bad, scale, planes)[2], value
                assert not packed.pack_by_torch(bad, scale, planes)[2], value
    some = torch.ops.stdano.unpack_spikes(bits[:, 3:1000], wrong, scale, x)
    assert torch.equal(some, x[24:8000])


def test_operators_refuse_what_they_cannot_take():
    x = torch.zeros(64)
    bits, wrong, _ = torch.ops.stdano.pack_spikes(x, 1, 1)
    with pytest.raises(RuntimeError, match="planes must be 1 to 8, got 9"):
        torch.ops.stdano.pack_spikes(x, 1, 9)
    with pytest.raises(RuntimeError, match="scale must be 1 to"):
        torch.ops.stdano.unpack_spikes(bits, wrong, 0, x)
    with pytest.raises(RuntimeError, match="x must be contiguous"):
        torch.ops.stdano.pack_spikes(x.view(8, 8), 1, 1)
    with pytest.raises(RuntimeError, match="bits and wrong must be those that pack_spikes returned"):
        torch.ops.stdano.unpack_spikes(bits.float(), wrong, 1, x)


def test_runs_pack_on_cpus(tmp_path, monkeypatch):
    """And end with the same bits as without."""
    pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
    pytest.importorskip("sklearn", reason="needs the extra [app]")
    from stdano.settings import TrainSettings, replace
    from stdano.training import train
    from stdano.training.checkpoint import load_checkpoint

    small = replace(TrainSettings(), width=0.2, epochs=1, threads=1, accelerator="cpu", keep_memory=False)
    weights = {}
    for way in ("auto", "on", "off"):
        with Counted() as counted:
            train(replace(small, pack_spikes=way), tmp_path / way)
        assert bool(counted.packed) == (way != "off")
        weights[way] = load_checkpoint(tmp_path / way / "last.pt")["model"]
    for name, tensor in weights["off"].items():
        assert torch.equal(weights["on"][name], tensor) and torch.equal(weights["auto"][name], tensor)
    with pytest.raises(ValueError, match="pack_spikes must be one of auto, on, off, got 'yes'"):
        train(replace(small, pack_spikes="yes"), tmp_path / "no")

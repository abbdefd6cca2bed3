"""SuperNeuron: against the neurons, BatchNorms and the weighted sum written out; choice, conversion, errors."""

import copy
import itertools
import pickle

import pytest
import torch
from kernels_common import product, short
from tolerances import TOLERANCES
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import LIFNode, LLIFNode, SLIFNode, SuperNeuron
from stdano.models import merged
from stdano.nodes.neurons import CANDIDATES

T, B, C = 4, 3, 5
SETTINGS = dict(tau=1.4, v_threshold=0.8, decay_input=True, surrogate_function="atan", surrogate_alpha=1.5, gamma=0.3)
SETTINGS |= dict(v_reset=-0.1, slif_v_reset=0.1, beta=0.2, tau_min=1.1, detach_reset=True, decay="linear")
orders = [order for k in (1, 2, 3) for order in itertools.permutations(CANDIDATES, k)]


class Composed(nn.Module):
    """The same from parts."""

    def __init__(self, original: SuperNeuron, **norm_settings):
        super().__init__()
        self.nodes = nn.ModuleList(original.node(name) for name in original.neurons)
        self.norms = nn.ModuleList(nn.BatchNorm2d(C, affine=False, **norm_settings) for _ in original.neurons)
        self.alpha = nn.Parameter(original.alpha.detach().clone())
        self.to(original.alpha.dtype)

    def forward(self, x):
        stdano.reset_net(self)
        shares = self.alpha.softmax(0)
        return sum(w * merged(norm, node(x)) for w, norm, node in zip(shares, self.norms, self.nodes, strict=True))


def images(dtype=torch.float64, seed=0) -> torch.Tensor:
    x = 1.2 * torch.randn(T, B, C, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.4
    return x.to(dtype)


def train(module, dtype, forward=None):
    results = []
    for seed in range(2):
        x = images(dtype, seed).requires_grad_()
        y = (forward or module)(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)).sum().backward()
        results += [y.detach(), x.grad]
    return results + [module.alpha.grad]


def assert_equal(ours, others, dtype):
    for a, b in zip(ours, others, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCES[dtype]._asdict())


def same_statistics(ours, composed, dtype):
    for name in ("running_mean", "running_var"):
        assert_equal([getattr(ours, name)], [torch.stack([getattr(n, name) for n in composed.norms])], dtype)
    assert ours.num_batches_tracked == composed.norms[0].num_batches_tracked


@pytest.mark.parametrize("neurons", orders, ids="-".join)
@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_equals_its_parts(neurons, training):
    ours = SuperNeuron(C, neurons, **SETTINGS).double()
    nn.init.normal_(ours.alpha)
    composed = Composed(ours)
    ours(images(seed=7)), composed(images(seed=7))
    ours.train(training), composed.train(training)
    assert_equal(train(ours, torch.float64), train(composed, torch.float64), torch.float64)
    same_statistics(ours, composed, torch.float64)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)
@pytest.mark.parametrize("settings", product(momentum=(0.3, None), eps=(1e-5, 1e-2)), ids=short)
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_statistics_like_batch_norm(dtype, settings, backend):
    ours = SuperNeuron(C, backend=backend, **settings).to(dtype)
    composed = Composed(ours, **settings)
    assert_equal(train(ours, dtype), train(composed, dtype), dtype)
    same_statistics(ours, composed, dtype)
    ours.eval(), composed.eval()
    assert_equal([ours(images(dtype))], [composed(images(dtype))], dtype)


@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_without_running_statistics(training):
    ours = SuperNeuron(C, track_running_stats=False).double().train(training)
    composed = Composed(ours, track_running_stats=False).train(training)
    assert list(ours.state_dict()) == ["alpha"]
    assert_equal(train(ours, torch.float64), train(composed, torch.float64), torch.float64)


def test_soft_spikes():
    ours = SuperNeuron(C, spike="soft").double()
    assert_equal(train(ours, torch.float64), train(Composed(ours), torch.float64), torch.float64)


def test_weights_and_choice():
    node = SuperNeuron(C, ("SLIF", "LIF"))
    assert node.alpha.shape == (2,) and 0 < node.alpha.abs().max() < 0.01
    assert node.running_mean.shape == node.running_var.shape == (2, C)
    with torch.no_grad():
        node.alpha.copy_(torch.tensor([0.2, 0.7]))
    assert node.choice() == "LIF"
    torch.testing.assert_close(node.weights(), torch.softmax(torch.tensor([0.2, 0.7]), 0))
    assert node.weights().requires_grad


def test_the_chosen_neuron_has_the_same_settings():
    node = SuperNeuron(C, **SETTINGS, detach_adapt=True).eval()
    lif, llif, slif = (node.node(name) for name in CANDIDATES)
    assert (type(lif), type(llif), type(slif)) == (LIFNode, LLIFNode, SLIFNode)
    assert {n.tau for n in (lif, llif, slif)} == {1.4} and {n.alpha for n in (lif, llif, slif)} == {1.5}
    assert lif.v_reset == llif.v_reset == -0.1 and slif.v_reset == 0.1
    assert llif.gamma == 0.3 and slif.beta == 0.2 and slif.tau_min == 1.1 and slif.detach_adapt
    assert not lif.training
    assert type(node.node()) is CANDIDATES[node.choice()]
    with pytest.raises(ValueError, match="neuron must be one of LIF, SLIF, got 'LLIF'"):
        SuperNeuron(C, ("LIF", "SLIF")).node("LLIF")


def test_convert_puts_the_found_neurons_in():
    net = nn.Sequential(nn.Conv2d(1, C, 3), SuperNeuron(C, **SETTINGS), nn.Sequential(SuperNeuron(C, ("LIF",))))
    chosen = stdano.convert(copy.deepcopy(net), lambda old: old.node())
    assert type(chosen[2][0]) is LIFNode
    found = stdano.convert(copy.deepcopy(net), "20")
    assert type(found[1]) is SLIFNode and type(found[2][0]) is LIFNode
    assert found[1].beta == 0.2 and found[1].v_reset == 0.1 and found[1].decay == "linear"
    assert stdano.convert(copy.deepcopy(net), "LLIF", tau=1.7)[1].tau == 1.7
    assert type(stdano.convert(net, {"SuperNeuron": "LIF"})[1]) is LIFNode


def test_calls_do_not_depend_on_each_other():
    node = SuperNeuron(C).eval()
    first = node(images(torch.float32))
    node(images(torch.float32, 1))
    assert torch.equal(node(images(torch.float32)), first)
    stdano.reset_net(nn.Sequential(node))


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_checkpointing_counts_a_batch_once(use_reentrant):
    ours = SuperNeuron(C).double()
    twin = copy.deepcopy(ours)
    checkpointed = train(ours, torch.float64, lambda x: checkpoint(ours, x, use_reentrant=use_reentrant))
    assert_equal(checkpointed, train(twin, torch.float64), torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), twin.buffers(), strict=True))
    assert ours.num_batches_tracked == 2


def test_copies_compile_and_autocast():
    node = SuperNeuron(C)
    x = images(torch.float32)
    expected = copy.deepcopy(node)(x)
    assert torch.equal(pickle.loads(pickle.dumps(node))(x), expected)
    compiled = copy.deepcopy(node)
    y = torch.compile(compiled, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, expected, **TOLERANCES[torch.float32]._asdict())
    y.sum().backward()
    assert compiled.num_batches_tracked == 1 and compiled.alpha.grad is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert node(x.bfloat16()).dtype == torch.bfloat16


def test_shows_every_setting():
    shown = repr(SuperNeuron(C, **SETTINGS))
    assert all(f"{name}={value!r}" in shown for name, value in SETTINGS.items())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_channels": 0}, ValueError, "num_channels must be 1 or more, got 0"),
        ({"neurons": ()}, ValueError, r"neurons must be a list of one to 8 neurons, got \(\)"),
        ({"neurons": ("LIF", "LIF")}, ValueError, "neurons must be different ones, got LIF, LIF"),
        ({"neurons": ("lif",)}, ValueError, "neurons must be one of LIF, LLIF, .*, got 'lif'"),
        ({"neurons": ("IntegerLIF",)}, ValueError, "neurons must have spikes of 0 or 1"),
        ({"neurons": "LIF"}, ValueError, "neurons must be a list of one to 8 neurons, got 'LIF'"),
        ({"tau": torch.tensor(2.0)}, TypeError, "tau must be a number in a super neuron, got a tensor"),
        ({"gamma": torch.tensor(0.1)}, TypeError, "gamma must be a number in a super neuron, got a tensor"),
        ({"tau": -1.0}, ValueError, "tau must be a finite number above 0, got -1.0"),
        ({"slif_v_reset": "0"}, TypeError, "v_reset must be a number, got '0'"),
        ({"surrogate_function": "tri"}, ValueError, "surrogate_function must be one of"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
        ({"sync": 1}, TypeError, "sync must be True or False, got 1"),
        ({"momentum": "0.1"}, TypeError, "momentum must be a number, got '0.1'"),
        ({"eps": None}, TypeError, "eps must be a number, got None"),
        ({"process_group": object()}, ValueError, "process_group must be None without sync=True"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_named_at_construction(settings, error, message):
    with pytest.raises(error, match=message):
        SuperNeuron(**{"num_channels": C, **settings})


def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"x must be \[T, B, C, ...\] with 5 channels, got a tensor of shape"):
        SuperNeuron(C)(torch.randn(T, B, 4))
    with pytest.raises(ValueError, match=r"x must be \[T, B, C, ...\] with 5 channels, got a tensor of shape"):
        SuperNeuron(C)(torch.randn(T, C))


def test_update_bn_renews_the_statistics():
    """torch.optim.swa_utils.update_bn, which looks for BatchNorms."""
    ours = SuperNeuron(C, momentum=0.3)
    twin = copy.deepcopy(ours).double().float()  # other tensors than at first
    ours(5 * images(torch.float32, 7)), twin(5 * images(torch.float32, 8))
    batches = [images(torch.float32, seed) for seed in range(3)]
    for module in (ours, twin):
        torch.optim.swa_utils.update_bn(batches, module)
        assert module.momentum == 0.3 and module.num_batches_tracked == 3
    fresh = SuperNeuron(C, momentum=None)
    for x in batches:
        fresh(x)
    for module in (ours, twin):
        assert torch.equal(module.running_mean, fresh.running_mean)
        assert torch.equal(module.running_var, fresh.running_var)
    assert list(ours.state_dict()) == ["alpha", "running_mean", "running_var", "num_batches_tracked"]
    fresh.load_state_dict(dict(ours.state_dict()))


def test_an_empty_batch_moves_nothing():
    ours = SuperNeuron(C)
    x = torch.zeros(T, 0, C, 6, requires_grad=True)
    ours(x).sum().backward()
    assert x.grad.shape == x.shape and not ours.running_mean.any() and (ours.running_var == 1).all()

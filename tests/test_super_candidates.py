"""SuperNeuron over neurons with settings of their own and over one's own: against its parts, kept, copied, compiled."""

import copy
import pickle

import pytest
import torch
from channels_common import Tired
from test_super_module import C, Composed, assert_equal, images, same_statistics, train
from tolerances import TOLERANCES
from torch import nn

from stdano import LIFNode, SuperNeuron
from stdano_kernels import Constant, Neuron, State, super_neuron
from stdano_kernels.define import spike
from stdano_kernels.neurons import LIF, SLIF

TIRED = f"{Tired.__module__}:Tired"
OWN = (
    "LIF",
    "LIF(tau=4)",
    LIF(tau=1.3, v_reset=None, surrogate="sigmoid", alpha=2.0),
    Tired(kappa=0.4, floor=-0.1),
    Tired,
    SLIF(beta=0.3, v_reset=0.05),
    "LLIF(v_threshold=0.8)",
    "ALIF(decay='linear')",
)
SETTINGS = dict(tau=1.6, surrogate_function="atan", surrogate_alpha=1.5, gamma=0.3, v_reset=-0.1, beta=0.2)


def own(count=8, **settings):
    return SuperNeuron(C, OWN[:count], **{**SETTINGS, **settings})


@pytest.mark.parametrize("count", (2, 4, 8))
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_equals_its_parts(count, backend):
    ours = own(count, backend=backend).double()
    nn.init.normal_(ours.alpha)
    composed = Composed(ours)
    assert_equal(train(ours, torch.float64), train(composed, torch.float64), torch.float64)
    same_statistics(ours, composed, torch.float64)
    ours.eval(), composed.eval()
    assert_equal(train(ours, torch.float64), train(composed, torch.float64), torch.float64)


def test_soft_spikes():
    ours = own(3, spike="soft").double()
    assert_equal(train(ours, torch.float64), train(Composed(ours), torch.float64), torch.float64)


def test_each_has_its_own_settings_and_else_those_of_all():
    node = own()
    assert node.neurons[1:4] == (
        "LIF(tau=4.0)",
        "LIF(tau=1.3, v_reset=None, surrogate='sigmoid', alpha=2.0)",
        f"{TIRED}(kappa=0.4, floor=-0.1)",
    )
    lif, slow, soft, tired, plain, slif, llif, alif = map(node.node, node.neurons)
    assert [n.tau for n in (lif, slow, soft, tired, alif)] == [1.6, 4.0, 1.3, 1.6, 1.6]
    assert [n.v_reset for n in (lif, slow, soft, plain, slif)] == [-0.1, -0.1, None, -0.1, 0.05]
    assert (slow.surrogate_function, slow.alpha, soft.surrogate_function, soft.alpha) == ("atan", 1.5, "sigmoid", 2.0)
    assert (tired.kappa, tired.floor, plain.kappa, plain.floor) == (0.4, -0.1, 0.2, 0.25)
    assert (slif.beta, llif.gamma, llif.v_threshold, lif.v_threshold, alif.decay) == (0.3, 0.3, 0.8, 1.0, "linear")


def test_a_candidate_alone_computes_what_its_node_does():
    """In eval mode before any batch: mean 0 and variance 1."""
    for neuron in OWN:
        ours = SuperNeuron(C, (neuron,), eps=1e-30, **SETTINGS).eval().double()
        x = images()
        assert torch.equal(ours(x), ours.node()(x))


def test_an_own_setting_is_that_of_all_given_to_one():
    a, b = SuperNeuron(C, ("LIF(tau=4)",), tau=1.6), SuperNeuron(C, ("LIF",), tau=4.0)
    x = images(torch.float32)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), SuperNeuron(C, ("LIF",), tau=1.6)(x))


def test_function_takes_declarations():
    x, weights = images(), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    y = super_neuron(x, weights, None, None, neurons=("lif", LIF(tau=4.0), Tired), training=True)
    node = SuperNeuron(C, ("LIF", "LIF(tau=4)", TIRED)).double()
    node.alpha.data = weights.log()
    torch.testing.assert_close(node(x), y, **TOLERANCES[torch.float64]._asdict())
    with pytest.raises(ValueError, match="neurons must be different ones"):
        super_neuron(x, weights, None, None, neurons=("lif", "slif", LIF()), training=True)
    with pytest.raises(ValueError, match="neurons must be some of lif, .*, or declared neurons, got 'LIF'"):
        super_neuron(x, weights, None, None, neurons=("LIF", "slif", "llif"), training=True)
    with pytest.raises(TypeError, match="neurons must be names or declared neurons, got 3"):
        super_neuron(x, weights, None, None, neurons=(3, "slif", "llif"), training=True)


@pytest.mark.parametrize("kept", ((1,), (0, 3)), ids=str)
def test_keep(kept):
    node = own(4).double()
    nn.init.normal_(node.alpha)
    whole, names = node.weights().detach(), [node.neurons[k] for k in kept]
    node.keep(*names)
    weights = node.weights().detach()
    expected = torch.zeros(4, dtype=torch.float64).index_copy(0, torch.tensor(kept), whole[list(kept)])
    torch.testing.assert_close(weights, expected / expected.sum())
    assert ((weights == 0) == torch.tensor([k not in kept for k in range(4)])).all()
    assert node.choice() in names
    # What is left is a super neuron of those alone.
    alone = SuperNeuron(C, [OWN[k] for k in kept], **SETTINGS).double()
    alone.alpha.data = node.alpha.detach()[list(kept)]
    *ours, of_alpha = train(node, torch.float64)
    *others, of_alone = train(alone, torch.float64)
    assert_equal(ours, others, torch.float64)
    torch.testing.assert_close(of_alpha[list(kept)], of_alone)
    assert not of_alpha[[k for k in range(4) if k not in kept]].any()
    assert "removed" not in node.state_dict()
    assert all(torch.equal(c.removed, node.removed) for c in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))))
    node.keep()
    assert node.removed is None and torch.equal(node.weights(), whole)
    node.keep(*node.neurons)
    assert node.removed is None
    with pytest.raises(ValueError, match=r"neurons must be some of LIF, LIF\(tau=4.0\), .*, got SLIF"):
        node.keep("LIF", "SLIF")


def test_copies_and_checkpoints():
    node, x = own(), images(torch.float32)
    node(x)
    node.eval()
    expected = node(x)
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert twin.candidates == node.candidates and twin.neurons == node.neurons
        assert torch.equal(twin(x), expected)
    fresh = own().eval()
    fresh.load_state_dict(node.state_dict())
    assert torch.equal(fresh(x), expected)
    assert list(node.state_dict()) == ["alpha", "running_mean", "running_var", "num_batches_tracked"]


def test_what_it_shows_makes_it_again():
    node = own(momentum=0.3, slif_v_reset=0.1)
    again = eval(repr(node))
    assert again.candidates == node.candidates and repr(again) == repr(node)


def test_compile_and_export():
    node, x = own(4), images(torch.float32)
    expected = copy.deepcopy(node)(x)
    compiled = copy.deepcopy(node)
    y = torch.compile(compiled, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, expected, **TOLERANCES[torch.float32]._asdict())
    y.sum().backward()
    assert compiled.alpha.grad is not None
    node.eval()
    exported = torch.export.export(node, (x,)).module()
    torch.testing.assert_close(exported(x), node(x), **TOLERANCES[torch.float32]._asdict())


def test_pickles_from_before_there_were_candidates():
    node, x = SuperNeuron(C, ("SLIF", "LIF"), tau=1.4).eval(), images(torch.float32)
    state = copy.deepcopy(node.__dict__)
    del state["candidates"], state["_buffers"]["removed"]
    state["_non_persistent_buffers_set"] = set()
    old = SuperNeuron.__new__(SuperNeuron)
    old.__setstate__(state)
    assert old.candidates == node.candidates and old.removed is None
    assert torch.equal(old(x), node(x)) and list(old.state_dict()) == list(node.state_dict())
    old.keep("LIF")
    assert list(old.state_dict()) == list(node.state_dict()) and type(old.node()) is LIFNode


class Crowded(Neuron):
    """Its constants have names that a super neuron has for something else; its threshold has a default of its own."""

    v = State()
    momentum = Constant(0.5)
    eps = Constant(0.25)
    v_threshold = Constant(0.6)

    def step(n, x, v):
        h = n.charge(n.momentum * x + n.eps, v)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)


def test_names_that_a_super_neuron_has_for_something_else():
    ours = SuperNeuron(C, (Crowded, Crowded(eps=0.3)), momentum=0.9, eps=1e-30, v_threshold=0.7).eval().double()
    plain, other = map(ours.node, ours.neurons)
    assert (plain.momentum, plain.eps, other.momentum, other.eps) == (0.5, 0.25, 0.5, 0.3)
    for name, node in zip(ours.neurons, (plain, other), strict=True):
        ours.keep(name)
        assert torch.equal(ours(images()), node(images()))

"""from_spikingjelly and to_spikingjelly: the same spikes and gradients, checkpoints both ways, what is refused."""

import math

import pytest
import torch
from torch import nn

import stdano
from stdano import IFNode, LIFNode, ParametricLIFNode

layer = pytest.importorskip("spikingjelly.activation_based.layer", reason="SpikingJelly is not installed")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
functional = pytest.importorskip("spikingjelly.activation_based.functional")


def theirs():
    return nn.Sequential(
        layer.Conv2d(2, 3, 3, step_mode="m"),
        layer.BatchNorm2d(3, step_mode="m"),
        neuron.ParametricLIFNode(init_tau=3.0, decay_input=False, step_mode="m", detach_reset=True),
        layer.Flatten(step_mode="m"),
        nn.Linear(48, 6),
        neuron.IFNode(v_threshold=0.5, v_reset=None, step_mode="m", surrogate_function=surrogate.ATan()),
        nn.Linear(6, 4),
        neuron.LIFNode(tau=1.5, v_threshold=0.1, v_reset=-0.25, step_mode="m", store_v_seq=True),
    )


def run(model, x, weights):
    """Spikes and gradients of all parameters."""
    functional.reset_net(model)
    spikes = model(x)
    return spikes.detach(), torch.autograd.grad((spikes * weights).sum(), list(model.parameters()))


def assert_same(one, other):
    assert other[0].sum() > 20 and torch.equal(one[0], other[0])
    for mine, gradient in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(mine, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_there_and_back_with_checkpoints(tmp_path):
    model = theirs()
    x, weights = 3 * torch.randn(60, 3, 2, 6, 6), torch.randn(60, 3, 4)
    model(x)  # moves the statistics
    model.eval()
    with torch.no_grad():
        model[2].w.add_(0.3)
    expected = run(model, x, weights)
    torch.save(model.state_dict(), tmp_path / "theirs.pt")

    ours = stdano.from_spikingjelly(theirs().eval())
    assert [type(m) for m in (ours[2], ours[5], ours[7])] == [ParametricLIFNode, IFNode, LIFNode]
    assert not ours[2].training and ours[7].store_v_seq and ours[5].v_reset is None
    ours.load_state_dict(torch.load(tmp_path / "theirs.pt"))
    assert_same(run(ours, x, weights), expected)
    torch.save(ours.state_dict(), tmp_path / "ours.pt")

    back = theirs().eval()
    back.load_state_dict(torch.load(tmp_path / "ours.pt"))
    assert_same(run(back, x, weights), expected)
    w = ours[2].w
    assert stdano.to_spikingjelly(ours) is ours
    assert type(ours[2]) is neuron.ParametricLIFNode and ours[2].w is w and type(ours[5]) is neuron.IFNode
    assert ours[7].tau == 1.5 and ours[7].store_v_seq and ours[7].v_reset == -0.25 and ours[2].detach_reset
    assert_same(run(ours, x, weights), expected)


@pytest.mark.parametrize(
    "settings",
    [
        dict(tau=3.0),
        dict(tau=0.4, v_reset=None),
        dict(tau=20.0, v_threshold=torch.tensor(0.75), alpha=2.0),
        dict(tau=4.0, decay="linear", decay_input=True, surrogate_function="piecewise_exp", alpha=2.0),
        dict(tau=math.inf),
    ],
    ids=["exp", "short", "long", "linear", "no leak"],
)
def test_lif_becomes_spikingjellys(settings):
    ours = LIFNode(**settings)
    x = (0.3 + torch.randn(200, 4, 8)).requires_grad_()
    weights = torch.randn_like(x)
    expected = ours(x)
    slope = torch.autograd.grad((expected * weights).sum(), x)[0]
    other = stdano.to_spikingjelly(ours)
    assert type(other) is (neuron.IFNode if settings["tau"] == math.inf else neuron.LIFNode)
    actual = other(x)
    assert expected.sum() > 50 and torch.equal(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad((actual * weights).sum(), x)[0], slope, rtol=1e-5, atol=1e-5 * float(slope.abs().max())
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stdano.LLIFNode(), r"\(LLIFNode\).*of stdano's neurons LIFNode, IFNode and ParametricLIFNode alone"),
        (lambda: type("Mine", (LIFNode,), {})(), r"\(Mine\).*of stdano's neurons LIFNode"),
        (lambda: LIFNode(tau=torch.full((4,), 2.0)), r"tau must be a number .* a tensor of shape \[4\]"),
        (lambda: LIFNode(v_threshold=nn.Parameter(torch.tensor(1.0))), "v_threshold must be a number .* is learned"),
        (lambda: LIFNode(decay_input=True), 'with decay="exp" decay_input'),
        (lambda: LIFNode(tau=0.01), "tau = 0.01 leaves nothing"),
        (lambda: ParametricLIFNode(), 'decay must be "linear" where tau is learned'),
        (lambda: LIFNode(surrogate_function="fast_sigmoid", alpha=2.0), "alpha of fast_sigmoid must be 1"),
        (lambda: LIFNode(spike="soft"), 'spike must be "hard"'),
        (lambda: stdano.SuperNeuron(4), r"\(SuperNeuron\)"),
    ],
    ids=["llif", "subclass", "channels", "learned", "input", "tiny", "parametric", "surrogate", "soft", "super"],
)
def test_what_spikingjelly_lacks(make, message):
    model = nn.Sequential(LIFNode(), make())
    before = list(model)
    with pytest.raises(ValueError, match=f"layer '1' .*{message}"):
        stdano.to_spikingjelly(model)
    assert list(model) == before


def test_a_fused_neuron_must_be_taken_apart_first():
    model = nn.Sequential(nn.BatchNorm1d(4), LIFNode(step_mode="s"))
    assert stdano.fuse(model).fused
    with pytest.raises(ValueError, match=r"call unfuse\(\) first"):
        stdano.to_spikingjelly(model)
    assert isinstance(stdano.to_spikingjelly(stdano.unfuse(model))[1], neuron.LIFNode)


def test_what_stdano_lacks():
    model = nn.Sequential(neuron.LIFNode(), neuron.QIFNode())
    with pytest.raises(ValueError, match=r"layer '1' \(QIFNode\) cannot be converted: its dynamics would be lost"):
        stdano.from_spikingjelly(model)
    assert isinstance(model[0], neuron.LIFNode)
    model[1] = neuron.IFNode(surrogate_function=surrogate.Erf())
    with pytest.raises(
        ValueError, match=r"layer '1' \(IFNode\) cannot be converted: surrogate_function must be one of"
    ):
        stdano.from_spikingjelly(model)
    with pytest.raises(ValueError, match="model must have spiking layers of SpikingJelly, Sequential has none"):
        stdano.from_spikingjelly(nn.Sequential(LIFNode()))
    with pytest.raises(ValueError, match="model must have spiking layers of stdano, Sequential has none"):
        stdano.to_spikingjelly(model)

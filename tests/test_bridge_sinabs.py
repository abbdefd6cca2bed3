"""from_sinabs: the same spikes, potentials and gradients as sinabs' LIF and IAF; what is refused; checkpoints."""

import pytest
import torch
from torch import nn

import stdano

layers = pytest.importorskip("sinabs.layers", reason="sinabs is not installed")
activation = pytest.importorskip("sinabs.activation")

single = dict(spike_fn=activation.SingleSpike)
SETTINGS = {
    "LIF": lambda: layers.LIF(tau_mem=5.0, spike_threshold=1, min_v_mem=-0.1, norm_input=False, **single),
    "IAF": lambda: layers.IAF(spike_threshold=torch.tensor(0.8), reset_fn=activation.MembraneReset(0.1), **single),
    "current": lambda: layers.LIF(tau_mem=torch.rand(7) * 9 + 1, tau_syn=3.0, spike_threshold=0.5, **single),
    "decays": lambda: layers.LIF(tau_mem=5.0, tau_syn=2.0, norm_input=False, train_alphas=True, **single),
    "several": lambda: layers.LIF(
        tau_mem=5.0,
        norm_input=False,
        spike_threshold=torch.tensor(1.3),
        surrogate_grad_fn=activation.SingleExponential(0.05, 2.0),
    ),
    "less": lambda: layers.IAF(min_v_mem=-1.0, reset_fn=activation.MembraneSubtract(0.7), **single),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_same_bits_and_gradients(name):
    theirs = SETTINGS[name]()
    x = 0.3 + 0.7 * torch.randn(4, 200, 7)
    weights = torch.randn(4, 200, 7) / 100
    learned = [p for p in theirs.parameters() if p.requires_grad]

    def run(layer, data, time):
        data = data.clone().requires_grad_()
        spikes = layer(data)
        v = layer.v if isinstance(layer, stdano.BaseNode) else layer.v_mem
        slopes = torch.autograd.grad((spikes.transpose(0, time) * weights).sum() + v.sum(), [data, *learned])
        return [spikes.transpose(0, time).detach(), v.detach(), slopes[0].transpose(0, time), *slopes[1:]]

    expected = run(theirs, x, 0)
    actual = run(stdano.from_sinabs(theirs, max_spikes=3), x.transpose(0, 1), 1)
    assert expected[0].sum() > 100 and expected[0].max() == (2 if name == "several" else 1)
    for mine, other in zip(actual[:2], expected[:2], strict=True):
        assert torch.equal(mine, other)
    for mine, other in zip(actual[2:], expected[2:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


class Blocks(nn.Module):
    """Convolutions of sinabs' kind: time and batch are one axis, batch first."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.flatten, self.fc = (
            nn.Conv2d(2, 3, 3),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 5),
        )
        self.first = layers.IAFSqueeze(batch_size=2, min_v_mem=-1.0, **single)
        self.last = layers.LIFSqueeze(num_timesteps=20, tau_mem=3.0, norm_input=False, **single)

    def forward(self, x):
        return self.last(self.fc(self.flatten(self.pool(self.first(self.conv(x))))))


def test_squeezed_layers_are_called_as_before(tmp_path):
    model = Blocks()
    x = 9 * torch.randn(40, 2, 6, 6)
    expected = model(x)
    assert expected.sum() > 5
    torch.save(model.state_dict(), tmp_path / "theirs.pt")  # with the states in it
    fresh = Blocks()
    seen = []
    fresh.first.register_forward_hook(lambda *_: seen.append(1))
    assert stdano.from_sinabs(fresh) is fresh
    assert not torch.equal(fresh(x), expected)
    stdano.reset_net(fresh)
    fresh.load_state_dict(torch.load(tmp_path / "theirs.pt"))
    assert torch.equal(fresh(x), expected) and len(seen) == 2


def test_max_spikes_bounds_the_spikes():
    ours = stdano.from_sinabs(layers.IAF(), max_spikes=3)
    assert ours(torch.tensor([2.5, 8.0, 0.0]).reshape(3, 1, 1)).flatten().tolist() == [2, 3, 3]  # 5.5 were left
    for wrong in (17, 2.0):
        with pytest.raises(ValueError, match=f"max_spikes must be None or an integer from 1 to 16, got {wrong}"):
            stdano.from_sinabs(layers.IAF(), max_spikes=wrong)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.IAF(), "spike_fn is MultiSpike.*give max_spikes"),
        (
            lambda: layers.IAF(spike_fn=activation.MaxSpike(3)),
            "spike_fn must be SingleSpike or MultiSpike, got MaxSpike",
        ),
        (lambda: layers.LIF(tau_mem=2.0, record_states=True, **single), "record_states"),
        (lambda: layers.ExpLeak(tau_mem=2.0), r"\(ExpLeak\).*of sinabs' layers LIF, IAF"),
        (lambda: layers.ALIF(tau_mem=2.0, tau_adapt=4.0), r"\(ALIF\).*of sinabs' layers LIF, IAF"),
        (
            lambda: layers.IAF(surrogate_grad_fn=activation.PeriodicExponential(), **single),
            "surrogate_grad_fn must be SingleExponential, got PeriodicExponential",
        ),
        (lambda: layers.IAF(reset_fn=lambda *a: a, **single), "reset_fn must be .*, got function"),
    ],
    ids=["several", "most", "records", "leak", "adaptive", "surrogate", "reset"],
)
def test_what_is_refused(layer, message):
    model = nn.Sequential(layers.IAF(**single), layer())
    before = list(model)
    with pytest.raises(ValueError, match=f"layer '1' .*{message}"):
        stdano.from_sinabs(model)
    assert list(model) == before


def test_models_without_layers():
    with pytest.raises(ValueError, match="model must have spiking layers of sinabs, Linear has none"):
        stdano.from_sinabs(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("v_threshold", lambda c: dict(tau_mem=2.0, spike_threshold=c)),
        ("tau_mem", lambda c: dict(tau_mem=c)),
        ("alpha_syn", lambda c: dict(tau_mem=2.0, tau_syn=c, train_alphas=True)),
        ("reset_to", lambda c: dict(tau_mem=2.0, reset_fn=activation.MembraneSubtract(c))),
    ],
)
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_constants_along_the_last_dimensions_are_not_taken_for_channels(name, settings, shape):
    layer = stdano.from_sinabs(layers.LIF(**settings(torch.linspace(2.0, 3.0, 4).reshape(shape)), **single))
    message = rf"{name} of Sinabs\w+ has the shape \[{str([*shape])[1:-1]}\].*One a channel has the shape \[4, 1, 1\]"
    with pytest.raises(ValueError, match=message):
        layer(torch.randn(3, 2, 4, 4, 4))

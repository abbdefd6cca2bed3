"""from_snntorch: the same spikes, potentials and gradients as snnTorch's Leaky; what is refused; checkpoints."""

import pytest
import torch
from torch import nn

import stdano

snn = pytest.importorskip("snntorch", reason="snnTorch is not installed")
surrogate = pytest.importorskip("snntorch.surrogate")


def stepped(layer, x):
    """Spikes and potentials of a snnTorch layer called step by step, [T, B, ...] each."""
    mem, out = layer.reset_mem(), []
    for step in x:
        spk, mem = layer(step, mem)
        out.append((spk, mem))
    return tuple(torch.stack(part) for part in zip(*out, strict=True))


def gradients(outputs, weights, inputs):
    return torch.autograd.grad(sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)), inputs)


SETTINGS = {
    "default": dict(beta=0.9),
    "zero": dict(beta=0.7, reset_mechanism="zero", spike_grad=surrogate.fast_sigmoid(slope=5)),
    "none": dict(beta=0.5, reset_mechanism="none", spike_grad=surrogate.sigmoid(slope=4)),
    "at once": dict(beta=0.95, threshold=0.6, reset_delay=False),
    "zero at once": dict(beta=0.99, reset_mechanism="zero", reset_delay=False),
    "beyond 1": dict(beta=1.5, threshold=0.5, spike_grad=surrogate.atan(alpha=3.0)),
    "straight through": dict(beta=0.25, spike_grad=surrogate.straight_through_estimator()),
    "of each neuron": dict(beta=torch.linspace(0.01, 0.99, 11), threshold=torch.linspace(0.5, 1.5, 11)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_same_bits_and_gradients(name):
    settings = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in SETTINGS[name].items()}
    theirs = snn.Leaky(**settings, learn_beta=True, learn_threshold=True)
    x = (0.2 + 0.6 * torch.randn(200, 3, 11)).requires_grad_()
    weights = torch.randn(2, 200, 3, 11) / 100
    inputs = (x, theirs.beta, theirs.threshold)
    expected = stepped(theirs, x)
    slopes = gradients(expected, weights, inputs)
    ours = stdano.from_snntorch(theirs)
    assert ours.beta is theirs.beta and ours.v_threshold is theirs.threshold
    actual = ours(x)
    assert 100 < expected[0].sum() < x.numel() - 100
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])
    for mine, other in zip(gradients(actual, weights, inputs), slopes, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_a_potential_at_the_threshold_does_not_spike():
    theirs = snn.Leaky(beta=0.5, threshold=1)
    x = torch.tensor([1.0, 0.5, 0.75, 0.625 + 2**-23]).reshape(4, 1, 1)
    expected = stepped(theirs, x)[0].flatten().tolist()
    assert expected == [0, 0, 1, 0]  # 1, 1, 1.25, 0.25 and what the late reset took
    assert stdano.from_snntorch(theirs)(x)[0].flatten().tolist() == expected


def test_a_loop_in_half_precision_keeps_the_bits_of_the_potential():
    """snnTorch's potentials are float32 then; rounded between steps they would forget resets."""
    theirs = snn.Leaky(beta=0.9)
    x = (0.5 * torch.rand(60, 8, 50)).bfloat16()
    expected = stepped(theirs, x)
    actual = stepped(stdano.from_snntorch(theirs, step_mode="s"), x)
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1]) and expected[0].mean() > 0.1


class Loop(nn.Module):
    """As in snnTorch's tutorials: a loop over time that passes potentials around."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 9), snn.Leaky(beta=0.8)
        self.fc2, self.lif2 = nn.Linear(9, 4), snn.Leaky(beta=0.6, learn_beta=True, reset_mechanism="zero")

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.init_leaky()
        spikes, potentials = [], []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)


class Sequences(Loop):
    def forward(self, x):
        spk1, _ = self.lif1(self.fc1(x))
        return self.lif2(self.fc2(spk1))


def test_a_loop_and_sequences(tmp_path):
    model = Loop()
    x = torch.randint(-3, 4, (30, 5, 6)).float()
    with torch.no_grad():  # on a grid, on which a product of matrices is exact whatever its size
        for p in model.parameters():
            p.copy_((p * 64).round() / 64)
    model.lif2.beta.data.fill_(0.6)
    expected = model(x)
    expected[1].square().mean().backward()
    slopes = [p.grad for p in model.parameters()]
    torch.save(model.state_dict(), tmp_path / "theirs.pt")
    seen = []
    model.lif1.register_forward_hook(lambda *_: seen.append(1))
    assert stdano.from_snntorch(model, step_mode="s") is model
    whole = stdano.from_snntorch(Sequences())
    whole.load_state_dict(torch.load(tmp_path / "theirs.pt"))  # snnTorch's checkpoint
    for converted in (model, whole):
        for _ in range(2):  # reset_mem() has reset the loop; the other one carries its state
            stdano.reset_net(whole)
            converted.zero_grad()
            actual = converted(x)
            assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])
        actual[1].square().mean().backward()
        for p, slope in zip(converted.parameters(), slopes, strict=True):
            torch.testing.assert_close(p.grad, slope, rtol=1e-4, atol=1e-6)
    assert len(seen) == 60


def test_hidden_potentials_and_layers_that_are_used_twice():
    shared = snn.Leaky(beta=0.5, init_hidden=True)
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared).eval()
    stdano.from_snntorch(model)
    assert model[1] is model[3] and not model[1].training and not model[1].returns_v
    last = stdano.from_snntorch(snn.Leaky(beta=0.5, init_hidden=True, output=True))
    spikes, v = last(torch.randn(7, 2, 3))
    assert spikes.shape == v.shape == (7, 2, 3) and torch.equal(v[-1], last.v)
    single, x = stdano.from_snntorch(snn.Leaky(beta=0.5), step_mode="s"), torch.full((2, 3), 0.5)
    assert single(x)[1].eq(0.5).all() and single(x)[1].eq(0.75).all() and single(x, torch.ones(2, 3))[1].eq(1).all()
    assert single(x, torch.zeros(0))[1].eq(0.5).all()  # begins anew


def test_misuse_is_an_error():
    with pytest.raises(ValueError, match=r"takes whole sequences .* got x \[2, 9\].*step_mode=\"s\""):
        stdano.from_snntorch(Loop())(torch.randn(3, 2, 6))
    layer = stdano.from_snntorch(snn.Leaky(beta=0.5))
    with pytest.raises(ValueError, match=r"got a potential of shape \[2, 6\].*step_mode=\"s\""):
        layer(torch.randn(3, 2, 6), torch.zeros(2, 6))
    hidden = stdano.from_snntorch(snn.Leaky(beta=0.5, init_hidden=True), step_mode="s")
    with pytest.raises(ValueError, match="mem must not be given"):
        hidden(torch.randn(2, 6), torch.zeros(2, 6))
    single = stdano.from_snntorch(snn.Leaky(beta=0.5), step_mode="s")
    with pytest.raises(ValueError, match=r"mem must have the shape of x, \[2, 6\], got \[1\]"):
        single(torch.randn(2, 6), torch.ones(1))
    along_width = stdano.from_snntorch(snn.Leaky(beta=torch.rand(6)))
    with pytest.raises(
        ValueError, match=r"beta of LeakyNode has the shape .6., .*One a channel has the shape \[6, 1, 1\]"
    ):
        along_width(torch.randn(3, 2, 6, 5, 6))
    with pytest.raises(ValueError, match="step_mode must be"):
        stdano.from_snntorch(Loop(), step_mode="whole")


def test_constants_of_channels():
    beta = torch.rand(3, 1, 1)
    theirs = snn.Leaky(beta=beta, threshold=torch.tensor([0.5]), learn_threshold=True)
    x = torch.randn(20, 2, 3, 4, 5)
    expected = stepped(theirs, x)
    ours = stdano.from_snntorch(theirs)
    assert torch.equal(ours(x)[0], expected[0])
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: snn.Leaky(beta=0.5, state_quant=lambda v: v), "state_quant"),
        (lambda: snn.Leaky(beta=0.5, graded_spikes_factor=2.0), "graded spikes"),
        (lambda: snn.Leaky(beta=0.5, learn_graded_spikes_factor=True), "graded spikes"),
        (lambda: snn.Leaky(beta=0.5, spike_grad=surrogate.SFS()), "spike_grad must be .* got SFS"),
        (lambda: snn.Leaky(beta=0.5, spike_grad=torch.sigmoid), "spike_grad must be .* got .*sigmoid"),
        (lambda: snn.Leaky(beta=0.5, surrogate_disable=True), "surrogate_disable"),
        (lambda: snn.Leaky(beta=torch.rand(2, 3)), r"beta must have the shape .* got \[2, 3\]"),
        (lambda: snn.Synaptic(alpha=0.5, beta=0.5), r"\(Synaptic\).*Leaky alone"),
        (lambda: type("Mine", (snn.Leaky,), {})(beta=0.5), r"\(Mine\).*Leaky alone"),
    ],
    ids=["quantised", "graded", "learns grades", "sparse", "function", "no surrogate", "shape", "synaptic", "subclass"],
)
def test_what_is_refused(layer, message):
    model = nn.Sequential(snn.Leaky(beta=0.5), layer())
    before = list(model)
    with pytest.raises(ValueError, match=f"layer '1' .*{message}"):
        stdano.from_snntorch(model)
    assert list(model) == before


def test_inhibition_and_models_without_layers():
    with pytest.warns(UserWarning):
        layer = snn.Leaky(beta=0.5, inhibition=True)
    with pytest.raises(ValueError, match="Leaky cannot be converted: inhibition"):
        stdano.from_snntorch(layer)
    with pytest.raises(ValueError, match="model must have spiking layers of snnTorch, Linear has none"):
        stdano.from_snntorch(nn.Linear(2, 2))


def test_a_checkpoint_with_another_reset_is_refused():
    ours = stdano.from_snntorch(snn.Leaky(beta=0.5))
    with pytest.raises(RuntimeError, match="reset_mechanism_val is 'zero'.*reset_mechanism is 'subtract'"):
        ours.load_state_dict(snn.Leaky(beta=0.5, reset_mechanism="zero").state_dict())

"""The share of each time step in the input's gradient: by kernels, by the paper's closed form, and over neurons."""

import copy
import math
import sys
from pathlib import Path

import processes
import pytest
import torch
from spikingjelly.activation_based import neuron as spikingjelly_neuron
from tolerances import TOLERANCES
from torch import nn

import stdano
from stdano.analysis import (
    GradientShare,
    gradient_share,
    interval,
    jacobian,
    layer_inputs,
    lif_jacobian,
    network_shares,
    reach,
    share_study,
)
from stdano.pictures.shares import shares, shifts
from stdano_kernels import Constant, Neuron, State
from stdano_kernels.define import spike


class Fading(Neuron):
    """Integrate-and-fire whose input counts less with each spike before."""

    v = State(0.0)
    worth = State(1.0)
    loss = Constant(0.5)

    def step(n, x, v, worth):
        h = v + worth * x
        s = spike(h - n.v_threshold)
        return s, h - s, worth - n.loss * s


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    "settings",
    (
        {},
        {"v_reset": None, "tau": 1.1},
        {"v_reset": 0.2, "v_threshold": 0.8, "surrogate": "atan", "alpha": 1.5},
        {"decay": "linear", "decay_input": True, "tau": 1.4, "detach_reset": True},
        {"v_reset": None, "detach_reset": True, "tau": math.inf},
    ),
    ids=str,
)
def test_the_closed_form_is_the_gradient(settings):
    """Eq. 22 with i from 1 on, and its forms for the other settings."""
    settings, x = {"backend": "reference"} | settings, normal(7, 3, 50, dtype=torch.float64)
    expected = lif_jacobian(x, **settings)
    torch.testing.assert_close(jacobian("LIF", x, **settings), expected, **TOLERANCES[torch.float64]._asdict())
    column = expected.sum(0).flatten(1)
    share = gradient_share("LIF", x, **settings)
    assert share.share == pytest.approx((column.abs().sum(1) / column.abs().sum()).tolist())
    assert share.signed == pytest.approx((column.sum(1) / column.sum()).tolist())
    hard = settings.get("v_reset") is not None or "v_reset" not in settings
    assert (expected < 0).any() == (hard and "detach_reset" not in settings)  # kappa may be below 0 (eq. 37)


@pytest.mark.parametrize("v_reset", (0.0, None), ids=("hard", "soft"))
def test_the_closed_form_is_the_kernels_gradient(v_reset):
    x = normal(6, 400)
    matrix = jacobian("lif", x, tau=1.1, v_reset=v_reset, backend="cpu")
    torch.testing.assert_close(matrix, lif_jacobian(x, tau=1.1, v_reset=v_reset), **TOLERANCES[x.dtype]._asdict())
    assert matrix.shape == (6, 6, 400) and not matrix.movedim(2, 0).triu(1).any()


def test_as_printed_the_sum_starts_one_too_early():
    """Eq. 4 with i from 0 counts the diagonal twice."""
    x = normal(5, 100, dtype=torch.float64)
    matrix = lif_jacobian(x, backend="reference")
    printed = matrix.sum() + matrix.diagonal().sum()
    leaf = x.clone().requires_grad_()
    stdano.LIFNode(backend="reference")(leaf).sum().backward()
    assert leaf.grad.sum() == pytest.approx(matrix.sum().item())
    assert printed > 1.3 * matrix.sum()


def test_the_signs_of_appendix_c():
    """kappa's derivative by the threshold is +V below it and -V above (eq. 46 has -V on both sides), and its mean over
    normal potentials grows."""

    def kappa(v, threshold):
        return 1 - (v >= threshold).double() - v * (1 - (v - threshold).abs()).clamp(min=0)

    v = torch.tensor([0.7, 1.3], dtype=torch.float64)
    change = (kappa(v, 1 + 1e-6) - kappa(v, 1 - 1e-6)) / 2e-6
    assert change.tolist() == pytest.approx([0.7, -1.3], rel=1e-4)
    potentials = torch.special.ndtri(torch.arange(1, 100_000, dtype=torch.float64) / 100_000)
    means = [kappa(potentials, x).mean().item() for x in (1.0, 1.1)]
    assert [round(m, 3) for m in means] == [0.636, 0.658]


def test_numbers_of_a_share():
    share = GradientShare((0.5, 0.3, 0.2), (1.5, -1.0, 0.5))
    assert (share.centre, share.early, share.late) == pytest.approx((0.7, 0.65, 0.35))
    assert GradientShare((0.5, 0.3, 0.1, 0.1), ()).early == pytest.approx(0.8)
    assert GradientShare((1.0,), (1.0,)).early == 0.5
    matrix = torch.zeros(3, 3, 2)
    matrix[2, 0], matrix[1, 1] = torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 1.0])
    assert reach(matrix) == pytest.approx(2 * 1 / 4)


def test_any_neuron_and_any_layer():
    x = normal(6, 2, 5, 4) + 0.5
    layer = stdano.node(Fading)(loss=nn.Parameter(torch.full((5,), 0.3)), backend="reference")
    expected = gradient_share(Fading, x, loss=0.3, backend="reference")
    assert gradient_share(layer, x) == expected and layer.loss.grad is None and layer.v == 0.0
    assert gradient_share(layer, x, loss=0.9) != expected and expected.centre < 2.5
    for neuron in ("llif", "LLIF", stdano.LLIFNode, stdano.LLIFNode()):
        assert gradient_share(neuron, x) == gradient_share("LLIFNode", x)
    with torch.no_grad():
        assert sum(gradient_share("SLIF", x.half()).share) == pytest.approx(1)


def test_wrong_arguments():
    x = normal(3, 4)
    for arguments, settings, error, message in (
        (("LIV", x), {}, ValueError, "neuron must be one of 'LIF'"),
        (("LIF", x), {"gamma": 1.0}, TypeError, r"unexpected keyword argument 'gamma'; allowed are tau"),
        (("LIF", x), {"state": None}, TypeError, "unexpected keyword argument 'state'"),
        (("LIF", x.long()), {}, TypeError, "x must be a tensor of floating-point numbers, got torch.int64"),
        (("LIF", x[:0]), {}, ValueError, r"x must be \[T, ...\] with at least one step and one neuron, got shape \[0"),
    ):
        with pytest.raises(error, match=message):
            gradient_share(*arguments, **settings)
    for given, message in (
        ({"T": ()}, "T must have at least one value, got none"),
        ({"seeds": 0}, "seeds must be an integer from 1 on, got 0"),
        ({"T": (0,)}, "T must be an integer from 1 on, got 0"),
        ({"correlation": (1.5,)}, "correlation must be numbers from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            share_study(**given)
    net = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="model must have spiking layers"):
        network_shares(net, [(x[:, None], torch.zeros(1, dtype=torch.long))])
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        network_shares(nn.Sequential(net, stdano.LIFNode()), [])


class Net(nn.Module):
    """Two spiking layers behind norms, all steps at once or one by one."""

    def __init__(self, first, second):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.first = nn.Linear(6, 8), nn.BatchNorm1d(8), first
        self.last, self.second = nn.Linear(8, 5), second

    def forward(self, x):
        if getattr(self.first, "step_mode", "m") == "s":
            return torch.stack([self.one(step) for step in x])
        y = self.first(self.norm(self.linear(x).flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.second(x=self.last(y))

    def one(self, x):
        return self.second(self.last(self.first(self.norm(self.linear(x)))))


def batches():
    return [(2 * normal(4, 7, 6, seed=seed), torch.arange(7) % 5) for seed in range(2)]


def test_of_a_network():
    """By autograd written out; nothing about the network changes."""
    net = Net(stdano.LLIFNode(), stdano.SLIFNode())
    for frozen in (net.linear, net.norm):  # so that nothing in front of the first neuron needs a gradient
        frozen.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    result = network_shares(net, batches())
    assert list(result) == ["first", "second"] and net.training and net.first.v == 0.0
    assert all(torch.equal(a, before[k]) for k, a in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())

    net.eval()
    magnitudes = torch.zeros(2, 4)
    for x, labels in batches():
        stdano.reset_net(net)
        a = net.norm(net.linear(x).flatten(0, 1)).unflatten(0, x.shape[:2]).requires_grad_()
        b = net.last(net.first(a))
        loss = stdano.training.tet_loss(net.second(b), labels)
        magnitudes += torch.stack([g.abs().sum((1, 2)) for g in torch.autograd.grad(loss, (a, b))])
    expected = magnitudes / magnitudes.sum(1, keepdim=True)
    assert [r.share for r in result.values()] == [pytest.approx(row.tolist(), rel=1e-5) for row in expected]
    stdano.fuse(net)
    (given,) = layer_inputs(net, x)["first"]
    torch.testing.assert_close(given, a.detach())
    assert network_shares(net, batches())["first"].share == pytest.approx(result["first"].share, rel=1e-5)


def test_of_a_network_step_by_step_and_of_spikingjellys():
    settings = {"tau": 2.0, "decay_input": True, "decay": "linear", "surrogate_function": "sigmoid", "alpha": 4.0}
    plain = network_shares(Net(*[stdano.LIFNode(**settings) for _ in range(2)]), batches())
    stepwise = network_shares(Net(*[stdano.LIFNode(**settings, step_mode="s") for _ in range(2)]), batches())
    others = network_shares(Net(*[spikingjelly_neuron.LIFNode(step_mode="m") for _ in range(2)]), batches())
    for name, share in plain.items():
        assert stepwise[name].share == pytest.approx(share.share, rel=1e-4)
        assert others[name].share == pytest.approx(share.share, rel=1e-4)


def test_intervals():
    assert (interval([1, 2, 3]).mean, interval([1, 2, 3]).half) == pytest.approx((2, 4.303 / math.sqrt(3)))
    for count, quantile in ((6, 2.571), (7, 2.447), (10, 2.262), (20, 2.093), (1001, 1.962)):
        values = [(-1) ** k for k in range(count)]
        deviation = torch.tensor(values, dtype=torch.float64).std().item()
        assert interval(values).half * math.sqrt(count) / deviation == pytest.approx(quantile, abs=3e-3)
    assert math.isnan(interval([1.0]).half) and interval([1.0]).count == 1
    with pytest.raises(ValueError, match="values must be at least one, got none"):
        interval([])


def test_what_the_study_says_of_the_papers_claims():
    rows = {(r.neuron, r.reset, r.settings["correlation"]): r for r in share_study(correlation=(0.0, 1.0), seeds=3)}
    assert len(rows) == 6
    llif, slif, soft = (rows[n, r, 0.0] for n, r in (("LLIF", "hard"), ("SLIF", "hard"), ("SLIF", "soft")))
    assert llif.holds is True and -0.12 < llif.centre.mean < -0.09 and llif.reach.low > 0 and llif.spikes.high < 0
    assert slif.holds is False and slif.reach.high < 0  # against the paper's LIF: earlier, though less far back
    assert abs(soft.centre.mean) < 1e-3  # what the moving time constant does
    still = rows["LLIF", "hard", 1.0]  # constant input that fires is never below 0: LLIF is LIF
    assert still.share == still.lif_share and still.holds is None and still.centre.mean == 0
    assert sum(llif.share) == pytest.approx(1) and llif.settings == {
        **{"T": 6, "mean": 0.0, "std": 1.0, "correlation": 0.0, "v_threshold": 1.0, "tau": 1.1, "decay": "exp"},
        **{"gamma": 0.1, "detach_adapt": False},
    }


def test_inputs_have_the_correlation_asked_for():
    from stdano.analysis.share_study import _inputs

    x = _inputs(3, 0.5, 2.0, 0.6, seed=1, neurons=100_000)
    assert torch.corrcoef(x)[0, 2].item() == pytest.approx(0.6, abs=0.01)
    assert (x.mean().item(), x.std().item()) == pytest.approx((0.5, 2.0), abs=0.02)


def test_pictures():
    pytest.importorskip("matplotlib")
    given = {name: gradient_share(name, normal(4, 100)) for name in ("LIF", "LLIF", "SLIF")}
    (axis,) = shares({**given, "numbers": (0.5, 0.5)}, "title").axes
    assert axis.get_ylim()[0] == 0 and [len(line.get_xdata()) for line in axis.lines] == [4, 4, 4, 2]
    assert axis.lines[1].get_ydata()[0] == pytest.approx(100 * given["LLIF"].share[0])
    sweeps = {name: share_study(**{name: values}, seeds=2, neurons=50) for name, values in _SWEEPS.items()}
    figure = shifts(sweeps)
    assert [axis.get_xlabel() for axis in figure.axes if axis.get_visible()] == [*_SWEEPS]
    assert [len(axis.containers) for axis in figure.axes] == [3, 1, 3, 0]
    for call in (lambda: shares({}), lambda: shifts({})):
        with pytest.raises(ValueError, match="must hold"):
            call()


_SWEEPS = {"T": (2, 4), "gamma": (0.1, 0.2), "tau": (1.1, 2.0)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("study", ("settings", "networks"))
def test_the_study_runs(study, tmp_path):
    options = {
        "settings": ["--seeds", 2, "--grid-seeds", 1, "--neurons", 8],
        "networks": ["--presets", "digits", "--of-seeds", 0, "--epochs", 1, "--batches", 1],
    }
    script = Path(__file__).parent.parent / "benchmarks" / "gradient_shares.py"
    done = processes.run([sys.executable, script, study, *options[study], "--out", tmp_path], check=True)
    tables = [line for line in done.stdout.splitlines() if line.startswith("|")]
    if study == "networks":
        assert len(tables) == 2 + 4 and tables[0] == "| layer | LIF | LLIF - LIF | SLIF - LIF |"
        return
    counts = [[int(n) for n in line.split("|")[2:5]] for line in tables[-3:]]
    assert [sum(row) for row in counts] == [1296] * 3
    assert {f.name for f in tmp_path.iterdir()} == {"shares.png", "shifts.png"}

"""Alpha's gradient: first order, second order against exact differentiation, and that nothing else moves."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from processes import HANG_SECONDS
from torch import nn
from torch.func import functional_call

from stdano import LIFNode, SuperNeuron

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

from stdano.search import Architect
from stdano.search.architect import SHIFT, alphas, first_order, second_order, weights

T, B, CLASSES = 4, 3, 4
SGD = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.1}


class Net(nn.Module):
    """Two convolutions with super neurons, defined in another order than they run in."""

    def __init__(self, dropout=0.0, **settings):
        super().__init__()
        self.head = nn.Linear(4, CLASSES)
        self.later = SuperNeuron(4, **settings)
        self.second = nn.Conv2d(3, 4, 3)
        self.dropout = nn.Dropout(dropout)
        self.former = SuperNeuron(3, **settings)
        self.norm = nn.BatchNorm2d(3)
        self.first = nn.Conv2d(2, 3, 3)

    def forward(self, x):
        x = self.former(self.norm(self.first(x)).unflatten(0, (T, -1)))
        x = self.later(self.second(self.dropout(x.flatten(0, 1))).unflatten(0, (T, -1)))
        return self.head(x.mean((0, 3, 4)))


def soft_net(**settings):
    """In float64 and twice differentiable, with alphas that differ."""
    net = Net(spike="soft", backend="reference", surrogate_function="sigmoid", surrogate_alpha=4.0, **settings).double()
    with torch.no_grad():
        for alpha in alphas(net).values():
            alpha.copy_(torch.randn(len(alpha)))
    return net


def closures(net, parameters=None, seeds=(1, 2)):
    """The loss on a batch for alpha, and on one for the weights."""

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        x = 2 * torch.randn(T * B, 2, 7, 7, generator=generator).to(net.head.weight.dtype)
        target = torch.randint(CLASSES, (B,), generator=generator)
        return lambda: F.cross_entropy(functional_call(net, parameters or {}, (x,)), target)

    return loss(seeds[0]), loss(seeds[1])


def optimiser_with_history(net, **settings):
    """SGD after a step, so that there is momentum; norms and biases in a group of their own."""
    vectors = [p for p in weights(net) if p.dim() < 2]
    groups = [{"params": [p for p in weights(net) if p.dim() > 1]}, {"params": vectors, "lr": 0.2, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, **settings)
    closures(net)[1]().backward()
    optimiser.step()
    net.zero_grad()
    return optimiser


def exact_gradient(net, optimiser):
    """Of the loss after the step, differentiated through the step."""
    trained, names = weights(net), {id(p): name for name, p in net.named_parameters()}
    group_of = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    stepped = {}
    gradients = torch.autograd.grad(closures(net)[1](), trained, create_graph=True)
    for weight, gradient in zip(trained, gradients, strict=True):
        group = group_of[id(weight)]
        change = gradient + group["weight_decay"] * weight
        if group["momentum"]:
            change = change + group["momentum"] * optimiser.state[weight]["momentum_buffer"]
        stepped[names[id(weight)]] = weight - group["lr"] * change
    return torch.autograd.grad(closures(net, stepped)[0](), list(alphas(net).values()))


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def error(actual, expected):
    return float((flat(actual) - flat(expected)).norm() / flat(expected).norm())


def state_of(net):
    return copy.deepcopy(net.state_dict())


def assert_same_bits(net, before, but=()):
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in but), name
    assert all(p.grad is None for p in net.parameters())


ALPHAS = ("former.alpha", "later.alpha")


class TestParameters:
    def test_alphas_are_in_order_of_execution(self):
        net = Net()
        assert list(alphas(net)) == ["former", "later"]
        assert alphas(net)["later"] is net.later.alpha

    def test_order_of_definition_where_it_cannot_be_traced(self):
        class Untraceable(Net):
            def forward(self, x):
                return super().forward(x if x.sum() > 0 else -x)

        net = Untraceable()
        assert list(alphas(net)) == ["later", "former"]
        net.former.position, net.later.position = 0, 1
        assert list(alphas(net)) == ["former", "later"]

    def test_other_spiking_layers_and_none(self):
        assert list(alphas(nn.Sequential(LIFNode(), SuperNeuron(2)))) == ["1"]
        assert alphas(nn.Linear(2, 2)) == {}

    def test_weights_are_the_others_that_are_trained(self):
        net = Net()
        net.norm.weight.requires_grad_(False)
        names = {id(p): name for name, p in net.named_parameters()}
        assert [names[id(p)] for p in weights(net)] == [
            n for n, _ in net.named_parameters() if "alpha" not in n and n != "norm.weight"
        ]


def test_first_order_is_the_gradient_of_alpha_alone():
    net = Net()
    own = list(alphas(net).values())
    val_loss, _ = closures(net)
    val_loss().backward()
    expected = [alpha.grad.clone() for alpha in own]
    net.zero_grad()
    for alpha in own:
        alpha.requires_grad_(False)

    loss, actual = first_order(val_loss, own, weights(net))
    assert all(torch.equal(a, e) and a.abs().sum() > 0 for a, e in zip(actual, expected, strict=True))
    assert loss.item() == val_loss().item() and not loss.requires_grad
    assert all(p.requires_grad == ("alpha" not in name) and p.grad is None for name, p in net.named_parameters())


def test_first_order_of_a_layer_that_does_not_run_is_zero():
    net = nn.Sequential(nn.Linear(2, 2), SuperNeuron(2))
    alpha = net[1].alpha
    _, (gradient,) = first_order(lambda: net[0](torch.ones(2)).sum(), [alpha])
    assert torch.equal(gradient, torch.zeros(3))


def test_the_scale_of_the_loss_is_taken_out_again():
    net = soft_net()
    own, (val_loss, train_loss) = list(alphas(net).values()), closures(net)
    optimiser = optimiser_with_history(net, **SGD)
    assert error(first_order(val_loss, own, scale=1024.0)[1], first_order(val_loss, own)[1]) < 1e-12
    scaled, plain = (second_order(val_loss, train_loss, own, optimiser, scale=scale)[1] for scale in (1024.0, 1.0))
    assert error(scaled, plain) < 1e-9  # the difference of two gradients has lost digits


@pytest.mark.parametrize("settings", [{"lr": 0.3}, {"lr": 0.3, "momentum": 0.9}, SGD], ids=["plain", "momentum", "all"])
def test_second_order_against_exact_differentiation(settings):
    """The error of a central difference falls with the square of the shift; LLIF's kink at 0 input is left out."""
    net = soft_net(neurons=("LIF", "SLIF"))
    own, optimiser = list(alphas(net).values()), optimiser_with_history(net, **settings)
    expected = exact_gradient(net, optimiser)
    errors = [error(second_order(*closures(net), own, optimiser, shift=h)[1], expected) for h in (SHIFT, 1e-3, 1e-4)]
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 50 and errors[2] < errors[1] / 50
    assert error(first_order(closures(net)[0], own)[1], expected) > 0.05, "the first order would have passed as well"


def test_second_order_of_all_three_against_exact_differentiation():
    net = soft_net()
    own, optimiser = list(alphas(net).values()), optimiser_with_history(net, **SGD)
    expected = exact_gradient(net, optimiser)
    # Inputs that a shift takes past LLIF's kink at 0 change the gradient at once: 1/100 for DARTS' shift.
    assert error(second_order(*closures(net), own, optimiser)[1], expected) < 1e-2
    assert error(second_order(*closures(net), own, optimiser, shift=1e-4)[1], expected) < 1e-6


def test_a_wrong_momentum_or_weight_decay_is_noticed():
    net = soft_net()
    own, optimiser = list(alphas(net).values()), optimiser_with_history(net, **SGD)
    expected = exact_gradient(net, optimiser)
    for name in ("momentum", "weight_decay"):
        kept = [group[name] for group in optimiser.param_groups]
        for group in optimiser.param_groups:
            group[name] = 0.0
        assert error(second_order(*closures(net), own, optimiser)[1], expected) > 1e-3, name
        for group, value in zip(optimiser.param_groups, kept, strict=True):
            group[name] = value


def test_second_order_with_lr_0_is_first_order():
    net = soft_net()
    own, optimiser = list(alphas(net).values()), optimiser_with_history(net, lr=0.1, momentum=0.9)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    loss, actual = second_order(*closures(net), own, optimiser)
    first_loss, expected = first_order(closures(net)[0], own)
    assert torch.equal(loss, first_loss) and torch.equal(flat(actual), flat(expected))


def test_dropout_masks_are_those_of_the_step():
    """With masks of their own the four passes would be far off."""
    net = soft_net(dropout=0.5)
    own, optimiser = list(alphas(net).values()), optimiser_with_history(net, **SGD)
    val_loss, train_loss = closures(net)

    def seeded(loss):
        def run():
            torch.manual_seed(3)
            return loss()

        return run

    expected = second_order(seeded(val_loss), seeded(train_loss), own, optimiser)[1]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert torch.equal(flat(second_order(val_loss, train_loss, own, optimiser)[1]), flat(expected))
    assert torch.equal(torch.get_rng_state(), before)


def test_two_processes_make_the_step_of_one():
    """Each with a share of both batches; here two threads that exchange gradients where ``reduce`` is called."""
    net = soft_net()
    whole = net, optimiser_with_history(net, **SGD)
    ranks = [copy.deepcopy(whole) for _ in range(2)]
    barrier, shared = threading.Barrier(2, timeout=HANG_SECONDS), [[], []]

    def gradient_of(rank):
        net, optimiser = ranks[rank]

        def average(gradients):
            shared[rank] = [g.clone() for g in gradients]
            barrier.wait()
            for gradient, *both in zip(gradients, *shared, strict=True):
                gradient.copy_(sum(both) / 2)
            barrier.wait()

        own = [net.former.alpha, net.later.alpha]  # alphas() would trace, which is for one thread alone
        return second_order(*closures(net, seeds=(rank, rank + 2)), own, optimiser, reduce=average)[1]

    def mean(one, other):
        return lambda: (one() + other()) / 2

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(gradient_of, range(2))
    losses = map(mean, closures(net, seeds=(0, 2)), closures(net, seeds=(1, 3)))
    expected = second_order(*losses, list(alphas(net).values()), whole[1])[1]
    assert torch.equal(flat(first), flat(second))
    assert error(first, expected) < 1e-9


@pytest.mark.parametrize("order", (1, 2))
def test_a_step_moves_alpha_alone(order):
    """Hard spikes and this processor's kernels; the running statistics are buffers."""
    net = Net(dropout=0.3)
    optimiser = optimiser_with_history(net, **SGD)
    history = copy.deepcopy(optimiser.state_dict())
    for alpha in alphas(net).values():
        alpha.requires_grad_(False)
    architect, before = Architect(net, lr=0.01, order=order), state_of(net)
    loss = architect.step(*closures(net), optimiser)
    assert_same_bits(net, before, but=ALPHAS)
    for alpha in ALPHAS:  # Adam's first step is lr in each direction
        change = (net.state_dict()[alpha] - before[alpha]).abs()
        torch.testing.assert_close(change, torch.full((3,), 0.01), rtol=1e-3, atol=0)
    assert loss.isfinite() and not loss.requires_grad
    assert all(p.requires_grad == ("alpha" not in name) for name, p in net.named_parameters())
    assert str(optimiser.state_dict()) == str(history)


@pytest.mark.parametrize("fails_at", range(4))
def test_an_exception_leaves_everything_as_it_was(fails_at):
    net = Net()
    optimiser = optimiser_with_history(net, **SGD)
    architect, before, calls = Architect(net, order=2), state_of(net), []

    def failing(loss):
        def run():
            calls.append(loss)
            value = loss()
            if len(calls) == fails_at + 1:
                raise KeyError("broken")
            return value

        return run

    with pytest.raises(KeyError, match="broken"):
        architect.step(*map(failing, closures(net)), optimiser)
    assert_same_bits(net, before)
    assert all(p.requires_grad for p in net.parameters())


def test_alpha_learns_which_neuron_is_left():
    """Where only one candidate's spikes lower the loss, its alpha grows."""
    net = nn.Sequential(SuperNeuron(1, ("LIF", "SLIF"), backend="reference"))
    x = torch.randn(4, 16, 1, 3)
    target = F.batch_norm(net[0].node("SLIF")(x).flatten(0, 1), None, None, training=True).unflatten(0, (4, 16))
    architect = Architect(net, lr=0.1)
    losses = [architect.step(lambda: F.mse_loss(net(x), target)).item() for _ in range(40)]
    assert losses[-1] < losses[0] / 4 and net[0].choice() == "SLIF" and net[0].weights()[1] > 0.9


def test_a_step_that_overflowed_is_left_out_under_a_scale():
    net = Net()
    architect, before = Architect(net), state_of(net)
    loss = architect.step(lambda: closures(net)[0]() * torch.tensor(1e30), scale=1e30)
    assert loss.isfinite()
    assert_same_bits(net, before)


def test_the_state_goes_on():
    a, val_loss = Net(), None
    first = Architect(a, lr=0.01)
    val_loss = closures(a)[0]
    first.step(val_loss)
    b = copy.deepcopy(a)
    second = Architect(b, lr=0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    first.step(val_loss)
    second.step(closures(b)[0])
    assert_same_bits(b, a.state_dict())
    assert first.optimiser.defaults["betas"] == (0.5, 0.999)


class TestBadInput:
    def test_order(self):
        with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
            Architect(Net(), order=3)

    def test_no_super_neurons(self):
        with pytest.raises(ValueError, match="model must have super neurons, Linear has none"):
            Architect(nn.Linear(2, 2))

    @pytest.mark.parametrize("missing", ("train_loss", "optimiser"))
    def test_second_order_without_its_arguments(self, missing):
        net = Net()
        given = {"train_loss": closures(net)[1], "optimiser": torch.optim.SGD(weights(net), lr=0.1)}
        del given[missing]
        with pytest.raises(ValueError, match="train_loss and optimiser must be given for order 2"):
            Architect(net, order=2).step(closures(net)[0], **given)

    @pytest.mark.parametrize(
        ("kind", "options", "got"),
        [
            (torch.optim.Adam, {}, "got Adam"),
            (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, "got SGD with nesterov"),
            (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1, "maximize": True}, "SGD with dampening, maximize"),
        ],
    )
    def test_another_optimiser(self, kind, options, got):
        net = Net()
        with pytest.raises(ValueError, match=rf"optimiser must be torch.optim.SGD without .*{got}"):
            second_order(*closures(net), [net.former.alpha], kind(weights(net), lr=0.1, **options))

"""What inference costs: operations against counts by brute force, memory accesses and energy by hand."""

import itertools

import pytest
import torch
from torch import nn

from stdano import IFNode, IntegerLIFNode, LIFNode, LLIFNode, SLIFNode, SuperNeuron
from stdano.analysis import Picojoules, Update, compare, cost
from stdano.analysis.operations import update_of
from stdano.models import create_model

CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(2, 0)),
    nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding=3, groups=2, bias=False),
    nn.Conv2d(4, 8, 3, padding=1, groups=4),
    nn.Conv2d(4, 6, (4, 3), padding="same"),
    nn.Conv2d(4, 6, 2, padding="valid"),
    nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="circular"),
    nn.Conv2d(4, 6, 5, padding=2, padding_mode="reflect"),
    nn.Conv2d(4, 6, (3, 4), padding="same", padding_mode="replicate"),
    nn.Conv1d(4, 6, 3, stride=2, padding=2),
    nn.Conv3d(4, 6, (2, 3, 1), stride=(1, 2, 1), padding=(1, 1, 0)),
    nn.Linear(7, 5),
]


def behind_neuron(*layers):
    """A layer that is fed by what passes through a neuron that gives it unchanged."""
    return nn.Sequential(IFNode(v_threshold=0.5), *layers)


def images(layer, T=3, B=2):
    """Zeros and ones ``[T, B, ...]`` for a layer."""
    size = (7,) if isinstance(layer, nn.Linear) else (4, 7, 8, 6)[: 1 + len(layer.kernel_size)]
    return (torch.rand(T, B, *size, generator=torch.Generator().manual_seed(0)) < 0.4).float()


class Merged(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(0, 1))


def pairs(layer, x):
    """How many weights the values of x meet, weighted by them: what the layer gives with weights of 1."""
    ones = {name: torch.full_like(p, float(name == "weight")).double() for name, p in layer.named_parameters()}
    return torch.func.functional_call(layer, ones, x.double()).sum().item()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=repr)
def test_counts_are_those_of_brute_force(layer):
    x = images(layer)
    expected, dense = pairs(layer, x.flatten(0, 1)), pairs(layer, torch.ones_like(x).flatten(0, 1))
    net = behind_neuron(Merged(layer))
    (found,) = cost(net, [x]).layers
    assert found.spiking and found.name == "1.layer" and found.kind == type(layer).__name__
    assert (2 * found.operations, 2 * found.dense) == (expected, dense)  # two samples
    assert (2 * found.inputs, 2 * found.nonzero) == (x.numel(), x.sum())
    assert 0 < expected < dense
    (real,) = cost(net, [x], forward=lambda x: net[1](net[0](x) / 2)).layers
    assert not real.spiking and real.operations == found.operations and real.nonzero == found.nonzero


def test_pairs_one_by_one():
    """Nested loops over a convolution with borders, stride and groups."""
    layer, x = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), images(nn.Conv2d(4, 6, 3), T=1, B=1)
    _, _, _, height, width = x.shape
    count = 0
    for out, row, column in itertools.product(range(6), range((height + 1) // 2), range((width + 1) // 2)):
        for channel, i, j in itertools.product(range(2), range(3), range(3)):
            y, z = 2 * row + i - 1, 2 * column + j - 1
            if 0 <= y < height and 0 <= z < width:
                count += int(x[0, 0, 2 * (out // 3) + channel, y, z])
    assert cost(behind_neuron(Merged(layer)), [x]).accumulates == count


def test_accumulates_and_multiply_accumulates():
    """The first layer takes images, pooling makes spikes to fractions; everything else takes spikes."""
    torch.manual_seed(0)
    net = create_model("vgg-small", "LIF", T=3, width=0.2, size=8, in_channels=1, v_threshold=0.3).eval()
    x = torch.randn(5, 1, 8, 8)
    seen = {}
    convolutions = {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    for name, module in convolutions.items():
        module.register_forward_hook(lambda m, inputs, out, name=name: seen.update({name: inputs[0].clone()}))
    found = cost(net, [(x, None)])
    assert [layer.name for layer in found.layers] == list(convolutions) == list(seen)
    assert [layer.spiking for layer in found.layers] == [False, False, True, False, False]
    for layer in found.layers:
        module, given = convolutions[layer.name], seen[layer.name]
        given = given[:1] if given.dim() == 5 else given  # images are convolved once
        assert 5 * layer.operations == pairs(module, (given != 0).float())
    real = [layer.operations for layer in found.layers if not layer.spiking]
    assert found.multiply_accumulates == sum(real) and found.accumulates == found.layers[2].operations > 0
    assert found.uncounted == () and [layer.neuron for layer in found.neurons] == 4 * ["LIF"]


def test_frames_are_convolved_at_each_step():
    net = create_model("vgg-small", "LIF", width=0.1, size=8, in_channels=2)
    once, frames = torch.randn(2, 2, 8, 8), torch.randn(4, 2, 2, 8, 8)
    assert cost(net, [frames]).layers[0].operations == 4 * cost(net, [once]).layers[0].operations


def test_a_batch_decides_for_all():
    """Inputs are spikes if all are; several batches of different sizes are a mean over samples."""
    net = behind_neuron(nn.Linear(7, 5))
    x = images(nn.Linear(7, 5))
    found = cost(net, [x, x[:, :1]])
    assert found.activity.samples == 3 and found.accumulates == 5 * (x.sum() + x[:, :1].sum()) / 3
    linear = nn.Sequential(nn.Linear(7, 5), LIFNode())
    assert [cost(linear, xs).layers[0].spiking for xs in ([x], [x, x / 2], [x / 2, x])] == [True, False, False]


def test_several_spikes_are_as_many_accumulates():
    net, x = nn.Sequential(IntegerLIFNode(), nn.Linear(7, 5)), 6 * images(nn.Linear(7, 5))
    spikes = net[0](x)
    assert spikes.max() == 4
    assert cost(net, [x]).layers[0].spiking and cost(net, [x]).accumulates == 5 * spikes.sum() / 2
    assert not cost(nn.Sequential(nn.Linear(7, 5), LIFNode()), [spikes]).layers[0].spiking


def test_updates_of_neurons():
    """By hand, from the declarations: LIF is a*v + x, less the threshold."""
    assert update_of(LIFNode()) == Update(adds=2, multiplies=1, functions=0, states=1, levels=1)
    assert update_of(LIFNode(decay_input=True)).multiplies == 2
    assert update_of(IFNode()) == Update(adds=2, multiplies=0, functions=0, states=1, levels=1)
    # and x > 0, tanh, theta + gamma*tanh
    assert update_of(LLIFNode()) == Update(adds=4, multiplies=2, functions=1, states=2, levels=1)
    assert update_of(LLIFNode(squash="hardtanh")).functions == 0
    # tanh, tau - beta*tanh, max, a reciprocal and exp; the soft reset
    assert update_of(SLIFNode()) == Update(adds=5, multiplies=2, functions=3, states=2, levels=1)
    assert update_of(IntegerLIFNode()).levels == 4
    parts = [update_of(node) for node in (LIFNode(), LLIFNode(), SLIFNode())]
    mixed = update_of(SuperNeuron(3))
    assert (mixed.adds, mixed.states) == (sum(part.adds for part in parts), 5)


def test_spikingjellys_neurons():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    for theirs, ours in [
        (neuron.LIFNode(), LIFNode(decay_input=True)),
        (neuron.ParametricLIFNode(), LIFNode(decay_input=True)),
        (neuron.LIFNode(decay_input=False, v_reset=None), LIFNode(v_reset=None)),
        (neuron.IFNode(), IFNode()),
    ]:
        assert update_of(theirs) == update_of(ours), theirs
    net = nn.Sequential(nn.Linear(7, 5), neuron.KLIFNode(step_mode="m"), nn.Bilinear(2, 2, 2))
    found = cost(net[:2], [images(nn.Linear(7, 5))])
    assert found.neurons == () and found.uncounted == ("1",) and found.accumulates > 0


def test_what_is_not_counted_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.up, self.unused = LIFNode(), nn.ConvTranspose1d(1, 1, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.up(self.neuron(x).flatten(0, 1))

    assert cost(Net(), [torch.rand(2, 3, 1, 4)]).uncounted == ("up", "unused")


def test_energy_and_memory():
    net, x = nn.Sequential(nn.Linear(7, 5), LLIFNode(v_threshold=0.1), nn.Linear(5, 3)), torch.randn(4, 2, 7)
    found = cost(net, [x])
    spikes = found.activity.spikes
    assert (found.multiply_accumulates, found.accumulates) == (4 * 35, 3 * spikes) and spikes > 0
    energy = found.energy()
    assert energy.synapses == pytest.approx(4.6 * 140 + 0.9 * 3 * spikes)
    assert energy.neurons == pytest.approx(20 * (4 * 0.9 + 2 * 3.7 + 26.3))
    memory = found.accesses
    assert memory.weights == 140 + 3 * spikes
    assert memory.potentials == 2 * memory.weights + 20 * 5
    assert memory.spikes == 28 + 2 * spikes  # written once, read once
    assert energy.memory == pytest.approx(5 * memory.total)
    assert found.energy(Picojoules(add=2.0, multiply=0.0)).synapses == pytest.approx(2 * (140 + 3 * spikes))


def test_several_networks():
    torch.manual_seed(0)
    models = {
        digits: create_model("vgg-small", digits, T=2, width=0.1, size=8, in_channels=1) for digits in ("0000", "1120")
    }
    x = torch.randn(2, 1, 8, 8)
    found = compare(models, iter([x]))
    assert found == {name: cost(model, [x]) for name, model in models.items()}
    assert found["1120"].activity.neurons == ["LLIF", "LLIF", "SLIF", "LIF"]
    with pytest.raises(TypeError, match="batches must be an iterable of batches, got a tensor"):
        compare(models, x)

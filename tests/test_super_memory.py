"""What BatchNorm and the super neuron keep for backward and hold at their peak: x, a byte of codes an element, and
numbers for each channel."""

import pytest
import torch
from channels_common import compose_bn, compose_super, start_statistics
from kernels_common import NEURONS, by_dtype, every_neuron, make_x
from test_memory import bytes_of, saved_by
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from stdano_kernels import bn_neuron, super_neuron

CHANNELS = 3
# Of the operators' tables and sums, float64, a few rows each; small against the tensors below.
TABLES = 200 * CHANNELS * 8
training_and_eval = pytest.mark.parametrize("training", (True, False), ids=("training", "eval"))


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations inside the block made and that are alive, and remembers the most."""

    def __init__(self):
        super().__init__()
        self.storages, self.peak, self.largest = {}, 0, 0
        self.known = set()

    def ignore(self, *tensors):
        self.known |= {t.untyped_storage()._cdata for t in tensors}
        return self

    def live(self):
        self.storages = {k: v for k, v in self.storages.items() if not v[0].expired()}
        return sum(size for _, size in self.storages.values())

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.live()
        for t in tree_iter(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self.known:
                    self.storages.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
                    self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, self.live())
        return out


def test_live_bytes_counts_what_is_alive():
    """The measure itself: a view adds nothing, what is freed no longer counts, in place makes nothing."""
    x = torch.zeros(100)
    with LiveBytes().ignore(x) as memory:
        a = x + 1
        b = a.view(10, 10)
        assert memory.live() == 400
        c = b * 2
        c.add_(1)
        assert memory.live() == 800
        del a, b
        assert memory.live() == 400
        c = x * 3
    assert memory.peak == 800 and c.shape == (100,)


def train(function, x, cotangent, *arguments, **settings):
    """The peak of a forward and a backward pass, without x, the incoming gradient and the arguments."""
    with LiveBytes().ignore(x, cotangent, *arguments) as memory:
        out = function(x, *arguments, **settings)
        memory.forward_peak, memory.forward_largest = memory.peak, memory.largest
        grads = torch.autograd.grad(out, x, cotangent)
    assert grads[0].shape == x.shape
    return memory


@by_dtype()
@training_and_eval
@pytest.mark.parametrize("steps", (4, 40))
def test_the_super_neuron_keeps_x_and_codes(steps, dtype, training):
    """And a handful of numbers for each channel, for any T: there are no checkpoints."""
    x = make_x((steps, 4, CHANNELS, 11, 13), dtype).requires_grad_()
    weights = torch.full((3,), 1 / 3, requires_grad=True)
    statistics = start_statistics((3, CHANNELS), torch.float32)
    saved, _ = saved_by(lambda: super_neuron(x, weights, *statistics, training=training))
    large = [t for t in saved if t.numel() > 12 * CHANNELS]
    assert sorted(t.element_size() for t in large) == [1, x.element_size()]
    assert x.data_ptr() in {t.data_ptr() for t in large}, "x itself, not a copy"
    codes = next(t for t in large if t.dtype == torch.uint8)
    assert codes.shape == x.shape and codes.data_ptr() != x.data_ptr()
    assert bytes_of(saved) - bytes_of(large) <= 12 * CHANNELS * 8
    assert all(t.dim() == 0 or CHANNELS in t.shape for t in saved if t.numel() <= 12 * CHANNELS)


@by_dtype((torch.float32, torch.bfloat16))
@training_and_eval
@pytest.mark.parametrize("steps", (4, 9))
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_the_super_neurons_peak_is_a_third_of_the_compositions(steps, dtype, training, backend):
    """Codes and y forward; codes, y and the gradient of x backward. The composition with this package's kernels holds
    three neurons' spikes, what BatchNorm makes of them, their products and their sums; the reference more."""
    x = make_x((steps, 8, CHANNELS, 15, 16), dtype).requires_grad_()
    cotangent, weights = torch.ones_like(x), torch.full((3,), 1 / 3, dtype=dtype, requires_grad=True)
    statistics = start_statistics((3, CHANNELS), dtype)
    arguments = (x, cotangent, weights, *statistics)
    memory = train(super_neuron, *arguments, training=training)
    composition = train(compose_super, *arguments, training=training, backend=backend)
    size = x.element_size()
    assert memory.forward_peak <= x.numel() * (1 + size) + TABLES
    assert memory.peak <= x.numel() * (1 + 2 * size) + TABLES
    assert memory.peak <= composition.peak / 3, "more than a third"


@every_neuron
@by_dtype()
@training_and_eval
@pytest.mark.parametrize("steps", (4, 16))
def test_batch_norm_keeps_x_alone(neuron, steps, dtype, training):
    x = make_x((steps, 4, CHANNELS, 11, 13), dtype).requires_grad_()
    weight, bias = torch.ones(CHANNELS, requires_grad=True), torch.zeros(CHANNELS, requires_grad=True)
    statistics = start_statistics((CHANNELS,), torch.float32)
    saved, _ = saved_by(lambda: bn_neuron(neuron, x, *statistics, weight, bias, training=training))
    large = [t for t in saved if t.numel() > 4 * CHANNELS]
    assert {t.data_ptr() for t in large} == {x.data_ptr()}, "x itself; the normalised tensor is nowhere"
    assert bytes_of(saved) - bytes_of(large) <= 16 * CHANNELS * 8


@every_neuron
@by_dtype((torch.float32, torch.bfloat16, torch.float64))
@training_and_eval
@pytest.mark.parametrize("steps", (4, 9))
def test_batch_norm_makes_nothing_but_its_results(neuron, steps, dtype, training):
    """Forward the spikes; backward the gradient of x, to which the statistics' part is added in place."""
    x = make_x((steps, 8, CHANNELS, 15, 16), dtype).requires_grad_()
    cotangent = torch.ones_like(x)
    arguments = (
        *start_statistics((CHANNELS,), dtype),
        torch.ones(CHANNELS, dtype=dtype),
        torch.zeros(CHANNELS, dtype=dtype),
    )
    settings = dict(training=training)

    def function(x, *rest, **settings):
        return bn_neuron(neuron, x, *rest, **settings)

    memory = train(function, x, cotangent, *arguments, **settings)
    assert memory.forward_peak <= bytes_of([x]) + TABLES and memory.forward_largest <= bytes_of([x])
    assert memory.peak <= 2 * bytes_of([x]) + TABLES
    composed = train(
        lambda x, *r, **s: compose_bn(neuron, x, *r, backend="cpu", **s), x, cotangent, *arguments, **settings
    )
    assert memory.forward_peak < composed.forward_peak / 1.9, "the composition holds the normalised tensor, too"


@pytest.mark.parametrize("how", ("no_grad", "inference_mode", "nothing requires grad"))
@training_and_eval
def test_inference_keeps_nothing(how, training):
    contexts = {"no_grad": torch.no_grad(), "inference_mode": torch.inference_mode()}
    x = make_x((20, 4, CHANNELS, 11))
    with contexts.get(how, torch.enable_grad()):
        if how in contexts:
            x.requires_grad_()
        weights = torch.ones(3)
        saved, y = saved_by(
            lambda: [
                super_neuron(x, weights, *start_statistics((3, CHANNELS), torch.float32), training=training),
                *(bn_neuron(n, x, *start_statistics((CHANNELS,), torch.float32), training=training) for n in NEURONS),
            ]
        )
    assert saved == [] and not any(t.requires_grad for t in y)


@training_and_eval
def test_nothing_outlives_a_step(training):
    """After the backward pass only gradients are left."""
    x = make_x((4, 4, CHANNELS, 11, 13)).requires_grad_()
    weights, cotangent = torch.full((3,), 1 / 3, requires_grad=True), torch.ones_like(x)
    statistics = start_statistics((3, CHANNELS), torch.float32)
    with LiveBytes().ignore(x, weights, cotangent, *statistics) as memory:
        grads = torch.autograd.grad(super_neuron(x, weights, *statistics, training=training), (x, weights), cotangent)
        assert memory.live() <= bytes_of(grads) + 64

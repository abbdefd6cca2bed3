"""Checkpoints in two levels: gradients are those of one level, and less is kept."""

import pytest
import torch
from kernels_common import assert_close, assert_same_bits, make_cotangents, run
from tolerances import REDUCTION
from torch.utils.checkpoint import checkpoint

import stdano
import stdano_kernels
from stdano_kernels import bn_neuron, lif, two_levels

K = 16  # steps between two checkpoints on the CPU


def kept(function):
    """Bytes of each tensor that autograd keeps."""
    sizes = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.setdefault(t.data_ptr(), t.nbytes) and t, lambda t: t
    ):
        out = function()
    del out
    return sorted(sizes.values())


@pytest.mark.parametrize("T", [4 * K + 1, 9 * K, 10 * K + 3])
@pytest.mark.parametrize(
    "options",
    [
        dict(neuron="lif"),
        dict(neuron="llif", v_reset=None),
        dict(neuron="slif", state=True),
        dict(neuron="alif", tensors=True),
        dict(neuron="lif", affine=True, dtype=torch.bfloat16),
        dict(neuron="slif", dtype=torch.float64, layout="last"),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_gradients(T, options):
    neuron, dtype = options["neuron"], options.get("dtype", torch.float32)
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(T, 2, 3, 5, generator=generator)).to(dtype)
    if options.get("layout") == "last":  # time is not the outermost dimension
        x = x.permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3)
    more = {"v_reset": None} if "v_reset" in options else {}
    if options.get("tensors"):
        more["v_threshold"] = torch.tensor([0.9, 1.0, 1.1])
    if options.get("affine"):
        more["affine"] = torch.tensor([[0.1, 0.2, 0.3], [1.0, 0.9, 1.1], [0.0, 0.1, 0.2]])
    if options.get("state"):
        more["state"] = tuple(torch.rand(2, 3, 5, generator=generator) for _ in range(2))
    cotangents = make_cotangents(neuron, x)
    expected = run(neuron, x, cotangents=cotangents, **more)
    with stdano.two_level_checkpoints():
        actual = run(neuron, x, cotangents=cotangents, **more)
    sums = [name for name in expected if name in ("grad v_threshold", "grad affine")]
    assert_same_bits(actual, expected, [name for name in expected if name not in sums])
    assert_close(actual, expected, REDUCTION[dtype], sums)


def test_memory_at_a_thousand_steps():
    x = torch.randn(1000, 300, requires_grad=True)
    for neuron in ("lif", "slif"):
        function = getattr(stdano_kernels, neuron)
        states = 1 if neuron == "lif" else 2
        assert kept(lambda: function(x)) == [states * 62 * 300 * 4, x.nbytes]  # noqa: B023, called at once
        with stdano.two_level_checkpoints():
            smaller = kept(lambda: function(x))  # noqa: B023
        assert smaller == [states * 7 * 300 * 4, x.nbytes]
        assert smaller[0] <= 0.02 * x.nbytes


def test_recomputed_outside_the_context():
    x = torch.randn(10 * K, 7, requires_grad=True)
    (expected,) = torch.autograd.grad(lif(3 * x).square().sum(), x)
    with stdano.two_level_checkpoints():
        out = checkpoint(lambda t: lif(3 * t).square().sum(), x, use_reentrant=False, determinism_check="none")
    assert torch.equal(torch.autograd.grad(out, x)[0], expected)


def test_with_batch_norm():
    x = torch.randn(5 * K, 2, 3, 4)
    weight = torch.tensor([1.0, 2.0, 0.5])

    def gradients():
        ones = [t.clone().requires_grad_() for t in (x, weight)]
        statistics = torch.zeros(3), torch.ones(3)
        spikes = bn_neuron("llif", ones[0], *statistics, ones[1], training=True)
        (spikes * torch.linspace(0, 1, spikes.numel()).view_as(spikes)).sum().backward()
        return spikes.detach(), *statistics, *(t.grad for t in ones)

    expected = gradients()
    with stdano.two_level_checkpoints():
        actual = gradients()
    assert torch.equal(actual[0], expected[0])
    for a, b in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_short_or_the_same_at_every_step_stays():
    with stdano.two_level_checkpoints():
        x = torch.randn(4 * K, 7, requires_grad=True)
        assert kept(lambda: lif(x)) == [3 * 7 * 4, x.nbytes]
        step = torch.randn(7, requires_grad=True)
        assert kept(lambda: lif(step.expand(20 * K, 7))) == [step.nbytes, 19 * 7 * 4]
    assert two_levels._contexts.open == 0
    long = torch.randn(20 * K, 7, requires_grad=True)
    assert kept(lambda: lif(long)) == [19 * 7 * 4, long.nbytes]

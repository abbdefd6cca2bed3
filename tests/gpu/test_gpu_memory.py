"""Spikes as bits on the device: the CPU's bits, and gradients that are those without. Two levels of checkpoints."""

import pytest
import torch
from gpu_common import assert_equals_cpu, every_backend, operators
from kernels_common import make_x

import stdano
from stdano_kernels import packed
from stdano_kernels.registration import NAMESPACES

pytestmark = pytest.mark.gpu


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("scale", "most"), [(1, 1), (4, 4), (1, 255)])
def test_operators(backend, dtype, scale, most):
    if (backend, dtype) == ("triton", torch.float64):
        pytest.skip("Triton computes no float64")
    ops, planes = operators(backend), most.bit_length()
    for count in (0, 1, 8, 1023, 5001):
        x = (torch.randint(0, most + 1, (count,)).double() / scale).to(dtype)
        expected, *_ = torch.ops.stdano.pack_spikes(x, scale, planes)
        bits, wrong, exact = ops.pack_spikes(x.cuda(), scale, planes)
        assert exact and torch.equal(bits.cpu(), expected) and not wrong.any()
        assert torch.equal(ops.unpack_spikes(bits, wrong, scale, x.cuda())[:count].cpu(), x)
    # Planes of a part, and values that begin where no vector does.
    assert torch.equal(ops.unpack_spikes(bits[:, 32:100], wrong[1:], scale, x.cuda()).cpu(), x[256:800])
    expected, *_ = torch.ops.stdano.pack_spikes(x[1:], scale, planes)
    assert torch.equal(ops.pack_spikes(x.cuda()[1:], scale, planes)[0].cpu(), expected)
    for value in (-0.0, 0.3, float("nan"), float("inf"), -1.0, 256 / scale):
        bad = x.clone()
        bad[700] = value
        bits, wrong, _ = ops.pack_spikes(bad.cuda(), scale, planes)
        assert wrong.tolist() == [0, 0, 1] + [0] * 17
        back = ops.unpack_spikes(bits, wrong, scale, x.cuda())[:5001].cpu()
        assert back[512:768].isnan().all() and torch.equal(back[:512], x[:512]) and torch.equal(back[768:], x[768:])


@every_backend
def test_gradients_have_the_same_bits(backend, monkeypatch):
    """Spikes, a cast of them, and averages of them, known by where they come from."""
    operators(backend)
    monkeypatch.setattr(packed, "_namespace", lambda tensor: NAMESPACES[backend])
    torch.manual_seed(0)
    x = torch.randn(4, 2, 8, 8, 8).cuda()
    weight = torch.randn(8, 8).cuda().requires_grad_()
    neuron = stdano.LIFNode(backend=backend)

    def gradients(pack):
        neuron.reset()
        kept = []
        with packed.packed_spikes() if pack else torch.enable_grad():
            spikes = neuron(3 * x @ weight)
            pooled = torch.nn.functional.avg_pool2d(spikes.flatten(0, 1), 2)
            parts = (spikes @ weight, spikes.bfloat16() @ weight.bfloat16(), pooled.repeat(1, 1, 2, 2) @ weight)
            if pack:
                kept = [packed._pack(t).bits is not None for t in (spikes, spikes.bfloat16(), pooled)]
                assert packed._pack(x).bits is None, "on a device nobody looks at values"
        sum(part.float().square().sum() for part in parts).backward()
        grad, weight.grad = weight.grad, None
        return grad.cpu(), kept

    packed_grad, kept = gradients(True)
    assert all(kept)
    assert torch.equal(packed_grad, gradients(False)[0])


@every_backend
def test_checkpoints_in_two_levels(backend):
    """A device has them every 8 steps."""
    x = make_x((5 * 8 + 3, 3, 37))
    with stdano.two_level_checkpoints():
        assert_equals_cpu("slif", x, backend=backend)

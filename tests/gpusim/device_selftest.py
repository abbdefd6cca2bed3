"""The simulated device's own tests: an extension, Triton kernels and torch's operators, right ones and wrong ones.
test_gpusim_device.py runs this file on the device."""

import os

import pytest
import torch
from gpusim_common import assert_sum, lif_reference, raises

from gpusim.device import ERRORS, LOG
from gpusim.ptx import PTXError

if not torch.cuda.is_available():
    pytest.skip("runs on the simulated device", allow_module_level=True)

triton = pytest.importorskip("triton", reason="needs Triton")
from gpusim.triton_kernels import channel_kernel, run_lif, tuned_kernel, unmasked_kernel  # noqa: E402


@pytest.fixture(scope="module")
def lif():
    torch.ops.load_library(os.environ["GPUSIM_EXTENSION"])
    return torch.ops.gpusim.lif


def test_an_extension(lif):
    for shape in ((4, 65536), (4, 5003), (7, 3, 17), (1, 1)):
        x = torch.randn(*shape)
        before = len(LOG)
        s = lif(x.cuda(), 0.5, 1.0, 0)
        assert s.is_cuda and len(LOG) == before + 1
        assert torch.equal(s.cpu(), lif_reference(x, 0.5, 1.0)), shape
        assert LOG[-1].bytes_loaded == LOG[-1].bytes_stored == 4 * x.numel()
    base = torch.randn(4 * 4096 + 1)
    view = base.cuda()[1:].view(4, 4096)
    assert torch.equal(lif(view, 0.5, 1.0, 0).cpu(), lif_reference(base[1:].view(4, 4096), 0.5, 1.0))
    x = torch.randn(100, 4)
    assert torch.equal(lif(x.cuda().t(), 0.5, 1.0, 0).cpu(), lif_reference(x.t(), 0.5, 1.0))


def test_an_access_out_of_bounds_is_noticed(lif):
    errors = len(ERRORS)
    raises("out of bounds", lif, torch.randn(1, 1000).cuda(), 0.5, 1.0, 1)
    assert len(ERRORS) == errors + 1 and isinstance(ERRORS[-1], PTXError)
    x = torch.randn(1, 512)
    assert torch.equal(lif(x.cuda(), 0.5, 1.0, 1).cpu(), lif_reference(x, 0.5, 1.0))


def test_a_misaligned_access_is_noticed(lif):
    view = torch.randn(4 * 4096 + 1).cuda()[1:].view(4, 4096)
    raises("misaligned 16-byte", lif, view, 0.5, 1.0, 2)


def test_torch_operators():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    x = torch.randn(2, 3, 8, 8)
    results = []
    for device in ("cpu", "cuda"):
        local = net.to(device)
        local.zero_grad()
        leaf = x.clone().to(device).requires_grad_()
        y = local(leaf)
        (y * y).mean().backward()
        results.append([t.detach().cpu().clone() for t in (y, leaf.grad, local[0].weight.grad)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    r = torch.randn(5, device="cuda")
    assert r.is_cuda and torch.equal(r.sum().cpu(), r.cpu().sum())


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
def test_triton(dtype):
    for n in (65536, 5008, 5003, 17, 1):
        for steps in (1, 4):
            x = torch.randn(steps, n).to(dtype)
            before = len(LOG)
            s = run_lif(x.cuda(), steps)
            assert s.is_cuda and len(LOG) == before + 1
            assert torch.equal(s.cpu(), lif_reference(x, 0.5, 1.0)), (n, steps)
            assert LOG[-1].bytes_stored == LOG[-1].bytes_loaded == x.numel() * x.element_size()
    view = torch.randn(4 * 4096 + 1).to(dtype)[1:].view(4, 4096)
    offset = torch.cat([view.new_zeros(1), view.flatten()]).cuda()[1:].view(4, 4096)
    assert torch.equal(run_lif(offset, 4).cpu(), lif_reference(view, 0.5, 1.0))


def test_triton_autotune():
    x = torch.randn(4, 5000)
    s = torch.empty_like(x).cuda()
    tuned_kernel[lambda m: (triton.cdiv(5000, m["BLOCK"]),)](x.cuda(), s, 5000, 0.5, 1.0, T=4)
    assert torch.equal(s.cpu(), lif_reference(x, 0.5, 1.0))


def test_triton_sums():
    for n in (1000, 4096):
        x = torch.randn(6, n)
        s, top, total = (torch.zeros(size).cuda() for size in (6, 6, 1))
        channel_kernel[(6,)](x.cuda(), s, top, total, n, BLOCK=512)
        assert_sum(s.cpu().numpy(), x.T)
        assert torch.equal(top.cpu(), x.max(1).values)
        assert_sum(total.cpu()[0].numpy(), s.cpu())


def test_a_missing_mask_in_triton_is_noticed():
    x = torch.zeros(5000).cuda()
    raises("out of bounds", unmasked_kernel[(5,)], x, torch.zeros_like(x), 5000, BLOCK=1024)


def test_triton_refuses_tensors_on_the_cpu():
    raises("a tensor on the CPU", run_lif, torch.zeros(4, 10), 4)

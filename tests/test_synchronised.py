"""Statistics over several processes: two with half of a batch each do what one does with the whole."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tolerances import TOLERANCES
from torch import nn

import stdano
from stdano import BatchNormNeuron, LLIFNode, SuperNeuron

T, B, C = 3, 5, 4
PARTS = ((0, 2), (2, 5))  # unequal on purpose


def modules():
    torch.manual_seed(0)
    fused = nn.Sequential(nn.SyncBatchNorm(C), LLIFNode(step_mode="s"))
    stdano.fuse(fused)
    pair = BatchNormNeuron(C, "SLIF", tau=1.4, sync=True)
    return [m.double() for m in (fused, pair, SuperNeuron(C, tau=1.4, sync=True))]


def train(module, x):
    """Output, gradient of the input, sums of the parameters' gradients, statistics."""
    stepwise = isinstance(module, nn.Sequential) and not isinstance(module, BatchNormNeuron)
    x = (x[0] if stepwise else x).clone().requires_grad_()
    y = module(x)
    (y * torch.linspace(-1, 1, C, dtype=x.dtype).view(C, 1, 1) * (x.detach() + 0.3)).sum().backward()
    return y.detach(), x.grad, [p.grad for p in module.parameters()], [b.clone() for b in module.buffers()]


def work(rank, folder, x):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(PARTS))
    torch.set_num_threads(1)
    own = x[:, slice(*PARTS[rank])]
    torch.save([train(module, own) for module in modules()], f"{folder}/{rank}.pt")
    alone = BatchNormNeuron(C).double()
    alone(own if rank == 0 else own + 5)
    torch.save(alone[0].running_mean, f"{folder}/alone{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    x = 1.2 * torch.randn(T, B, C, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    mp.spawn(work, (str(tmp_path), x), nprocs=len(PARTS))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(PARTS))]
    for module, *results in zip(modules(), *parts, strict=True):
        y, grad, of_parameters, buffers = train(copy.deepcopy(module), x)
        batch = y.dim() - 4
        tolerance = TOLERANCES[torch.float64]._asdict()
        torch.testing.assert_close(torch.cat([r[0] for r in results], batch), y, **tolerance)
        torch.testing.assert_close(torch.cat([r[1] for r in results], batch), grad, **tolerance)
        for k, whole in enumerate(of_parameters):
            torch.testing.assert_close(sum(r[2][k] for r in results), whole, **tolerance)
        for k, whole in enumerate(buffers):
            assert all(torch.equal(results[0][3][k], r[3][k]) for r in results)
            torch.testing.assert_close(results[0][3][k], whole, **tolerance)
    alone = [torch.load(tmp_path / f"alone{rank}.pt") for rank in range(2)]
    assert not torch.allclose(*alone)  # without sync each process has its own

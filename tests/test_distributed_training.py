"""Search and training in two processes under torchrun give what one gives with the same global batch."""

import os
import sys

import processes
import pytest
import torch
import torch.distributed as dist

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.search import Architecture
from stdano.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")

# Each process leaves what it has at the end; the last batch of an epoch (93 of 718 samples) is shared out unequally.
SCRIPT = """
import os, sys
from pathlib import Path
import torch
from stdano.search.loop import SearchRun
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training.engine import Run
folder = Path(sys.argv[1])
for kind, settings, run_kind in (("search", SearchSettings(), SearchRun), ("train", TrainSettings(), Run)):
    more = dict(alpha_lr=0.02, alpha_weight_decay=0.0) if kind == "search" else {}
    settings = replace(settings, width=0.1, T=2, epochs=1, batch_size=125, crop=1, accelerator="cpu", threads=1,
                       sync_statistics=True, **more)
    run = run_kind(settings, folder / kind)
    def after_step(progress):
        if kind == "search" and progress.step == 1:  # half of the gradient of alpha is Adam's first moment then
            moments = [state["exp_avg"] for state in run.architect.optimiser.state.values()]
            torch.save(moments, folder / f"alpha-{os.environ.get('RANK', 0)}.pt")
    run.start(after_step)
    if kind == "search":
        run.finish()
    torch.save(run.plain.state_dict(), folder / f"{kind}-{os.environ.get('RANK', 0)}.pt")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of one process's and of two processes' runs."""
    parent = tmp_path_factory.mktemp("runs")
    script = parent / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if "WORLD" not in name and "RANK" not in name}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, launcher in (("one", []), ("two", torchrun)):
        (parent / name).mkdir()
        command = [sys.executable, *launcher, str(script), str(parent / name)]
        processes.run(command, env=environment, check=True)
    return parent / "one", parent / "two"


@pytest.mark.parametrize("kind", ["search", "train"])
def test_processes_agree(runs, kind):
    """In all bits, alpha and running statistics included."""
    a, b = (torch.load(runs[1] / f"{kind}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_alpha_gradients_are_those_of_the_whole_batch(runs):
    one, *two = (torch.load(folder / f"alpha-{rank}.pt") for folder, rank in ((runs[0], 0), (runs[1], 0), (runs[1], 1)))
    largest = max(moment.abs().max().item() for moment in one)
    assert largest > 1e-6
    for whole, *parts in zip(one, *two, strict=True):
        assert torch.equal(*parts)
        torch.testing.assert_close(parts[0], whole, rtol=1e-3, atol=1e-4 * largest)  # in layer 1 they cancel out


@pytest.mark.parametrize("kind", ["search", "train"])
def test_two_processes_are_one(runs, kind):
    """After several steps: alpha to a tenth of one of Adam's steps, which are as long for small gradients, whose
    rounding differs."""
    one, two = (torch.load(folder / f"{kind}-0.pt", weights_only=True) for folder in runs)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-3 if "alpha" in name else 1e-4, msg=name)
    rows, others = (load_checkpoint(folder / kind / "last.pt")["progress"]["rows"] for folder in runs)
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "firing_rate"):
        assert rows[0][name] == pytest.approx(others[0][name], rel=5e-3), name
    one, two = (Architecture.load(folder / "search" / "architecture.json") for folder in runs)
    assert one.neurons == two.neurons
    assert max(abs(value) for alpha in one.alphas for value in alpha) > 0.05  # several steps of 0.02

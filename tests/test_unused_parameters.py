"""A network of one's own whose parameters a step may not use, in several processes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch.distributed as dist

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.settings import RunSettings
from stdano.training import devices

SCRIPT = """
import sys
import torch
from torch import nn
from stdano import LIFNode
from stdano.settings import TrainSettings, replace
from stdano.training import train

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), LIFNode(), nn.Linear(16, 10))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.layers(x)

settings = replace(TrainSettings(), T=2, epochs=1, batch_size=512, accelerator="cpu", threads=1)
train(replace(settings, find_unused_parameters=sys.argv[2] == "True"), sys.argv[1], model=Net())
"""


def test_which_strategy_it_is(monkeypatch):
    given = []
    fabric = SimpleNamespace(launch=lambda: None)
    monkeypatch.setattr(devices, "Fabric", lambda **options: given.append(options["strategy"]) or fabric)
    for devices_, find in ((1, True), (2, False), (2, True)):
        devices.make_fabric(RunSettings(accelerator="cpu", devices=devices_, find_unused_parameters=find))
    assert given == ["auto", "ddp", "ddp_find_unused_parameters_true"]


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.exhaustive
@pytest.mark.parametrize("find", [True, False])
def test_training(find, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if "WORLD" not in name and "RANK" not in name}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path / "run"), str(find)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert (done.returncode == 0) == find, done.stderr[-3000:]
    assert find or "find_unused_parameters=True" in done.stderr

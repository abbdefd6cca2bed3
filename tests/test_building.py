"""Building any module looks for no device and imports no Triton: workers may be forked after it, and it asks no GPU."""

import subprocess
import sys

import pytest
import torch

import stdano
from stdano.models import create_model
from stdano.nodes.neurons import CANDIDATES, NEURONS
from stdano.settings import ModelSettings


def build_everything():
    for name, Node in NEURONS.items():
        for backend in ("auto", "reference", "cpu", "triton", "cuda"):
            Node(backend=backend)
        stdano.BatchNormNeuron(3, name)
    for name in CANDIDATES:
        stdano.SuperNeuron(3, (name,))
    stdano.SuperNeuron(3)
    ModelSettings().check()
    create_model("vgg-small", neurons="LLIF", T=2, num_classes=3, width=0.1)


def test_no_device_is_asked_for(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("building a module asked for a device")

    for name in ("is_available", "device_count", "get_device_capability", "get_device_name", "_lazy_init", "init"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    monkeypatch.setitem(sys.modules, "triton", None)
    build_everything()


@pytest.mark.slow
def test_in_a_process_of_its_own():
    code = (
        "import sys; sys.modules['triton'] = None; import torch\n"
        "def refuse(*a, **k): raise AssertionError('asked')\n"
        "torch.cuda.is_available = torch.cuda.get_device_capability = torch.cuda._lazy_init = refuse\n"
        "sys.path.insert(0, 'tests'); from test_building import build_everything; build_everything()\n"
        "assert 'stdano_kernels.triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=__file__.rsplit("/tests/", 1)[0], timeout=600)

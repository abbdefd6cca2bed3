"""Every Triton kernel compiles with the oldest Triton that is taken. No GPU is needed; that Triton is downloaded."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stdano_kernels.backends import _OLDEST_TRITON

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="there is no Triton for this machine"),
]
ROOT = Path(__file__).parent.parent
OLDEST = ".".join(map(str, _OLDEST_TRITON))

COMPILE = """
import importlib, json, pkgutil
import torch, triton
import stdano_kernels.triton
from _triton_code import NEURONS, compiled, recorded_calls, recorded_channel_calls

calls = recorded_channel_calls(tuple(NEURONS), steps=4) + recorded_channel_calls(("lif",))
for neuron in NEURONS:
    calls += recorded_calls(neuron, dtype=torch.float16, steps=4)
    calls += recorded_calls(neuron, steps=16, affine=True)
    calls += recorded_calls(neuron, steps=9, kinds=("one", "neuron", "number", "channel"), affine=True, outputs=True)
for kernel, arguments in calls:
    assert compiled(kernel, arguments, 90)[0].asm["cubin"]
package = stdano_kernels.triton
modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
kernels = {n for m in modules for n, k in vars(m).items() if isinstance(k, triton.JITFunction) and k.do_not_specialize}
print(json.dumps([triton.__version__, sorted(kernels), sorted({kernel.__name__ for kernel, _ in calls})]))
"""


@pytest.fixture(scope="module")
def oldest_triton(tmp_path_factory):
    """The folder that it is installed in."""
    folder = tmp_path_factory.mktemp("triton")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        folder,
        f"triton=={OLDEST}.*",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"pip cannot install Triton {OLDEST} here: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
        )
    return folder


def test_every_kernel_compiles(oldest_triton, tmp_path):
    path = os.pathsep.join(map(str, (oldest_triton, ROOT, ROOT / "benchmarks")))
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    version, kernels, compiled = json.loads(done.stdout)
    assert version.startswith(f"{OLDEST}.")
    assert compiled == kernels and len(kernels) == 9

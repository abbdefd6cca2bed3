"""The simulated device's own tests, run on it; and that processes which build its libraries at once agree."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from gpusim import stand_ins
from gpusim_common import FOLDER
from processes import run

from stdano_kernels.toolkit import find_toolkit

TOOLKIT, WHY = find_toolkit(torch.version.cuda)
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device"),
    pytest.mark.skipif(TOOLKIT is None, reason=f"the simulated device needs CUDA headers: {WHY}"),
]


def build_extension(folder):
    out, torch_folder = folder / "_C_cuda_selftest.so", Path(torch.__file__).parent
    options = ["-std=c++20", "-O3", "-w", "-shared", "-Xcompiler", "-fPIC", "-cudart", "shared", "-DUSE_CUDA"]
    options += ["-gencode", "arch=compute_86,code=compute_86", f"-I{torch_folder / 'include'}"]
    folders = (TOOLKIT / "lib64", TOOLKIT / "lib", torch_folder / "lib")
    libraries = [*(f"-L{f}" for f in folders if f.exists()), "-ltorch", "-ltorch_cpu", "-ltorch_cuda"]
    run([TOOLKIT / "bin" / "nvcc", *options, FOLDER / "extension.cu", "-o", out, *libraries], check=True)
    return out


def test_on_the_simulated_device(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    environment |= {"GPUSIM_EXTENSION": str(build_extension(tmp_path)), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, FOLDER, "-m", "pytest", "-q", "-p", "no:cacheprovider", FOLDER / "device_selftest.py"]
    result = run(command, env=environment)
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout[-5000:] + result.stderr[-3000:]
    assert "skipped" not in result.stdout


def test_processes_that_build_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: stand_ins.build(), range(3)))
    (folder,) = folders
    assert {path.name for path in folder.iterdir()} == {"runtime.so", "libcuda.so.1"}
    assert list((tmp_path / "stdano").iterdir()) == [folder], "nothing else is left behind"

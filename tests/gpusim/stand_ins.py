"""The stand-ins for the CUDA runtime and driver: where they are built, and the environment that puts them in place."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from stdano_kernels.toolkit import find_toolkit

HERE = Path(__file__).parent
RUNTIME, DRIVER = (HERE / "runtime.cpp", HERE / "streams.cpp"), HERE / "driver.c"
FLAGS = ("-O2", "-fPIC", "-shared", "-w")


def build():
    """The folder of the two libraries, built when it is first asked for. Processes that build them at the same time do
    not see each other's halves: a folder gets its name when it is whole."""
    toolkit, why = find_toolkit(torch.version.cuda)
    if toolkit is None:
        raise RuntimeError(f"the simulated device needs CUDA headers: {why}")
    content = (
        b"".join(path.read_bytes() for path in (*RUNTIME, DRIVER, Path(__file__))) + str(toolkit.resolve()).encode()
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stdano"
    folder = cache / f"gpusim-{hashlib.sha256(content).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        new = Path(work) / "new"
        new.mkdir()
        runtime = ["g++", *FLAGS, f"-I{toolkit / 'include'}", *RUNTIME, "-o", new / "runtime.so", "-ldl"]
        driver = ["gcc", *FLAGS, DRIVER, "-Wl,-soname,libcuda.so.1", "-o", new / "libcuda.so.1"]
        for command in (runtime, driver):
            subprocess.run(command, check=True)
        try:
            new.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


def environment(**more):
    """This process's variables, and those with which another one sees a simulated device."""
    folder = build()

    def first(entry, name):
        return f"{entry}:{os.environ[name]}" if os.environ.get(name) else str(entry)

    return {
        **os.environ,
        "LD_PRELOAD": first(folder / "runtime.so", "LD_PRELOAD"),
        "LD_LIBRARY_PATH": first(folder, "LD_LIBRARY_PATH"),  # where libcuda.so.1 is
        "PYTHONPATH": first(HERE.parent, "PYTHONPATH"),
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",  # an allocation a tensor, so that accesses outside of it are noticed
        "CUDA_VISIBLE_DEVICES": "0",
        **more,
    }

"""Whether the CUDA kernels are built, with which CUDA toolkit and for which devices. Serves setup.py, which loads this
file alone, and the explanation of why there are none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

DEFAULT = Path("/usr/local/cuda")
DRIVER_DEVICES = Path("/proc/driver/nvidia/gpus")


def candidates() -> list[Path]:
    """Folders that may hold a toolkit, the likeliest first: what the user names, nvcc's on PATH, the usual one."""
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    found = [Path(nvcc).resolve().parent.parent] if nvcc else []
    return [*named, *found, DEFAULT]


def is_toolkit(folder: Path) -> bool:
    """Some systems have an nvcc without a toolkit around it (a wrapper script, a package without headers)."""
    return (folder / "bin" / "nvcc").exists() and (folder / "include" / "cuda_runtime.h").exists()


def asked_for() -> bool | None:
    """What STDANO_CUDA says of the CUDA kernels: 1, build them; 0, do not; None where it is not set."""
    value = os.environ.get("STDANO_CUDA", "")
    if value not in ("", "0", "1"):
        raise ValueError(f"STDANO_CUDA must be 0 or 1 (or not set: the CUDA kernels where a GPU is), got {value!r}")
    return value == "1" if value else None


def plan(torch_cuda: str | None, torch_sees_gpu: bool) -> tuple[Path | None, str]:
    """What :func:`find_toolkit` gives where the CUDA kernels are to be built; else None and the reason. The driver is
    asked as well, because torch does not see a GPU that CUDA_VISIBLE_DEVICES hides."""
    asked = asked_for()
    if asked is False:
        return None, "STDANO_CUDA=0"
    if asked is None and not torch_sees_gpu and not any(DRIVER_DEVICES.glob("*")):
        return None, "no GPU was found; STDANO_CUDA=1 builds them without one"
    return find_toolkit(torch_cuda)


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def architectures(version: str) -> str:
    """Compute capabilities that a toolkit of this version builds the kernels for unless TORCH_CUDA_ARCH_LIST says
    otherwise; torch's own default needs a device. 8.9 runs the code for 8.6; what is newer translates the PTX of 9.0,
    because that of 7.5 has no instruction that rounds to bfloat16."""
    return "7.5;8.0;8.6;9.0+PTX" + (";12.0" if _release(version) >= (12, 8) else "")


def nvcc_flags(version: str) -> list[str]:
    """What makes the library a tenth as large, where nvcc knows it."""
    return ["--compress-mode=size"] if _release(version) >= (12, 8) else []


def find_toolkit(torch_cuda: str | None) -> tuple[Path | None, str]:
    """The toolkit's folder for a torch built with CUDA ``torch_cuda`` ("13.0"; None: not built with CUDA), and its
    version; or None and the reason why there is none."""
    if torch_cuda is None:
        return None, "this torch was built without CUDA"
    folder = next((f for f in candidates() if is_toolkit(f)), None)
    if folder is None:
        looked = ", ".join(dict.fromkeys(map(str, candidates())))
        return None, f"no CUDA toolkit with nvcc and include/cuda_runtime.h was found (looked in {looked})"
    try:
        text = subprocess.run([folder / "bin" / "nvcc", "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        return None, f"{folder / 'bin' / 'nvcc'} cannot be run: {error}"
    match = re.search(r"release (\d+)\.(\d+)", text)
    if match is None:
        return None, f"{folder / 'bin' / 'nvcc'} --version names no release"
    version = f"{match[1]}.{match[2]}"
    if match[1] != torch_cuda.split(".")[0]:
        return None, (
            f"the CUDA toolkit in {folder} is {version}, but torch was built with CUDA {torch_cuda}: the major "
            "versions must agree (CUDA_HOME names another toolkit)"
        )
    return folder, version

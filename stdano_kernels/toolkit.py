"""Where the CUDA toolkit is that the CUDA kernels are built with. Serves setup.py, which loads this file alone, and
the explanation of why there are none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# Compute capabilities that the kernels are built for unless TORCH_CUDA_ARCH_LIST says otherwise; the last one also as
# PTX, which later devices translate. Without a device, torch has no default of its own.
ARCHITECTURES = "8.0;8.6;8.9;9.0+PTX"
DEFAULT = Path("/usr/local/cuda")


def candidates() -> list[Path]:
    """Folders that may hold a toolkit, the likeliest first: what the user names, nvcc's on PATH, the usual one."""
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    found = [Path(nvcc).resolve().parent.parent] if nvcc else []
    return [*named, *found, DEFAULT]


def is_toolkit(folder: Path) -> bool:
    """Some systems have an nvcc without a toolkit around it (a wrapper script, a package without headers)."""
    return (folder / "bin" / "nvcc").exists() and (folder / "include" / "cuda_runtime.h").exists()


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

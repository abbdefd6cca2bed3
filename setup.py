"""Builds the compiled kernels; everything else about the package stands in pyproject.toml.

The CPU kernels are built wherever a C++ compiler is found, the CUDA kernels where a CUDA toolkit is (no device is
needed). Without either the install still succeeds, other backends work, and ``stdano_kernels.backends()`` says what
is missing.
"""

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import setup

# Contraction stays off, because one rounding less flips a spike. The two switches after it drop errno and traps,
# with which loops that compare cannot become vector instructions. Jump threading gives fired and silent neurons paths
# of their own, which vector code then joins again with masks: without it SLIF's adjoint takes a third of the time.
CXX_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps"]
NVCC_FLAGS = ["-O3", "-fmad=false", "--threads=2", "-Xcompiler=-ffp-contract=off"]
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000"]

CPU_SOURCES = [
    "csrc/ops.cpp",
    "csrc/cpu/ops.cpp",
    "csrc/cpu/x86_64_v2.cpp",
    "csrc/cpu/x86_64_v3.cpp",
    "csrc/cpu/x86_64_v4.cpp",
    "csrc/cpu/generic.cpp",
]
CUDA_SOURCES = [
    "csrc/cuda/ops.cpp",
    "csrc/cuda/lif.cu",
    "csrc/cuda/llif.cu",
    "csrc/cuda/slif.cu",
    "csrc/cuda/channels.cu",
    "csrc/cuda/super_neuron.cu",
    "csrc/cuda/sums.cu",
]


def load_toolkit_module():
    """stdano_kernels/toolkit.py by itself: the package around it loads what is only now being built."""
    path = Path(__file__).parent / "stdano_kernels" / "toolkit.py"
    spec = importlib.util.spec_from_file_location("toolkit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare_cuda():
    """Whether the CUDA kernels can be built; sets what torch's build reads from the environment."""
    import torch

    toolkit = load_toolkit_module()
    folder, found = toolkit.find_toolkit(torch.version.cuda)
    if folder is None:
        print(f"stdano: no CUDA kernels: {found}", file=sys.stderr)
        return False
    os.environ["CUDA_HOME"] = str(folder)  # before torch.utils.cpp_extension is imported, which would guess
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", toolkit.ARCHITECTURES)
    return True


def compiled_extensions():
    """The extension modules and the command that builds them; nothing where torch or Linux is missing."""
    if not sys.platform.startswith(("linux", "darwin")):
        return [], {}
    try:
        has_cuda = prepare_cuda()
        from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    except ImportError:
        return [], {}

    def report(what, error):
        print(
            f"\nstdano: the {what} kernels were not built ({type(error).__name__}: {error}).\n"
            f"stdano: the package works without them. For the kernels install "
            f"{'g++' if what == 'CPU' else 'a CUDA toolkit that fits torch'} and run pip again.\n",
            file=sys.stderr,
        )

    class OptionalBuild(BuildExtension):
        """A build that fails leaves an install without these kernels, not without a package."""

        failed = ()

        def build_extension(self, extension):
            try:
                super().build_extension(extension)
            except Exception as error:  # the compilers' errors have no common base class
                report("CUDA" if extension.name.endswith("_cuda") else "CPU", error)
                self.failed = (*self.failed, extension)

        def build_extensions(self):
            super().build_extensions()
            self.extensions = [e for e in self.extensions if e not in self.failed]  # what later steps copy

        def run(self):
            try:
                super().run()
            except Exception as error:  # no compiler at all
                report("CPU", error)
                self.extensions = []

    extensions = [
        CppExtension(
            "stdano_kernels._C",
            CPU_SOURCES,
            extra_compile_args={"cxx": CXX_FLAGS + STABLE_ABI},
            py_limited_api=True,
        )
    ]
    if has_cuda:
        extensions.append(
            CUDAExtension(
                "stdano_kernels._C_cuda",
                CUDA_SOURCES,
                extra_compile_args={"cxx": CXX_FLAGS + STABLE_ABI + ["-DUSE_CUDA"], "nvcc": NVCC_FLAGS},
                py_limited_api=True,
            )
        )
    return extensions, {"build_ext": OptionalBuild}


extensions, commands = compiled_extensions()
setup(ext_modules=extensions, cmdclass=commands, options={"bdist_wheel": {"py_limited_api": "cp310"}})

"""Builds the compiled kernels; everything else about the package stands in pyproject.toml.

The CPU kernels are built wherever a C++ compiler is found. The CUDA kernels are built where there is a GPU and a CUDA
toolkit; STDANO_CUDA=1 asks for them on a machine without a GPU too, and then it is an error if they cannot be built;
STDANO_CUDA=0 leaves them out. Otherwise the install succeeds whatever is missing, other backends work, and
``stdano_kernels.backends()`` says what is missing.
"""

import importlib
import os
import sys
import types
from pathlib import Path

from setuptools import setup
from setuptools.errors import PlatformError

# Contraction stays off, because one rounding less flips a spike. The two switches after it drop errno and traps,
# with which loops that compare cannot become vector instructions. Jump threading gives fired and silent neurons paths
# of their own, which vector code then joins again with masks: without it SLIF's adjoint takes a third of the time.
CXX_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps"]
CXX_FLAGS += ["-fvisibility=hidden"]  # thousands of templates' names would be a tenth of the library
# -O1 is about the host's code, which takes arguments to launches; kernels are compiled with all optimisations anyway.
NVCC_FLAGS = ["-O1", "-fmad=false", "--threads=2", "-Xcompiler=-ffp-contract=off"]
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000"]

CPU_SOURCES = [
    "csrc/cpu/x86_64_v4.cpp",  # what takes longest comes first
    "csrc/cpu/x86_64_v3.cpp",
    "csrc/cpu/generic.cpp",
    "csrc/cpu/bits.cpp",
    "csrc/cpu/ops.cpp",
    "csrc/ops.cpp",
]
CUDA_SOURCES = ["csrc/cuda/ops.cpp", "csrc/cuda/launch.cu"]  # and what is printed
ROOT = Path(__file__).parent
PRINTED = ROOT / "build" / "printed"  # the neurons as C++, written by the build
INCLUDE_DIRS = [str(ROOT / "csrc"), str(ROOT / "stdano_kernels" / "include"), str(PRINTED)]


def load(name):
    """A module of stdano_kernels without what stands in the package's __init__.py, which loads what is only now being
    built."""
    if "stdano_kernels" not in sys.modules:
        package = types.ModuleType("stdano_kernels")
        package.__path__ = [str(ROOT / "stdano_kernels")]
        sys.modules["stdano_kernels"] = package
    return importlib.import_module(f"stdano_kernels.{name}")


toolkit = load("toolkit")


def prepare_cuda():
    """nvcc's flags where the CUDA kernels are built, or None and the reason why not; sets what torch's build reads from
    the environment."""
    import torch

    folder, found = toolkit.plan(torch.version.cuda, torch.cuda.is_available())
    if folder is None:
        return None, found
    os.environ["CUDA_HOME"] = str(folder)  # before torch.utils.cpp_extension is imported, which would guess
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", toolkit.architectures(found))
    return NVCC_FLAGS + toolkit.nvcc_flags(found), ""


def compiled_extensions():
    """The extension modules and the command that builds them; nothing where torch or Linux is missing."""
    asked_for_cuda = toolkit.asked_for() is True
    if not sys.platform.startswith(("linux", "darwin")):
        return [], {}
    try:
        nvcc_flags, no_cuda = prepare_cuda()
        from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        print(f"stdano: no compiled kernels: torch cannot be imported ({error})", file=sys.stderr)
        return [], {}

    class CudaMissing(PlatformError):
        def __init__(self, reason):
            super().__init__(f"STDANO_CUDA=1, but the CUDA kernels cannot be built: {reason}")

    class OptionalBuild(BuildExtension):
        """A build that fails leaves an install without these kernels, not without a package; but for CUDA kernels that
        were asked for."""

        failed = ()

        def fail(self, extensions, error):
            if asked_for_cuda and any(e.name.endswith("_cuda") for e in extensions):
                raise CudaMissing(error) from error
            needed = {"_C": ("CPU", "g++"), "_C_cuda": ("CUDA", "a CUDA toolkit that fits torch")}
            for extension in extensions:
                what, install = needed[extension.name.split(".")[-1]]
                print(
                    f"\nstdano: the {what} kernels were not built ({type(error).__name__}: {error}).\n"
                    f"stdano: the package works without them. For the kernels install {install} and run pip again.\n",
                    file=sys.stderr,
                )
            self.failed = (*self.failed, *extensions)

        def build_extension(self, extension):
            try:
                super().build_extension(extension)
            except Exception as error:  # the compilers' errors have no common base class
                self.fail([extension], error)

        def build_extensions(self):
            super().build_extensions()
            self.extensions = [e for e in self.extensions if e not in self.failed]  # what later steps copy

        def run(self):
            load("define.shipped").write(PRINTED)
            if no_cuda:
                if asked_for_cuda:
                    raise CudaMissing(no_cuda)
                print(f"stdano: no CUDA kernels: {no_cuda}", file=sys.stderr)
            try:
                super().run()
            except CudaMissing:
                raise
            except Exception as error:  # no compiler at all
                self.fail(self.extensions, error)
                self.extensions = []
            if self.inplace:
                self.remove_older()

        def remove_older(self):
            """Libraries in the source tree that this build has not made: older sources' operators would be loaded."""
            built = {extension.name.split(".")[-1] for extension in self.extensions}
            for file in (ROOT / "stdano_kernels").glob("_C*.so"):
                if file.name.split(".")[0] not in built:
                    print(f"stdano: removes {file.name}, which an earlier build left", file=sys.stderr)
                    file.unlink()

    extensions = [
        CppExtension(
            "stdano_kernels._C",
            CPU_SOURCES,
            include_dirs=INCLUDE_DIRS,
            extra_compile_args={"cxx": CXX_FLAGS + STABLE_ABI},
            py_limited_api=True,
        )
    ]
    if nvcc_flags is not None:
        extensions.append(
            CUDAExtension(
                "stdano_kernels._C_cuda",
                CUDA_SOURCES + [f"build/printed/neurons{k}.cu" for k in range(load("define.shipped").DEVICE_FILES)],
                include_dirs=INCLUDE_DIRS,
                extra_compile_args={"cxx": CXX_FLAGS + STABLE_ABI + ["-DUSE_CUDA"], "nvcc": nvcc_flags},
                py_limited_api=True,
            )
        )
    return extensions, {"build_ext": OptionalBuild}


extensions, commands = compiled_extensions()
setup(ext_modules=extensions, cmdclass=commands, options={"bdist_wheel": {"py_limited_api": "cp310"}})

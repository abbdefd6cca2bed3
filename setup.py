"""Builds the compiled kernels; everything else about the package stands in pyproject.toml.

The CPU kernels are built wherever a C++ compiler is found. Without one the install still succeeds, the reference
backend works, and ``stdano_kernels.backends()`` says what is missing.
"""

import sys

from setuptools import setup

# Contraction stays off, because one rounding less flips a spike. The two switches after it drop errno and traps,
# with which loops that compare cannot become vector instructions.
CXX_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000"]

CPU_SOURCES = [
    "csrc/ops.cpp",
    "csrc/cpu/ops.cpp",
    "csrc/cpu/x86_64_v2.cpp",
    "csrc/cpu/x86_64_v3.cpp",
    "csrc/cpu/x86_64_v4.cpp",
    "csrc/cpu/generic.cpp",
]


def compiled_extensions():
    """The extension modules and the command that builds them; nothing where torch or Linux is missing."""
    if not sys.platform.startswith(("linux", "darwin")):
        return [], {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        return [], {}

    class OptionalBuild(BuildExtension):
        """A build that fails leaves an install without compiled kernels, not without a package."""

        def run(self):
            try:
                super().run()
            except Exception as error:  # the compilers' errors have no common base class
                print(
                    f"\nstdano: the CPU kernels were not built ({type(error).__name__}: {error}).\n"
                    "stdano: the package works without them, slowly. For the kernels install g++ and run pip again.\n",
                    file=sys.stderr,
                )
                self.extensions = []  # what a later step would copy

    cpu = CppExtension(
        "stdano_kernels._C",
        CPU_SOURCES,
        extra_compile_args={"cxx": CXX_FLAGS + STABLE_ABI},
        py_limited_api=True,
    )
    return [cpu], {"build_ext": OptionalBuild}


extensions, commands = compiled_extensions()
setup(ext_modules=extensions, cmdclass=commands, options={"bdist_wheel": {"py_limited_api": "cp310"}})

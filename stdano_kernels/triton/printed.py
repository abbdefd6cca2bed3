"""Neurons as Triton functions, printed at their first use."""

from __future__ import annotations

import hashlib
import linecache
import sys
from collections import namedtuple
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from ..define.triton import neuron_source
from ..spec import KERNELS, planned

_MATH = (Path(__file__).parent / "math.py").read_text()


# The functions that scan.py describes, how many states and constants there are, and for each state the number of the
# constant at which it rests, or -1.
Neuron = namedtuple("Neuron", "derive rest step adjoint last_adjoint finish states constants rests")


def together(neurons: Sequence[Neuron]) -> Neuron:
    """Several as kernels take them, of each thing a tuple: Triton 3.5 takes no tuple of tuples apart."""
    return Neuron(*zip(*neurons, strict=True))


@cache
def neuron_of(kernel: str) -> Neuron:
    """The neuron of a kernel's name."""
    plan = planned(*KERNELS[kernel])
    source = neuron_source(plan)
    # Triton keeps what it compiles under a key in which a function that is an argument may stand by its name alone, so
    # the name has a hash of everything that the function is made of.
    digest = hashlib.sha256((source + _MATH).encode()).hexdigest()[:16]
    module = _module(f"stdano_{plan.step.neuron.__name__}_{digest}", source)
    constants = list(plan.step.constants)
    rests = [constants.index(rest) if isinstance(rest, str) else -1 for rest in plan.step.rest_names()]
    functions = {name: getattr(module, name) for name in Neuron._fields[:6]}
    return Neuron(**functions, states=len(plan.step.states), constants=len(constants), rests=tuple(rests))


def _module(name: str, source: str) -> ModuleType:
    """The source as a module. Triton reads it where Python's tracebacks do: there it need not be a file, which could be
    older than the source, or cut short."""
    file = f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, file, "exec"), vars(module))
    return module

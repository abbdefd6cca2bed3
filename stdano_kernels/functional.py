"""The neurons as functions: tensors in, tensors out, no state but what the caller passes.

Arguments are checked here, once, before anything is computed; the backends trust them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import compiler, constant, normalise, packed, reference, registration
from .backends import NAMES, constant_when_traced, select, serves
from .checks import check_affine, check_constant, check_input, check_state
from .define.neuron import Neuron
from .define.trace import Variant
from .moments import update_running
from .neurons import NEURONS
from .normalise import Norm
from .settings import choice, flag
from .spec import KERNELS, Settled, Spec, cleaned, spec_of, traced

if TYPE_CHECKING:
    from .signatures import Function, LIFFunction, LLIFFunction, SLIFFunction
    from .signatures import LIFState as LIFState
    from .signatures import LLIFState as LLIFState
    from .signatures import SLIFState as SLIFState

_DOC = """{doc}
{constants}
    Args:
        x: input ``[T, ...]``, float32, float64, float16 or bfloat16, in any memory layout. Half precision is
            computed in float32. T or any other size may be 0. What ``step.expand(T, ...)`` gives is read once, and so
            is the gradient of ``step`` written once: the sum over the steps, last one first, rounded at the end.
{arguments}
        affine: ``[3, C]``, the rows centre, scale and shift: the neuron's input is then ``scale*(x - centre) + shift``
            with the numbers of each channel (dimension 2 of ``x: [T, B, C, ...]``), computed in registers and never
            stored. It may require grad. This is how :func:`stdano_kernels.bn_neuron` normalises.
        state: continues a sequence, exactly, in values and gradients: ({states}). None starts at rest.
        return_state: also return the state after the last step.
        return_v_seq: also return the potentials after the reset, ``[T, ...]``.
        return_sequences: names of states, {states}; for each its values after every step, ``[T, ...]``.
        backend: ``"auto"``, or a name from :func:`stdano_kernels.backends`, which then never falls back.

    Returns:
        Spikes like ``x``; with options a tuple of spikes, state, potentials, and a tuple of sequences, in this order.
        States are float32 (float64 for float64 input).

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it, its value and what is allowed.
        RuntimeError: the backend is not available here.
    """

_OF_ALL = {
    "decay": '``"exp"``: a = exp(-1/tau), the paper\'s eq. 3; ``"linear"``: a = 1 - 1/tau, SpikingJelly\'s.',
    "surrogate": "stands in for the derivative of the spike; see :mod:`stdano_kernels.surrogate`.",
    "alpha": "the surrogate's sharpness.",
    "spike": '``"soft"`` emits the surrogate\'s primitive, which makes the whole function differentiable.',
}
_CONSTANTS = """
    Each constant is a number or a tensor, which may require grad: of shape ``[]``, ``[C]`` with C the size of
    dimension 2 of ``x: [T, B, C, ...]``, or one a neuron (``x.shape[1:]`` or what broadcasts to it).
"""


_functions: dict[type[Neuron], Function[Any]] = {}


def function(neuron: type[Neuron], name: str | None = None) -> Function[Any]:
    """A declared neuron as a function of ``x [T, ...]`` with its constants and options as keyword arguments; the same
    function each time.

    Args:
        neuron: a subclass of :class:`stdano_kernels.Neuron`.
        name: the function's; by default the declaration's.

    Raises:
        DeclarationError: the declaration cannot become a kernel; file, line and what is allowed are named.
    """
    if not isinstance(neuron, type) or not issubclass(neuron, Neuron) or neuron.step is Neuron.step:
        raise TypeError(f"neuron must be a subclass of stdano_kernels.Neuron with a step, got {neuron!r}")
    if neuron in _functions:
        return _functions[neuron]
    spec = spec_of(neuron, name)

    def run(
        x: Tensor,
        *,
        affine: Tensor | None = None,
        state: tuple[Tensor, ...] | None = None,
        return_state: bool = False,
        return_v_seq: bool = False,
        return_sequences: Sequence[str] = (),
        backend: str = "auto",
        **settings: Any,
    ) -> Any:
        return _run(spec, x, settings, affine, state, return_state, return_v_seq, return_sequences, backend)

    run.__name__ = run.__qualname__ = name or neuron.__name__
    run.__module__ = neuron.__module__
    run.__doc__ = _docstring(spec)
    run.__signature__ = spec.signature()  # type: ignore[attr-defined]
    run.neuron = neuron  # type: ignore[attr-defined]
    _functions[neuron] = run  # type: ignore[assignment]
    return _functions[neuron]


def _docstring(spec: Spec) -> str:
    lines = []
    for argument in spec.defaults:
        declared = spec.neuron.constants.get(argument) or spec.neuron.options.get(argument)
        text = _OF_ALL.get(argument) or (declared.doc if declared else "")
        lines.append(f"        {argument}: {text}")
    return _DOC.format(
        doc=textwrap.indent(cleaned(spec.neuron.__doc__ or spec.neuron.__name__), "    ").strip(),
        constants=_CONSTANTS if spec.constants else "",
        arguments="\n".join(lines),
        states=", ".join(spec.neuron.states),
    )


def _run(
    spec: Spec,
    x: Tensor,
    settings: dict[str, Any],
    affine: Tensor | Norm | None,
    state: tuple[Tensor, ...] | None,
    return_state: bool,
    return_v_seq: bool,
    return_sequences: Sequence[str],
    backend: str,
) -> Any:
    check_input(x)
    settled, constants = settle(spec, settings, x)
    if affine is not None and not isinstance(affine, Norm):
        affine = check_affine(affine, x)
    states = () if state is None else check_state(spec.state_type.__name__, spec.state_type._fields, state, x)
    flag("return_state", return_state)
    flag("return_v_seq", return_v_seq)
    wanted = _sequences(spec, return_v_seq, return_sequences)
    choice("backend", backend, ("auto", *NAMES))
    spikes, final, values = run_settled(
        settled, select(backend, x), x, states, constants, affine, return_state, wanted, backend != "auto"
    )
    if not torch.compiler.is_compiling():
        packed.mark(spikes, settled.neuron, settled.variant)
    if not (return_state or wanted):
        return spikes
    out: list[Any] = [spikes]
    if return_state:
        out.append(spec.state_type(*final))
    if return_v_seq:
        out.append(values[0])
    if return_sequences:
        out.append(tuple(values[1 if return_v_seq else 0 :]))
    return tuple(out)


_PLAIN = {bool, int, float, str, type(None)}
_MOST_KNOWN = 1000


def settle(spec: Spec, given: dict[str, Any], x: Tensor) -> tuple[Settled, list[float | Tensor]]:
    """Settings and constants, checked. What has been checked once, in the same types, is not checked again."""
    if torch.compiler.is_compiling():
        return _checked(spec, given, x)
    types = tuple(map(type, given.values()))
    if not _PLAIN.issuperset(types):
        return _checked(spec, given, x)
    key = (types, tuple(given.items()))
    if key not in spec.known:
        if len(spec.known) >= _MOST_KNOWN:  # a setting that is another number in each step
            spec.known.clear()
        spec.known[key] = _checked(spec, given, x)
    return spec.known[key]


def _checked(spec: Spec, given: dict[str, Any], x: Tensor) -> tuple[Settled, list[float | Tensor]]:
    settings = spec.settings(given)
    settled = spec.settle(settings)
    return settled, _constants(spec, settled, settings, x)


def _constants(spec: Spec, settled: Settled, settings: dict[str, Any], x: Tensor) -> list[float | Tensor]:
    """The constants that the step uses with these settings, in its order; all are checked."""
    out: list[float | Tensor] = []
    used = used_constants(settled.neuron, settled.variant.plain)
    for name in spec.constants:
        value = settings[name]
        if value is None and spec.neuron.constants[name].or_none:
            continue
        above = spec.above(name, settings)
        value = check_constant(name, value, x, above, or_inf=above is not None and name in spec.time_constants)
        if name in used:
            out.append(value if isinstance(value, Tensor) else spec.limited(name, value, settings))
    return out


@constant_when_traced
def used_constants(neuron: type[Neuron], plain: tuple[Any, ...]) -> tuple[str, ...]:
    """Names of the constants that a kernel takes; ``plain``: of a variant."""
    return tuple(traced(neuron, Variant(*plain)).constants)


def _sequences(spec: Spec, return_v_seq: bool, names: Sequence[str]) -> list[int]:
    """The numbers of the states whose values after every step are wanted."""
    if not return_v_seq and names == ():
        return []
    fields = spec.state_type._fields
    if isinstance(names, str) or not isinstance(names, Sequence) or any(name not in fields for name in names):
        raise ValueError(f"return_sequences must be a sequence of names from {', '.join(fields)}, got {names!r}")
    if return_v_seq and "v" not in fields:
        raise ValueError(f"return_v_seq must be False for a neuron without a state v; it has {', '.join(fields)}")
    return [fields.index(name) for name in ((*(["v"] if return_v_seq else []), *names))]


# Steps as Python, by the names that printed_reference gives. A module, because torch.compile looks into those anew each
# time, and finds functions in them that it can guard.
_printed = ModuleType("stdano_kernels.printed")
_names: dict[tuple[Any, ...], str] = {}


@constant_when_traced
def printed_reference(neuron: type[Neuron], plain: tuple[Any, ...]) -> str:
    """The name in ``_printed`` of a step as Python, made once; ``plain``: of a variant."""
    key = (neuron, plain)
    if key not in _names:
        name = f"{neuron.__name__}{len(_names)}"
        setattr(_printed, name, reference.Printed(traced(neuron, Variant(*plain))))
        _names[key] = name
    return _names[key]


@constant_when_traced
def kernel_for(neuron: type[Neuron], plain: tuple[Any, ...], backend: str, is_double: bool) -> tuple[str, str | None]:
    """The name of a compiled kernel, and why there is none; ``plain``: of a variant."""
    variant = Variant(*plain)
    name = compiler.name_of(neuron, variant)  # type: ignore[arg-type]
    KERNELS[name] = neuron, variant
    if backend == "cpu":
        return name, compiler.ensure(neuron, variant, is_double)
    return name, compiler.not_on_device(name, is_double) if backend == "cuda" else None


def _known_kernel(member: Settled, backend: str, is_double: bool) -> tuple[str, str | None]:
    key = (member.neuron, member.variant.plain, backend, is_double)
    if torch.compiler.is_compiling():
        return kernel_for(*key)
    if key not in compiler.ready:
        compiler.ready[key] = kernel_for(*key)
    return compiler.ready[key]


def kernels_for(
    members: Sequence[Settled], backend: str, explicit: bool, x: Tensor
) -> tuple[str, list[str], str | None]:
    """The backend that runs neurons, the names of their kernels, and why there are none: where CUDA has none, and was
    not asked for, that is Triton."""
    names = []
    for member in members:
        name, missing = _known_kernel(member, backend, x.dtype == torch.float64)
        if missing is not None:
            if backend == "cuda" and not explicit and serves("triton", x):
                return kernels_for(members, "triton", explicit, x)
            return backend, [], missing
        names.append(name)
    return backend, names, None


def run_settled(
    settled: Settled,
    backend: str,
    x: Tensor,
    states: tuple[Tensor, ...],
    constants: list[float | Tensor],
    affine: Tensor | Norm | None,
    return_state: bool,
    sequences: list[int],
    explicit: bool,
    step: Tensor | None = None,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """Runs a neuron whose arguments have been checked; ``explicit``: no other backend may stand in. ``step``: see
    constant.step_of, where it is known already."""
    if backend != "reference":
        backend, kernels, missing = kernels_for([settled], backend, explicit, x)
        step = constant.step_of(x) if step is None else step
        if isinstance(affine, Norm) and not (missing is None and affine.is_joint(x, *states, *constants)):
            x, step, table, moments = normalise.apart(affine, x, step)
            out = run_settled(settled, backend, x, states, constants, table, return_state, sequences, explicit, step)
            if moments is not None:  # last, so that a call that fails changes nothing
                update_running(*affine.statistics[:2], moments, affine.statistics.momentum)
            return out
        if missing is None:
            namespace = registration.NAMESPACES[backend]
            own = (constants, settled.alpha, return_state, sequences)
            if isinstance(affine, Norm):
                return normalise.joint(affine, namespace, kernels[0], x, states, *own, step)
            return registration.call(namespace, kernels[0], x, states, affine, *own, step)
        if explicit:
            raise RuntimeError(f'backend="{backend}" is not available for {settled.neuron.__name__}: {missing}')
        warn_uncompiled(f"{settled.neuron.__name__} on {x.device.type}", missing)
    assert not isinstance(affine, Norm)
    printed = getattr(_printed, printed_reference(settled.neuron, settled.variant.plain))
    spikes, final, values = reference.neuron(printed, x, states, constants, affine, settled.alpha)
    return spikes, final, [values[j] for j in sequences]


@constant_when_traced
def warn_uncompiled(name: str, reason: str) -> None:
    """Says once why a neuron runs slowly."""
    from .backends import warn_once

    warn_once(name, reason)


FUNCTIONS: dict[str, Callable[..., Any]] = {name: function(neuron, name) for name, neuron in NEURONS.items()}
for _name, _neuron in NEURONS.items():
    _state = spec_of(_neuron).state_type
    _state.__module__, _state.__qualname__ = __name__, _state.__name__
    globals()[_state.__name__] = _state
    torch.serialization.add_safe_globals([_state])  # for torch.load(weights_only=True)
if TYPE_CHECKING:
    lif: LIFFunction
    llif: LLIFFunction
    slif: SLIFFunction
else:
    lif, llif, slif = (FUNCTIONS[name] for name in ("lif", "llif", "slif"))
    LIFState, LLIFState, SLIFState = (globals()[f"{name}State"] for name in ("LIF", "LLIF", "SLIF"))

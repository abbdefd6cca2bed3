"""The arguments of a declared neuron: their names, defaults, checks, and what a kernel is told of them."""

from __future__ import annotations

import inspect
import textwrap
import threading
from collections import namedtuple
from dataclasses import dataclass
from functools import cache
from typing import Any

from .define.graph import in_order
from .define.neuron import Neuron
from .define.plan import Plan, plan
from .define.surrogates import SHAPES
from .define.trace import Step, Variant, trace
from .neurons import LIF, LLIF, SLIF
from .settings import LARGEST, SMALLEST, choice, flag, number, python_value

# Options whose arguments have another name.
_ARGUMENTS = {"decay_mode": "decay"}
OF_THE_PAPER = (LIF, LLIF, SLIF)
_lock = threading.RLock()  # tracing has one graph at a time

# What the names mean by which operators know neurons, of all that were asked for.
KERNELS: dict[str, tuple[type[Neuron], Variant]] = {}


@dataclass(frozen=True)
class Settled:
    """A neuron with all that is settled before it is compiled.

    Args:
        neuron: the declaration.
        variant: its settings.
        alpha: of the surrogate.
    """

    neuron: type[Neuron]
    variant: Variant
    alpha: float


def cleaned(doc: str) -> str:
    """A docstring without the indentation of its source, but with that of equations behind its first line, which
    formatters take away."""
    head, colons, rest = inspect.cleandoc(doc).partition("::\n\n")
    return head + colons + (rest if rest.startswith(" ") else textwrap.indent(rest, "    "))


@cache
def _traced(neuron: type[Neuron], variant: Variant) -> Step:
    return trace(neuron, variant)


def traced(neuron: type[Neuron], variant: Variant) -> Step:
    """The graph of a declaration's step, made once."""
    with _lock:
        return _traced(neuron, variant)  # type: ignore[arg-type]


@cache
def most_spikes(neuron: type[Neuron], variant: Variant) -> int | None:
    """How many spikes a step may give at once; None where spikes are soft, or no whole numbers."""
    spike = traced(neuron, variant).spike
    if spike.op not in ("spike", "levels"):
        return None
    return sum(a.op == "spike" for a in in_order([spike]))


@cache
def _planned(neuron: type[Neuron], variant: Variant) -> Plan:
    # Traced anew: the adjoint finds the nodes of the graph that was made last, and takes them instead of equal ones.
    return plan(trace(neuron, variant))


def planned(neuron: type[Neuron], variant: Variant) -> Plan:
    """A step and its adjoint, made once."""
    with _lock:
        return _planned(neuron, variant)  # type: ignore[arg-type]


class Spec:
    """What a declared neuron's function and module take.

    Args:
        neuron: the declaration.
        name: the function's.
    """

    neuron: type[Neuron]
    name: str
    time_constants: frozenset[str]

    def __init__(self, neuron: type[Neuron], name: str) -> None:
        self.neuron, self.name = neuron, name
        used = self._used()
        self.constants: tuple[str, ...] = tuple(c for c in neuron.constants if c in used)
        self.options: tuple[str, ...] = tuple(o for o in neuron.options if o in used)
        self.has_surrogate: bool = "surrogate" in used
        state = namedtuple(f"{neuron.__name__}State", list(neuron.states))  # type: ignore[misc]
        state.__doc__ = f"State of :func:`{name}` between two calls, each of shape ``x.shape[1:]``."
        # Where pickle finds it: the declaration's own attribute.
        state.__module__, state.__qualname__ = neuron.__module__, f"{neuron.__qualname__}.state_type"
        neuron.state_type = state  # type: ignore[attr-defined]
        self.state_type = state
        self.defaults: dict[str, Any] = {}
        own = [c for c in self.constants if c not in vars(Neuron)]
        for argument in ("tau", "v_threshold", "v_reset"):
            if argument in self.constants:
                self.defaults[argument] = neuron.constants[argument].default
        for option in ("decay_mode", "decay_input"):
            if option in self.options:
                self.defaults[_ARGUMENTS.get(option, option)] = neuron.options[option].default
        if self.has_surrogate:
            self.defaults |= {"surrogate": "triangle", "alpha": 1.0}
        if "detach_reset" in self.options:
            self.defaults["detach_reset"] = neuron.options["detach_reset"].default
        self.defaults["spike"] = "hard"
        self.defaults |= {c: neuron.constants[c].default for c in own}
        self.defaults |= {o: neuron.options[o].default for o in self.options if o not in vars(Neuron)}
        self.time_constants = frozenset().union(*[traced(neuron, Variant(reset=r)).times for r in ("hard", "soft")])
        # Those that mean what they mean in every neuron, or in one of the paper's.
        self.shared: frozenset[str] = frozenset(
            name for name in self.defaults if any(means_the_same(name, neuron, other) for other in OF_THE_PAPER)
        )
        self.known: dict[tuple[Any, ...], Any] = {}  # of calls without tensors among their settings, see functional.py

    def _used(self) -> set[str]:
        """What the step asks for in any of its options."""
        neuron = self.neuron
        used: set[str] = set()
        variants = [Variant(reset=reset) for reset in ("hard", "soft")]
        for name, option in neuron.options.items():
            variants += [Variant(options=((name, c),)) for c in option.choices if c != option.default]
        for variant in variants:
            used |= traced(neuron, variant).used
        return used

    def settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a call; the first that there is not is named."""
        for name in given:
            if name not in self.defaults:
                raise TypeError(
                    f"{self.name}() got an unexpected keyword argument {name!r}; allowed are {', '.join(self.defaults)}"
                )
        return {**self.defaults, **given}

    def settle(self, settings: dict[str, Any]) -> Settled:
        """Checks what is not a constant and names the argument that is wrong."""
        reset = settings.get("v_reset", 0.0)
        kind = "soft" if reset is None else "zero" if type(reset) in (int, float) and reset == 0 else "hard"
        options = []
        for name in self.options:
            argument, option = _ARGUMENTS.get(name, name), self.neuron.options[name]
            value = python_value(settings[argument])
            if isinstance(option.default, bool):
                value = flag(argument, value)
            else:
                choice(argument, value, option.choices)
            if value != option.default:
                options.append((name, value))
        choice("spike", settings["spike"], ("hard", "soft"))
        surrogate, alpha = "own", 1.0
        if self.has_surrogate:
            surrogate = settings["surrogate"]
            choice("surrogate", surrogate, tuple(SHAPES))
            alpha = number("alpha", settings["alpha"], above=0.0)
        variant = Variant(kind, tuple(options), surrogate, settings["spike"] == "soft")
        return Settled(self.neuron, variant, alpha)

    def above(self, name: str, settings: dict[str, Any]) -> float | None:
        """What a constant is above; a time constant with the linear decay is above 1."""
        above = self.neuron.constants[name].above
        linear = settings.get("decay") == "linear" and name in self.time_constants
        return 1.0 if above == 0 and linear else above

    def limited(self, name: str, value: float, settings: dict[str, Any]) -> float:
        """A number within what no dtype rounds to something else."""
        if name not in self.time_constants or self.neuron.constants[name].above is None:
            return min(max(value, -LARGEST), LARGEST)
        if value == float("inf") and settings.get("decay_input") and name == "tau":
            raise ValueError("tau must be finite with decay_input=True, which divides the input by it, got inf")
        return min(max(value, SMALLEST), LARGEST)

    def signature(self) -> inspect.Signature:
        """Of the function: keyword-only but for x."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        last = {
            "affine": None,
            "state": None,
            "return_state": False,
            "return_v_seq": False,
            "return_sequences": (),
            "backend": "auto",
        }
        parameters = [inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += [inspect.Parameter(k, keyword, default=v) for k, v in {**self.defaults, **last}.items()]
        return inspect.Signature(parameters)


def means_the_same(name: str, one: type[Neuron], other: type[Neuron]) -> bool:
    """Whether a setting of that name, which a neuron has, means in another one what it means there. A constant of one's
    own does if it is declared once for both, an option if it has the same choices."""
    if name in one.constants and name not in vars(Neuron):
        return one.constants[name] is other.constants.get(name)
    if name in one.options:
        return name in other.options and {*one.options[name].choices} == {*other.options[name].choices}
    return True


_specs: dict[type[Neuron], Spec] = {}


def spec_of(neuron: type[Neuron], name: str | None = None) -> Spec:
    """The arguments of a declaration; the same for each call."""
    if neuron in _specs:  # torch.compile traces this, but no lock
        return _specs[neuron]
    with _lock:
        if neuron not in _specs:
            _specs[neuron] = Spec(neuron, name or neuron.__name__)
        return _specs[neuron]


def own_settings(neuron: type[Neuron], given: dict[str, Any]) -> dict[str, Any]:
    """Settings of a neuron in a super neuron, checked: plain values, numbers as floats, in the function's order.

    Raises:
        ValueError, TypeError: one is wrong, or there is none of that name.
    """
    spec = spec_of(neuron)
    allowed = [name for name in spec.defaults if name != "spike"]
    for name in given:
        if name not in allowed:
            raise TypeError(
                f"{neuron.__name__}() got an unexpected argument {name!r}; allowed are {', '.join(allowed)}"
            )
    settings = spec.settings(given)
    spec.settle(settings)
    out: dict[str, Any] = {}
    for name in (name for name in allowed if name in given):
        value, constant = python_value(given[name]), neuron.constants.get(name)
        if name == "alpha" or (constant is not None and not (value is None and constant.or_none)):
            above = 0.0 if constant is None else spec.above(name, settings)
            value = number(name, value, above=above, or_inf=above is not None and name in spec.time_constants)
        out[name] = value
    return out

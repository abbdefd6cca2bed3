"""How a neuron is declared: its states, constants and options, and one time step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from .graph import DeclarationError, Node, fail, make
from .operations import detach, exp, where

# The names of a neuron's function that are not the declaration's to take.
RESERVED = ("x", "state", "affine", "backend", "return_state", "return_v_seq", "return_sequences", "self", "n")


class State:
    """What a neuron carries from step to step.

    Args:
        rest: where a sequence begins: a number, the name of a constant, or None for v_reset (0 with the soft reset).
    """

    def __init__(self, rest: float | str | None = None) -> None:
        self.rest: float | str | None = rest


class _Attribute:
    """Of the class its declaration; of the ``n`` of a step its value, and a note that the step uses it."""

    name: str

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, n: Any, owner: type) -> Any:
        if n is None:
            return self
        n._used.add(self.name)
        return n._values[self.name]


class Constant(_Attribute):
    """What a neuron does not change: a number or a tensor (``[]``, ``[C]`` or one a neuron), learned where it requires
    grad.

    Args:
        default: its value unless the user gives one; None is allowed where ``or_none`` is.
        above: what every value is above.
        doc: what it is, in the user's words.
    """

    default: float | None
    above: float | None
    doc: str
    or_none: bool

    def __init__(
        self, default: float | None, *, above: float | None = None, doc: str = "", or_none: bool = False
    ) -> None:
        self.default, self.above, self.doc, self.or_none = default, above, doc, or_none


class Option(_Attribute):
    """What is settled before a kernel is compiled; a step reads it as a plain value and may branch on it.

    Args:
        default: False or True; or one of several strings, followed by the others.
        doc: what it does.
    """

    default: bool | str
    doc: str

    def __init__(self, default: bool | str, *others: str, doc: str = "") -> None:
        self.default, self.doc = default, doc
        self.choices: tuple[Any, ...] = (default, *others) if isinstance(default, str) else (False, True)


class Neuron:
    """Base of all declarations. A subclass has states (:class:`State`) and constants (:class:`Constant`) as attributes,
    and ``step(n, x, *states)``, which returns the spike and the states' next values in the order of their declaration.

    In a step ``n`` has the constants and options by their names, and:

    ``n.charge(x, v, tau=n.tau)``
        the potential after the charge, ``a*(v - r) + r + c*x``, with a = n.decay(tau), r = v_reset (0 for the soft
        reset) and c = 1 (1/tau with ``decay_input``).
    ``n.reset(h, s, threshold)``
        the potential after the spike s: r, or with the soft reset h less the threshold.
    ``n.decay(tau)``
        what is left after a step: exp(-1/tau), or 1 - 1/tau with ``decay="linear"``.

    A method ``surrogate(n, u)`` that returns a value and a slope stands for the arguments ``surrogate`` and ``alpha``.
    """

    tau: Constant = Constant(
        2.0, above=0.0, doc='time constant in time steps, above 0 (above 1 with ``decay="linear"``)'
    )
    v_threshold: Constant = Constant(1.0, doc="threshold")
    v_reset: Constant = Constant(
        0.0, or_none=True, doc="potential after a spike (hard reset), or None for the soft reset"
    )

    decay_mode: Option = Option("exp", "linear", doc="``exp``: a = exp(-1/tau); ``linear``: a = 1 - 1/tau")
    decay_input: Option = Option(False, doc="the input is multiplied by 1/tau")
    detach_reset: Option = Option(False, doc="no gradient through the spike in the reset")

    #: Read from the class: names of states; declarations of constants and options by name.
    states: ClassVar[dict[str, State]] = {}
    constants: ClassVar[dict[str, Constant]] = {}
    options: ClassVar[dict[str, Option]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.states, cls.constants, cls.options = {}, {}, {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                tables: dict[type, dict[str, Any]] = {State: cls.states, Constant: cls.constants, Option: cls.options}
                for kind, table in tables.items():
                    if isinstance(value, kind):
                        table[name] = value
                    elif name in table:
                        del table[name]
        _check(cls)

    def __init__(self, **settings: Any) -> None:
        """A neuron with settings of its own, ``LIF(tau=4.0)``: one of those that a super neuron chooses from.

        Args:
            settings: numbers and options of the neuron's function. What is not given is as the super neuron has it for
                all of its neurons, and by default the declaration's.

        Raises:
            ValueError, TypeError: one is wrong, or there is none of that name.
        """
        from ..spec import own_settings  # it needs torch, without which declarations are printed

        self._begin({name: c.default for name, c in (type(self).constants | type(self).options).items()})
        self._settings = own_settings(type(self), settings)
        self._values |= self._settings

    @classmethod
    def symbolic(cls, values: dict[str, Any]) -> Neuron:
        """The ``n`` of a step, with constants and options of these values."""
        n = cls.__new__(cls)
        n._begin(values)
        return n

    def _begin(self, values: dict[str, Any]) -> None:
        self._values = values
        self._used: set[str] = set()
        self._decayed: list[Node] = []  # what decay() was asked for

    @property
    def own(self) -> dict[str, Any]:
        """The settings that were given, in the order of the function's arguments."""
        return dict(self._settings)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._settings == self._settings

    def __hash__(self) -> int:
        return hash((type(self), tuple(self._settings.items())))

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"

    def __getattr__(self, name: str) -> Any:
        cls = type(self)
        methods = ("charge", "reset", "decay")
        raise AttributeError(f"n has no {name!r}; it has {', '.join((*cls.constants, *cls.options, *methods))}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            fail(f"a step cannot set n.{name}: what changes from step to step is a State")
        super().__setattr__(name, value)

    def _no_step(self, x: Any, *states: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    #: One time step; a subclass has it as a method, with a parameter for each of its states.
    step: Callable[..., tuple[Any, ...]] = _no_step

    def charge(self, x: Any, v: Any, tau: Any = None) -> Any:
        """The potential after the charge, ``a*(v - r) + r + c*x``, by the settings ``decay``, ``decay_input`` and
        ``v_reset``; ``tau`` in time steps, None: the neuron's."""
        tau = self.tau if tau is None else tau
        rest = 0.0 if self.v_reset is None else self.v_reset
        gain = _reciprocal(tau) if self.decay_input else 1.0
        return self.decay(tau) * (v - rest) + (gain * x + rest)

    def reset(self, h: Any, s: Any, threshold: Any) -> Any:
        """The potential after the spike ``s``: ``v_reset``, or with ``v_reset=None`` (soft) ``h - s*threshold``."""
        s = detach(s) if self.detach_reset else s
        return h - s * threshold if self.v_reset is None else where(s, self.v_reset, h)

    def decay(self, tau: Any) -> Any:
        """What is left after a step: ``exp(-1/tau)``, or with ``decay="linear"`` ``1 - 1/tau``; tau in time steps."""
        if not isinstance(tau, Node):
            return exp(-1 / tau) if self.decay_mode == "exp" else 1 - 1 / tau
        self._decayed.append(tau)
        if self.decay_mode == "exp":
            return make("exp_negative", -_reciprocal(tau))
        smallest = 1.1754943508222875e-38  # not 0, for the sake of an infinite potential
        left = 1.0 - _reciprocal(tau)
        return where(left > smallest, left, smallest)


def _reciprocal(a: Any) -> Any:
    return make("reciprocal", a) if isinstance(a, Node) else 1 / a


def _where_declared(cls: type) -> str:
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):  # declared in an interpreter
        return cls.__qualname__


def _check(cls: type[Neuron]) -> None:
    """What can be said of a class before its step is called."""

    def refuse(message: str) -> None:
        raise DeclarationError(f"{_where_declared(cls)}: {cls.__name__}: {message}")

    if cls.step is Neuron.step:
        return  # a base of declarations
    for name in (*cls.states, *cls.constants, *cls.options):
        taken = name in RESERVED or name in ("alpha", "spike", "levels") or name.startswith("_")
        if taken or (name in vars(Neuron) and not isinstance(vars(Neuron)[name], (Constant, Option))):
            refuse(f"{name!r} is a name that a neuron's function or its step has for something else")
    for name in cls.states:
        if name in cls.constants or name in cls.options:
            refuse(f"{name!r} is the name of a constant as well")
    for name, state in cls.states.items():
        if isinstance(state.rest, str) and state.rest not in cls.constants:
            refuse(
                f"state {name!r} rests at {state.rest!r}, which must be one of the constants {', '.join(cls.constants)}"
            )
    parameters = list(inspect.signature(cls.step).parameters)
    if parameters[2:] != list(cls.states):
        refuse(
            f"step must take (n, x, {', '.join(cls.states)}), the states in the order of their declaration; it takes "
            f"({', '.join(parameters)})"
        )
    if not cls.states:
        refuse("a neuron has at least one State")

"""Neurons by name: ``"LIF"``, ``"LIF(tau=4.0)"``, ``"mypackage.mymodule:MyNeuron(kappa=0.2)"``; and strings that give
each layer of a network its own."""

from __future__ import annotations

import ast
import hashlib
import importlib
import itertools
import math
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from stdano_kernels import Neuron
from stdano_kernels.define.graph import Node, in_order
from stdano_kernels.define.trace import Step, Variant
from stdano_kernels.members import MOST, check_two_levels
from stdano_kernels.spec import traced

from .base import BaseNode
from .neurons import CANDIDATES, NEURONS, LearnedTau, class_of, is_own

DIGITS = {str(digit): name for digit, name in enumerate(CANDIDATES)}  # the paper's configuration strings
DIGIT_OF = {name: digit for digit, name in DIGITS.items()}

_SHIPPED = {cls.neuron: name for name, cls in NEURONS.items()}
_FORM = re.compile(r"\s*(?:(?P<module>[\w.]+):)?(?P<name>[\w.]+)\s*(?P<settings>\(.*\))?\s*", re.DOTALL)
ALLOWED = f"one of {', '.join(NEURONS)} or PACKAGE.MODULE:CLASS, with settings of its own as in LIF(tau=4.0)"


def candidate(neuron: Any, argument: str = "neurons") -> Neuron:
    """A neuron with settings of its own.

    Args:
        neuron: a name as above, a declaration (:class:`stdano_kernels.Neuron`), one with settings (``LIF(tau=4.0)``),
            or the class of its modules.
        argument: its name in errors.

    Raises:
        ValueError, TypeError: it is none of these, cannot be imported, or has no such settings.
    """
    if isinstance(neuron, Neuron):
        return neuron
    return _parsed(neuron, argument) if isinstance(neuron, str) else _declaration(neuron, repr(neuron), argument)()


def check_candidates(argument: str, neurons: Any) -> tuple[Neuron, ...]:
    """The candidates of a super neuron.

    Raises:
        ValueError, TypeError: they are none, more than eight, the same, or have spikes of more than 0 and 1.
    """
    given = list(neurons) if isinstance(neurons, (list, tuple)) else []
    if not 1 <= len(given) <= MOST:
        raise ValueError(f"{argument} must be a list of one to {MOST} neurons, got {neurons!r}")
    candidates = tuple(candidate(neuron, argument) for neuron in given)
    if len(set(candidates)) < len(candidates):
        raise ValueError(f"{argument} must be different ones, got {', '.join(map(name_of, candidates))}")
    for one in candidates:
        check_two_levels(type(one), argument)
    return candidates


def settings_of(neuron: Neuron) -> dict[str, Any]:
    """A neuron's own settings by the names that its module has for them."""
    return {"surrogate_function" if name == "surrogate" else name: value for name, value in neuron.own.items()}


def _declaration(found: Any, text: str, argument: str) -> type[Neuron]:
    if isinstance(found, type) and issubclass(found, BaseNode) and is_own(found) and not issubclass(found, LearnedTau):
        return found.neuron
    if isinstance(found, type) and issubclass(found, Neuron):
        return class_of(found).neuron  # checks it
    raise TypeError(f"{argument} must be {ALLOWED}, or a declared neuron; {text} is {found!r}")


def _parsed(text: str, argument: str) -> Neuron:
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"{argument} must be {ALLOWED}, got {text!r}")
    settings = _settings(form["settings"], text, argument)
    if form["module"] is None:
        if form["name"] not in NEURONS:
            raise ValueError(f"{argument} must be {ALLOWED}, got {text!r}")
        return NEURONS[form["name"]].neuron(**settings)
    try:
        found: Any = importlib.import_module(form["module"])
        for name in form["name"].split("."):
            found = getattr(found, name)
    except Exception as error:  # whatever a module does that is imported
        raise ValueError(f"the neuron {text!r} cannot be imported: {type(error).__name__}: {error}") from error
    return _declaration(found, text, argument)(**settings)


def _settings(text: str | None, whole: str, argument: str) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        names = [keyword.arg for keyword in call.keywords] if isinstance(call, ast.Call) else []
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args or None in names:
            raise ValueError("settings are given by their names")
        if len(set(names)) < len(names):
            raise ValueError("a setting is given twice")
        return {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{argument} must be {ALLOWED}, got {whole!r}: {error}") from error


def _value(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Name) and tree.id == "inf":
        return math.inf
    try:
        return ast.literal_eval(tree)
    except ValueError:
        raise ValueError(f"{ast.unparse(tree)} is no plain value") from None


def name_of(neuron: Neuron) -> str:
    """The name that :func:`candidate` takes: of one's own declaration with its module."""
    kind = type(neuron)
    name = _SHIPPED.get(kind) or f"{kind.__module__}:{kind.__qualname__}"
    return name + (f"({', '.join(f'{key}={value!r}' for key, value in neuron.own.items())})" if neuron.own else "")


def short(name: str) -> str:
    """A name for pictures: without its module, and its settings on a line of their own."""
    head, bracket, settings = name.partition("(")
    return head.rpartition(":")[2] + (f"\n({settings}" if bracket else "")


def names_in(neurons: str) -> list[str]:
    """The names in a network's string: of digits, or between commas."""
    if neurons and not set(neurons) - set(DIGITS):
        return [DIGITS[digit] for digit in neurons]
    names, depth = [""], 0
    for letter in neurons:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            names.append("")
        else:
            names[-1] += letter
    return [name.strip() for name in names]


def joined(names: Iterable[str]) -> str:
    """A network's string of a name a layer: digits where all are the paper's three, else names and commas."""
    names = list(names)
    return "".join(DIGIT_OF[name] for name in names) if set(names) <= set(DIGIT_OF) else ", ".join(names)


def fingerprints(kinds: Iterable[type[Neuron]]) -> dict[str, str]:
    """By the names of one's own declarations among these, what changes where they compute something else."""
    own = [kind for kind in dict.fromkeys(kinds) if kind not in _SHIPPED]
    return {name_of(kind()): _fingerprint(kind) for kind in own}  # type: ignore[arg-type]


def check_fingerprints(known: dict[str, str], where: object) -> None:
    """Raises ValueError for a declaration that is not what it was when a file was written."""
    try:
        now = {name: _fingerprint(type(candidate(name))) for name in known}  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    check_unchanged(known, now, where)


def check_unchanged(before: dict[str, str], now: dict[str, str], where: object) -> None:
    """Raises ValueError where a declaration has another fingerprint now."""
    for name in before:
        if now.get(name, before[name]) != before[name]:
            raise ValueError(
                f"{where}: the neuron {name} has changed since the file was written: the fingerprint of its step, "
                f"defaults and options is {now[name]}, and was {before[name]}; restore it, or train and search anew"
            )


@cache
def _fingerprint(neuron: type[Neuron]) -> str:
    """Of what a declaration computes, in each of its options; not of how its source looks."""
    constants = [(name, c.default, c.above, c.or_none) for name, c in neuron.constants.items()]
    options = [(name, option.choices) for name, option in neuron.options.items()]
    text = [repr((constants, options, [(name, state.rest) for name, state in neuron.states.items()]))]
    variants = []
    for reset, *values in itertools.product(("zero", "hard", "soft"), *(choices for _, choices in options)):
        given = zip(neuron.options.items(), values, strict=True)
        own = tuple((name, value) for (name, option), value in given if value != option.default)
        variants.append(Variant(reset, own))
    text += [_text(traced(neuron, variant)) for variant in variants]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def _text(step: Step) -> str:
    """A step's graph, a line a node."""
    roots: list[Node] = [*step.makers, *step.outputs]
    nodes = list(in_order(roots))
    number = {id(node): k for k, node in enumerate(nodes)}
    lines = [f"{node.op} {node.value!r} {[number[id(a)] for a in node.args]}" for node in nodes]
    return "\n".join([*lines, repr([number[id(root)] for root in roots])])

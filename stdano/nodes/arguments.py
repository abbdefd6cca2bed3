"""What a neuron's module takes, as its declaration has it: names, order, defaults and documentation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import DeclarationError, Neuron
from stdano_kernels.backends import NAMES
from stdano_kernels.functional import settle
from stdano_kernels.settings import choice, flag, python_value
from stdano_kernels.spec import Spec, cleaned, spec_of

from .surrogates import resolve_surrogate

# Settings of all neurons: SpikingJelly's in its order, and among them those that it does not have, by keyword alone.
_SHARED = (
    "tau",
    "decay_input",
    "v_threshold",
    "v_reset",
    "surrogate_function",
    "alpha",
    "detach_reset",
    "decay",
    "spike",
)
_KEYWORDS = ("decay", "alpha", "spike")
_OF_MODULES = {"step_mode": "m", "backend": "auto", "store_v_seq": False}
_DOCS = {
    "surrogate_function": "a name from ``stdano_kernels.SURROGATES`` or a SpikingJelly surrogate object.",
    "step_mode": '``"m"``: forward takes ``[T, B, ...]`` at once; ``"s"``: one step ``[B, ...]``.',
    "backend": "see :func:`stdano_kernels.backends`.",
    "store_v_seq": "keep the potentials after the reset of every step in ``v_seq``, ``[T, B, ...]``.",
    "alpha": "sharpness of a surrogate given by name; default 1.",
    "spike": '``"soft"`` emits the surrogate\'s primitive instead of 0 and 1.',
}


class Arguments:
    """The arguments of a declaration's module.

    Attributes:
        neuron, spec: the declaration, and what follows from it.
        constants: the names of those that may be tensors.
        settings: what the neuron's function takes of a module: names there, and as attributes of the module.
        defaults: all arguments, those that are positional first.
        signature: of the constructor.

    Raises:
        DeclarationError: a name of the declaration is one that every module has for something else.
    """

    neuron: type[Neuron]
    spec: Spec
    defaults: dict[str, Any]

    def __init__(self, neuron: type[Neuron], base: type[nn.Module]) -> None:
        self.neuron, self.spec = neuron, spec_of(neuron)
        spec = self.spec
        self.constants: frozenset[str] = frozenset(spec.constants)
        given = {"surrogate_function" if name == "surrogate" else name: v for name, v in spec.defaults.items()}
        if "alpha" in given:
            given["alpha"] = None  # a surrogate object brings its own
        own = [name for name in given if name not in _SHARED]
        for name in (*neuron.states, *own):
            if hasattr(base, name) or name in _OF_MODULES or name == "training":
                raise DeclarationError(f"{neuron.__name__}: {name!r} is a name that its module has for something else")
        shown = [name for name in _SHARED if name in given] + own
        self.settings: tuple[tuple[str, str], ...] = tuple(
            ("surrogate" if name == "surrogate_function" else name, name) for name in shown
        )
        of_modules = {k: v for k, v in _OF_MODULES.items() if k != "store_v_seq" or "v" in neuron.states}
        positional = {name: given[name] for name in shown if name in _SHARED and name not in _KEYWORDS} | of_modules
        keywords = {name: given[name] for name in (*_KEYWORDS, *own) if name in given}
        self.defaults = positional | keywords
        kind = inspect.Parameter
        self.signature: inspect.Signature = inspect.Signature(
            [
                kind("self", kind.POSITIONAL_OR_KEYWORD),
                *(kind(name, kind.POSITIONAL_OR_KEYWORD, default=value) for name, value in positional.items()),
                *(kind(name, kind.KEYWORD_ONLY, default=value) for name, value in keywords.items()),
            ]
        )

    def bind(self, module: nn.Module, arguments: tuple[Any, ...], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument's value in a call of the constructor, as a module keeps it.

        Raises:
            TypeError, ValueError: one that there is not, or too many; a wrong one of those that no kernel sees.
        """
        try:
            bound = self.signature.bind(module, *arguments, **settings)
        except TypeError as error:
            raise TypeError(
                f"{type(module).__name__}() {error}; its arguments are {', '.join(self.defaults)}"
            ) from None
        given = {**self.defaults, **{name: python_value(value) for name, value in bound.arguments.items()}}
        del given["self"]
        if "alpha" in given:
            resolved = resolve_surrogate(given["surrogate_function"], given["alpha"])
            given["surrogate_function"], given["alpha"] = resolved
        if "store_v_seq" in given:
            flag("store_v_seq", given["store_v_seq"])
        choice("backend", given["backend"], ("auto", *NAMES))
        return given

    def check(self, settings: Mapping[str, Any]) -> None:
        """The checks of the neuron's function, of each tensor by itself: their shapes are an input's to fit."""
        tensors = {k: v for k, v in settings.items() if isinstance(v, Tensor) and k in self.constants}
        others = {k: v for k, v in settings.items() if k not in tensors}
        settle(self.spec, others, torch.empty(0, 1))
        for name, value in tensors.items():
            settle(self.spec, others | {name: value.flatten()}, torch.empty(0, 0, value.numel(), device=value.device))

    def documentation(self, notes: str | None) -> str:
        """The docstring of a module: the declaration's equations, notes of its own, and every argument."""
        about = [cleaned(text) for text in (self.neuron.__doc__, notes) if text]
        lines = [f"    {name}: {self._about(name)}" for name in self.defaults]
        constants = ", ".join(f"``{name}``" for name in self.defaults if name in self.constants)
        tail = (
            f"{constants}: each a number or a tensor of shape ``[]``, ``[C]`` or one a neuron; an ``nn.Parameter`` is "
            "learned. See :class:`stdano.BaseNode` for what all neurons have."
        )
        return "\n\n".join([*about, "\n".join(["Args:", *lines]), tail])

    def _about(self, name: str) -> str:
        option = "decay_mode" if name == "decay" else name
        declared = self.neuron.constants.get(name) or self.neuron.options.get(option)
        text = _DOCS.get(name) or (declared.doc if declared else "")
        default = self.defaults[name]
        return text if name == "alpha" else f"{text.rstrip('.')}; default {default!r}."


def declare(cls: Any, base: type[nn.Module]) -> None:
    """Gives a class of modules what follows from its declaration: constructor, documentation, properties of states."""
    cls._arguments = Arguments(cls.neuron, base)
    cls.__doc__ = cls._arguments.documentation(vars(cls).get("__doc__"))
    if "__init__" not in vars(cls):

        def __init__(self: Any, *arguments: Any, **settings: Any) -> None:
            super(cls, self).__init__(*arguments, **settings)

        __init__.__signature__ = cls._arguments.signature  # type: ignore[attr-defined]
        __init__.__qualname__ = f"{cls.__qualname__}.__init__"
        cls.__init__ = __init__
    for name in cls.neuron.states:
        if name not in vars(cls):
            setattr(cls, name, _state(name))


def _state(name: str) -> property:
    def get(self: Any) -> Any:
        return self._value_of(name)

    about = f"State ``{name}`` after the last step, ``[B, ...]``; before the first where it rests."
    return property(get, (lambda self, value: self._start_at(value)) if name == "v" else None, doc=about)

"""What the pages of the API know beyond the sources: the docstrings and arguments of neurons, which are made of their
declarations when the library is imported; and that ``:func:`stdano.fuse``` is a link."""

import inspect
import re
from typing import Any

import griffe

import stdano
import stdano_kernels

PACKAGES = {module.__name__: module for module in (stdano, stdano_kernels)}
# Constants are numbers or tensors, as docstrings say once; those of the base class have no signature.
QUIET: Any = {"warn_missing_types": False, "warn_unknown_params": False}
NEURONS = (stdano_kernels.lif, stdano_kernels.llif, stdano_kernels.slif)
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")


class FromRuntime(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called for each package when all of it is loaded."""
        for name in PACKAGES[pkg.path].__all__:
            made = getattr(PACKAGES[pkg.path], name)
            if name.endswith("Node"):
                found = pkg[made.__module__.removeprefix("stdano.")][name]
                found.set_member("__init__", griffe.Function("__init__", parameters=_parameters(made.__init__)))
            elif made in NEURONS:
                pkg.set_member(name, found := griffe.Function(name, parameters=_parameters(made), parent=pkg))
            else:
                continue
            found.docstring = griffe.Docstring(
                inspect.getdoc(made), parent=found, parser="google", parser_options=QUIET
            )

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object when all of its package is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_link, obj.docstring.value).replace("::\n\n", ":\n\n")


def _parameters(made: Any) -> griffe.Parameters:
    given = inspect.signature(made).parameters.values()
    return griffe.Parameters(
        *(
            griffe.Parameter(
                one.name,
                kind=griffe.ParameterKind(one.kind.description),
                default=None if one.default is one.empty else repr(one.default),
            )
            for one in given
        )
    )


def _link(found: re.Match[str]) -> str:
    package, _, name = found[1].rpartition(".")
    for where, module in PACKAGES.items():
        if name in module.__all__ and package in ("", where):
            return f"[`{name}`][{where}.{name}]"
    return f"`{found[1]}`"

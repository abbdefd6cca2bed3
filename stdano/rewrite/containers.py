"""Modules that a model holds where torch does not look: in attributes that are plain lists, tuples, sets or dicts."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .dataflow import contents

_TORCHS_OWN = set(vars(nn.Module()))  # _modules among them


def held_aside(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each such attribute, in words, and a module in it, or in a module in it that the model does not know either."""
    known = set(model.modules())
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in _TORCHS_OWN:
                continue
            for container, held in contents(value):
                kind = "an attribute" if container is None else f"a {type(container).__name__}"
                where = f"{name}{'.' if name else ''}{attribute}, {kind} that torch does not know of"
                if isinstance(held, nn.Module):
                    yield from ((where, part) for part in ([held] if held in known else held.modules()))

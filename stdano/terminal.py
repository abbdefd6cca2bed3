"""What is printed: paths as they are, and commands that can be copied."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(quiet: bool = False) -> Console:
    """A console that prints text as it is. By default rich reads ``[...]`` as markup and ``:name:`` as an emoji, and
    both occur in paths."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, quiet=quiet)


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as a word of a command for a shell."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)

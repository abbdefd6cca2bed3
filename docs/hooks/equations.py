"""Equations as MathML, which browsers draw by themselves: no script, nothing that is fetched."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What the extension arithmatex leaves behind, in a line and as a block.
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called for each page by mkdocs."""
    return _EQUATION.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    equation = html.unescape(found[2])
    if found[1] == "div":
        return f'<div class="equation">{convert(equation, display="block")}</div>'
    return convert(equation)

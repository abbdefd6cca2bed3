"""Writes a report: one HTML file that needs nothing else, and its pictures and tables as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..files import write_atomically, write_csv
from ..pictures.style import WIDTH, element, save
from .content import Code, Picture, Section, Table, Value

PAGE, FOLDER = "report.html", "report"


def write(folder: Path, title: str, about: str, sections: Sequence[Section]) -> Path:
    """Writes ``report.html``, and in the folder ``report`` every picture as PNG and SVG and every table as CSV.

    Args:
        folder: where they go; made where it is not there. Files of an earlier report are replaced.
        title: heading of the page.
        about: a line under it.
        sections: what it holds; names of pictures and tables differ.

    Returns:
        The path of the page.

    Raises:
        ModuleNotFoundError: jinja2 or matplotlib is not installed (the extra ``app``).
        OSError: the folder cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    own = files(__package__)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.tests.update({kind.__name__.lower(): _is(kind) for kind in (Code, Picture, Table, Value)})
    environment.filters["number"] = lambda cell: cell.number if isinstance(cell, Value) else cell
    template = environment.from_string((own / "page.html").read_text("utf-8"))
    beside = folder / FOLDER
    beside.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    for item in (item for section in sections for item in section.items):
        if isinstance(item, Picture):
            save(item.figure, beside / f"{item.name}.png")
            drawn = save(item.figure, beside / f"{item.name}.svg")
            pictures[item.name] = _described(element(drawn, re.sub(r"\W", "", item.name)), item)
        elif isinstance(item, Table):
            write_csv(beside / f"{item.name}.csv", item.columns, item.numbers)
    html = template.render(
        title=title,
        about=about,
        sections=sections,
        pictures=pictures,
        files=FOLDER,
        style=(own / "page.css").read_text("utf-8"),
        script=(own / "page.js").read_text("utf-8"),
    )
    write_atomically(folder / PAGE, lambda file: file.write(html.encode()))
    return folder / PAGE


def _is(kind: type) -> Any:
    return lambda item: isinstance(item, kind)


def _described(picture: str, item: Picture) -> str:
    """With what a screen reader says of it, and as wide as it is drawn. One that hardly fits a phone shrinks there, and
    the page scrolls a wider one."""
    width = float(re.search(r'width="([\d.]+)pt"', picture)[1])  # type: ignore[index]
    picture = re.sub(
        r' width="[\d.]+pt" height="[\d.]+pt"', f' style="width:{width / 72 * 96:.0f}px"', picture, count=1
    )
    kind = ' class="narrow"' if width <= 72 * WIDTH else ""
    return picture.replace("<svg", f'<svg{kind} role="img" aria-label="{escape(item.alt)}"', 1)

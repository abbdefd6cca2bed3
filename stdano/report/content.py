"""What a report is made of: sections of text, tables and pictures, before they become HTML and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Value:
    """A cell of a table: what a reader sees, and the number by which rows are sorted and which a CSV file has."""

    text: str
    number: float


def value(number: float, digits: int = 4, unit: str = "") -> Value:
    """A number with so many significant digits."""
    return Value(f"{number:,.{digits}g}{unit}" if abs(number) < 10**digits else f"{number:,.0f}{unit}", number)


def per_cent(share: float, digits: int = 2) -> Value:
    return Value(f"{share:.{digits}%}".replace("%", " %"), share)


@dataclass(frozen=True)
class Table:
    """Rows under named columns; cells are text, whole numbers or a :class:`Value`. ``name``: of its CSV file."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def numbers(self) -> list[list[Any]]:
        """The rows as a CSV file has them."""
        return [[cell.number if isinstance(cell, Value) else cell for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Picture:
    """A figure; ``name``: of its files; ``alt``: what someone learns who cannot see it."""

    name: str
    caption: str
    alt: str
    figure: Figure


@dataclass(frozen=True)
class Code:
    """Commands, to be copied."""

    text: str


@dataclass(frozen=True)
class Section:
    """A part of a report, with a heading; ``text``: paragraphs in front of what it holds."""

    title: str
    text: Sequence[str] = ()
    items: Sequence[Table | Picture | Code] = field(default=())

    @property
    def anchor(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

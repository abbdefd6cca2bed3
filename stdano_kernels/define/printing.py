"""What the printers to C++ and to Triton have in common: graphs as statements, one an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from .graph import CONDITIONS, Node, in_order

# What concerns the adjoint alone; the value is that of the first operand.
PASSED_ON = ("detach", "fired", "levels", "soft")

# How an operation is written, from its operands.
Syntax = Mapping[str, Callable[..., str]]


class Statements:
    """Prints graphs as assignments to new names.

    Args:
        syntax: how each operation is written.
        declare: from (is a condition, name, expression) to a line.
        number: how a literal is written.
        operands: how many of an operation's operands are printed, where that is not all.
    """

    def __init__(
        self,
        syntax: Syntax,
        declare: Callable[[bool, str, str], str],
        number: Callable[[float], str],
        operands: Mapping[str, int] = {},
    ) -> None:
        self.syntax, self.declare, self.number, self.operands = syntax, declare, number, operands
        self.lines: list[str] = []
        self._count = 0

    def add(self, roots: Sequence[Node], names: dict[int, str]) -> list[str]:
        """Prints what the roots need and ``names`` has not; new names are added to it. The roots' names."""
        for a in in_order(roots, self._operands, names):
            if a.op == "literal":
                names[id(a)] = self.number(a.value)
            elif a.op == "input":
                names[id(a)] = {"alpha": "alpha"}[a.value]  # the one that callers do not name
            elif a.op in self.syntax:
                operands = [names[id(b)] for b in self._operands(a)]
                self._count += 1
                name = f"v{self._count}"
                self.lines.append(self.declare(a.op in CONDITIONS, name, self.syntax[a.op](*operands)))
                names[id(a)] = name
            else:
                assert a.op in PASSED_ON, a.op
                names[id(a)] = names[id(a.args[0])]
        return [names[id(r)] for r in roots]

    def _operands(self, a: Node) -> tuple[Node, ...]:
        """Of a spike u alone, of a soft one its value, where the adjoint has the slope in nodes of its own."""
        return a.args[: self.operands.get(a.op)]


def depends(order: Sequence[Node], inputs: Iterable[Node]) -> set[int]:
    """The nodes of an order that depend on some inputs."""
    out = {id(a) for a in inputs}
    for a in order:
        if any(id(b) in out for b in a.args):
            out.add(id(a))
    return out

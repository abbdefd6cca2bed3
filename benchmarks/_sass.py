"""Machine code of NVIDIA GPUs: what ptxas has made of each kernel, and which of its instructions a call runs.

Needs cuobjdump, which Triton brings along.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
Arguments = Callable[[int], "int | None"]
Bits = tuple[int, int]  # which bits of a register are known, and those
_LINE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w) )?\s*([A-Z][A-Z0-9_.]*)\s*([^;]*);")
_COMPARED = {"NE": int.__ne__, "EQ": int.__eq__, "LT": int.__lt__, "LE": int.__le__, "GT": int.__gt__, "GE": int.__ge__}
_MOVES = ("MOV", "IMAD.MOV.U32", "IMAD.U32", "LDC", "LDCU")  # of U registers too
_CONSTANT = re.compile(r"c\[0x0\]\[0x([0-9a-f]+)\]")
_FIXED = {"RZ": 0, "URZ": 0, "SRZ": 0, "PT": 1, "UPT": 1}
_ALL = 0xFFFFFFFF


class Instruction(NamedTuple):
    at: int
    guard: str  # the predicate that it waits for, or nothing
    name: str
    operands: tuple[str, ...]

    @property
    def is_jump(self) -> bool:
        """ptxas writes jumps out of a loop as calls, from which nothing returns."""
        return self.name.split(".")[0] in ("BRA", "CALL", "EXIT") and ".DIV" not in self.name

    @property
    def target(self) -> int | None:
        match = re.search(r"0x([0-9a-f]+)", self.operands[-1]) if self.is_jump else None
        return int(match[1], 16) if match else None

    @property
    def bits(self) -> int:
        match = re.search(r"\.[US]?(128|64|16|8)\b", self.name)
        return int(match[1]) if match else 32


class Usage(NamedTuple):
    registers: int
    local: int  # bytes of stack and local memory a thread; 0: nothing is spilled
    shared: int


def tool(name: str, *arguments: str | Path) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def read(
    path: Path, *options: str, wanted: str = "", instructions: bool = True
) -> Iterator[tuple[str, Usage, list[Instruction]]]:
    """(mangled name, usage, code) of the kernels in a cubin, or with ``-arch`` in a shared object, in whose names the
    expression ``wanted`` is found; without ``instructions``, which take long, the code is empty."""
    usage: dict[str, Usage] = {}
    function = ""
    for line in tool("cuobjdump", "-res-usage", *options, path).splitlines():
        if match := re.search(r"Function (\S+):", line):
            function = match[1]
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            usage[function] = Usage(registers, stack + local, shared)
    usage = {name: of for name, of in usage.items() if re.search(wanted, name)}
    if not instructions:
        yield from ((name, of, []) for name, of in usage.items())
        return
    only = ("-fun", ",".join(usage)) if len(usage) < 6 else ()  # for more of them it takes longer than without
    for text in tool("cuobjdump", "-sass", *options, *only, path).split("Function : ")[1:]:
        function, _, lines = text.partition("\n")
        if function not in usage:
            continue
        found = (_LINE.match(line) for line in lines.splitlines())
        code = [
            Instruction(int(m[1], 16), m[2] or "", m[3], tuple(m[4].strip().split(", ")))
            for m in found
            if m and m[3] != "NOP"
        ]
        yield function, usage[function], code


class Ways:
    """Which instructions of a kernel run, for given arguments.

    Branches that depend on arguments alone are followed as these say. Where others lead two ways, it is the longer one:
    in a warp both may run, and what is asked is a bound. Jumps by a table go on with what stands next. What is known of
    a register are some of its bits: ptxas keeps predicates in them.

    Args:
        first: where the arguments begin.
        arguments: what stands so many bytes behind that, in 32 bits; None where it is not known.
        shorter: of two ways the shorter one, where the other is seldom run.
    """

    def __init__(self, code: list[Instruction], first: int, arguments: Arguments, shorter: bool = False) -> None:
        self.code, self.first, self.arguments = code, first, arguments
        self.pick: Callable = min if shorter else max
        self.index = {instruction.at: i for i, instruction in enumerate(code)}
        self._found: dict[tuple, list[Instruction] | None] = {}

    def whole(self) -> list[Instruction]:
        """From the first instruction to the last, through each loop once."""
        return self._longest(0, {}, None) or []

    def one_pass(self, last: bool = False) -> list[Instruction]:
        """Once through the innermost loop that loads and stores, or only loads where none does both; or through the
        last of these loops, where one runs ahead of it."""
        jumps = [(self.index.get(b.target, len(self.code)), i) for i, b in enumerate(self.code)]
        loops = [(i - begin, begin, {c.name[:3] for c in self.code[begin:i]}) for begin, i in jumps if begin < i]
        for wanted in ({"LDG", "STG"}, {"LDG"}):
            if those := [loop for loop in loops if wanted <= loop[2]]:
                begin = (max(those, key=lambda loop: loop[1]) if last else min(those))[1]
                values: dict[str, Bits] = {}
                for instruction in self.code[:begin]:  # what stands before the loop holds in it
                    self._execute(instruction, values)
                return self._longest(begin, values, begin) or []
        return []

    def _longest(self, i: int, values: dict[str, Bits], goal: int | None) -> list[Instruction] | None:
        """To the instruction number ``goal``, or to the end; None where there is no way."""
        way: list[Instruction] = []
        while i < len(self.code):
            instruction = self.code[i]
            conditions = [o for o in instruction.operands if instruction.is_jump and _is_predicate(o)]
            runs = _all_of(self._value(c, values) for c in (instruction.guard, *conditions) if c)
            way.append(instruction if runs != 0 else instruction._replace(name="OFF"))  # issued all the same
            there = self.index.get(instruction.target)
            if instruction.name == "EXIT" and runs == 1:
                return way if goal is None else None
            if instruction.name.startswith("RET") and runs == 1:  # a subroutine's; calls of it are not followed
                return None
            if there is None:
                self._execute(instruction, values)
            elif runs != 0:
                if there == goal:
                    return way
                if there <= i:  # once more through a loop
                    if runs == 1:
                        return None
                elif runs == 1:
                    i = there
                    continue
                else:
                    ways = [w for w in (self._on_from(k, values, goal) for k in (i + 1, there)) if w is not None]
                    return way + self.pick(ways, key=len) if ways else None
            i += 1
        return None

    def _on_from(self, i: int, values: dict[str, Bits], goal: int | None) -> list[Instruction] | None:
        key = (i, frozenset(values.items()), goal)
        if key not in self._found:
            self._found[key] = self._longest(i, dict(values), goal)
        return self._found[key]

    def _bits(self, operand: str, values: dict[str, Bits]) -> Bits:
        if operand[0] in "!~":
            known, value = self._bits(operand[1:], values)
            return known, ~value & known & (1 if operand[0] == "!" else _ALL)
        operand = re.sub(r"\.(reuse|64)$", "", operand)
        if match := _CONSTANT.fullmatch(operand):
            at = int(match[1], 16) - self.first
            value = self.arguments(at) if at >= 0 else None
            return (0, 0) if value is None else (_ALL, value)
        if operand in _FIXED:
            return _ALL, _FIXED[operand]
        if re.fullmatch(r"0x[0-9a-f]+|\d+", operand):
            return _ALL, int(operand, 0)
        return values.get(operand, (0, 0))

    def _value(self, operand: str, values: dict[str, Bits]) -> int | None:
        known, value = self._bits(operand, values)
        return value if known == _ALL or (_is_predicate(operand) and known & 1) else None

    def _execute(self, instruction: Instruction, values: dict[str, Bits]) -> None:
        """Notes what is known of what an instruction writes."""
        runs = self._value(instruction.guard, values) if instruction.guard else 1
        if runs == 0:
            return
        for register, bits in self._results(instruction.name, instruction.operands, values):
            known, value = bits
            if runs is None:  # then it is also what it was
                before = values.get(register, (0, 0))
                known &= before[0] & ~(value ^ before[1])
            values.pop(register, None)
            if known:
                values[register] = known, value & known

    def _results(self, name: str, operands: tuple[str, ...], values: dict[str, Bits]) -> list[tuple[str, Bits]]:
        match = re.fullmatch(r"(U?[RP])(\d+)", operands[0])
        if name == "R2P":
            known, value = self._bits(operands[1], values)
            return [(f"P{k}", (known >> k & 1, value >> k & 1)) for k in range(7) if int(operands[2], 0) >> k & 1]
        if not match:
            return []
        to, kind = operands[0], name.lstrip("U").split(".")[0]
        if kind == "ISETP":
            return [(to, _predicate(self._compared(name, [self._value(o, values) for o in operands[2:]])))]
        if kind in ("LOP3", "PLOP3"):
            at = 2 if kind == "PLOP3" or _is_predicate(to) else 1
            inputs = [self._bits(o, values) for o in operands[at : at + 3]]
            known, value = _looked_up(int(operands[at + 3], 0), inputs)
            if kind == "LOP3" and _is_predicate(to):
                known, value = _predicate(1 if value else 0 if known == _ALL else None)
            return [(to, (known, value))]
        if kind == "P2R":
            bits = [values.get(f"P{k}", (0, 0)) for k in range(7)]
            mask = int(operands[3], 0)
            known, value = (sum(b[j] << k for k, b in enumerate(bits)) for j in (0, 1))
            below = self._bits(operands[2], values)
            return [(to, (known & mask | below[0] & ~mask, value & mask | below[1] & ~mask))]
        if name.removesuffix(".64").lstrip("U") in _MOVES and operands[-1] not in ("RZ", "URZ"):
            moved = [(to, self._bits(operands[-1], values))]
            if name.endswith(".64") and (constant := _CONSTANT.fullmatch(operands[-1])):
                high = f"c[0x0][0x{int(constant[1], 16) + 4:x}]"
                moved.append((f"{match[1]}{int(match[2]) + 1}", self._bits(high, values)))
            return moved
        # Nothing is known of what else it may write: neighbouring registers, and the predicates that come next.
        pair = re.search(r"\.64|WIDE|CS2R$|^D|2F\.F64", name) is not None
        count = 1 if _is_predicate(to) else 4 if ".128" in name else 2 if pair else 1
        written = [f"{match[1]}{int(match[2]) + k}" for k in range(count)]
        written += itertools.takewhile(_is_predicate, operands[1:])
        return [(register, (0, 0)) for register in written]

    @staticmethod
    def _compared(name: str, of: list[int | None]) -> int | None:
        """Of ISETP.NE.U32.AND.EX P0, PT, a, b, before, lower: whether a != b, joined with ``before``. Where the upper
        words are compared, the lower ones have been."""
        compare, *more = name.split(".")[1:]
        a, b, before = of[:3]
        found = None if a is None or b is None else int(_COMPARED[compare](a, b))
        if "EX" in more and a == b:
            found = of[3]
        if "OR" in more:
            return 1 if 1 in (found, before) else None if None in (found, before) else 0
        return _all_of((found, before))


def _is_predicate(operand: str) -> bool:
    return re.fullmatch(r"!?U?P[T\d]", operand) is not None


def _predicate(value: int | None) -> Bits:
    return (0, 0) if value is None else (1, value)


def _all_of(values: Iterable[int | None]) -> int | None:
    values = list(values)
    return 0 if 0 in values else None if None in values else 1


def _looked_up(table: int, inputs: list[Bits]) -> Bits:
    """What a table of eight entries makes of three inputs, bit by bit: known where all entries that may apply agree."""
    may_be = [0, 0]
    for i in range(8):
        applies = _ALL
        for k, (known, value) in enumerate(inputs):
            applies &= ~known | (value if i >> (2 - k) & 1 else ~value)
        may_be[table >> i & 1] |= applies
    known = may_be[0] ^ may_be[1]
    return known, may_be[1] & known

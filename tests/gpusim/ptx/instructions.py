"""One PTX instruction: opcode, modifiers, operands."""

import re

from .registry import OPS, unsupported
from .types import DTYPE

ONE_TYPE = {
    "add",
    "sub",
    "mul",
    "fma",
    "mad",
    "div",
    "min",
    "max",
    "neg",
    "abs",
    "rcp",
    "sqrt",
    "ex2",
}


class Instruction:
    __slots__ = (
        "args",
        "key",
        "kind",
        "mods",
        "name",
        "negate",
        "op",
        "pred",
        "run",
        "sources",
        "text",
        "type",
    )

    NORMAL, BRANCH, EXIT, BARRIER, WARP_SYNC = range(5)

    def __init__(self, text):
        m = re.match(r"(?:@(!?)([^\s]+)\s+)?([\w.:]+)\s*(.*)", text, re.S)
        self.negate, self.pred = bool(m[1]), m[2]
        op = re.sub(r"::(cta|entry|func)\b", "", m[3])
        self.op = tuple(op.split("."))
        self.name, self.type = self.op[0], self.op[-1]
        self.mods = frozenset(self.op[1:])
        self.args = split_arguments(m[4])
        self.text = " ".join(text.split())
        self.kind = KINDS.get(self.name, self.NORMAL)
        if self.name in ("bar", "barrier") and ("warp" in self.mods or "cluster" in self.mods):
            self.kind = self.NORMAL
        self.key = self.name
        if self.name in ("ld", "ldu", "st", "atom", "red"):
            spaces = self.mods & {"global", "shared", "local", "param", "const"}
            self.key += "." + (min(spaces) if spaces else "generic")
        self.run = OPS.get(self.name, unsupported)
        self.sources = None  # operand types, where they differ from the type of the result
        if self.name in ONE_TYPE and len(self.op) > 2 and self.op[-2] in DTYPE:
            small = self.op[-1] in ("f16", "bf16") and self.op[-2] == "f32"
            if small and self.name in ("add", "sub", "fma"):
                self.type = "f32"
                self.sources = (self.op[-1],) * (2 if self.name == "fma" else 1) + ("f32",)
            else:
                self.run = unsupported
        if any(m.startswith("shared::") for m in self.mods):
            self.run = unsupported


KINDS = {
    **dict.fromkeys(("bra", "brx"), Instruction.BRANCH),
    **dict.fromkeys(("ret", "exit"), Instruction.EXIT),
    **dict.fromkeys(("bar", "barrier"), Instruction.BARRIER),
    **dict.fromkeys(("shfl", "vote", "redux", "ldmatrix", "stmatrix", "activemask"), Instruction.WARP_SYNC),
}


def split_arguments(s):
    out, depth, start = [], 0, 0
    for i, ch in enumerate(s):
        if ch in "{[(":
            depth += 1
        elif ch in "}])":
            depth -= 1
        elif ch == "," and depth == 0:
            out.append(s[start:i].strip())
            start = i + 1
    out.append(s[start:].strip())
    return [a for a in out if a]


def registers_of(arg):
    """The registers of a vector operand, or the operand itself."""
    return [x.strip() for x in arg[1:-1].split(",")] if arg[0] == "{" else [arg]


def literal(text):
    """Bit pattern of an immediate as a Python int."""
    if text[:2] in ("0f", "0F", "0d", "0D"):
        return int(text[2:], 16)
    text = text.rstrip("U")
    if re.fullmatch(r"-?0[0-7]+", text):
        return int(text, 8)
    return int(text, 0)

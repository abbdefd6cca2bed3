"""The printer to C++: a neuron as loops over rows (see include/rows.h), for CPUs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from .graph import Node
from .plan import Plan
from .printing import Statements

# kUnit of rows.h: T = 4, the common case, in one go, so that the states between the steps stay in registers.
UNIT = 4

SYNTAX = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "fma": "fma_({}, {}, {})",
    "abs": "abs_({})",
    "exp": "exp_({})",
    "exp_negative": "exp_negative({})",
    "exp_or_zero": "exp_or_zero({})",
    "log": "log_({})",
    "sqrt": "sqrt_({})",
    "tanh": "tanh_({})",
    "sigmoid": "sigmoid_({})",
    "atan": "atan_({})",
    "reciprocal": "reciprocal({})",
    "limit": "limited({})",
    "is_lowest": "({} < lowest_exponent<real>())",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "not": "!{}",
    "where": "{} ? {} : {}",
    "spike": "{} >= 0",
}


def _statements(**own: str) -> Statements:
    """``own``: operations that are written differently."""
    return Statements(
        {op: text.format for op, text in {**SYNTAX, **own}.items()},
        lambda condition, name, text: f"const {'bool' if condition else 'real'} {name} = {text};",
        lambda value: f"real({value!r})",
        operands={"spike": 1, "soft": 1},
    )


def _spike_value(step_spike: Node, name: str) -> str:
    """What a spike's name stands for as a number."""
    return f"({name} ? real(1) : real(0))" if step_spike.op == "spike" else name


class _Loop:
    """One printed loop over the neurons of a block."""

    def __init__(self, name: str, plan: Plan, tables: bool) -> None:
        self.name, self.plan, self.tables = name, plan, tables
        self.head: list[str] = []
        self.loads: list[str] = []  # in front of the body, and stores behind it: a load behind a store may wait for it
        self.body: list[str] = []
        self.stores: list[str] = []
        self.statements = _statements()
        self.names: dict[int, str] = {}

    def rows(self, member: str, count: int, constant: bool = True) -> list[str]:
        """Declares the rows of a member of Rows; how an element of each is written."""
        prefix = "const real*" if constant else "real*"
        self.head += [f"{prefix} {member}{k} = r.{member}[{k}];" for k in range(count)]
        return [f"{member}{k}[i]" for k in range(count)]

    def read(self, nodes: Sequence[Node], member: str) -> None:
        for node, element in zip(nodes, self.rows(member, len(nodes)), strict=True):
            name = f"{member}_{element.split('[')[0].removeprefix(member)}"
            self.loads.append(f"const real {name} = {element};")
            self.names[id(node)] = name

    def constants(self) -> None:
        """The derived values: a row each, or a number each."""
        derived = self.plan.step.derived
        if self.tables:
            self.read(derived, "derived")
            return
        for k, node in enumerate(derived):
            self.head.append(f"const real derived_{k} = r.derived[{k}][0];")
            self.names[id(node)] = f"derived_{k}"

    def write(self, member: str, values: Sequence[str], add: bool = False) -> None:
        targets = self.rows(member, len(values), constant=False)
        self.stores += [f"{t} {'+=' if add else '='} {v};" for t, v in zip(targets, values, strict=True)]

    def compute(self, roots: Sequence[Node], names: dict[int, str] | None = None) -> list[str]:
        out = self.statements.add(roots, self.names if names is None else names)
        self.body += self.statements.lines
        self.statements.lines = []
        return out

    def text(self) -> str:
        indented = "\n".join(f"    {line}" for line in (*self.loads, *self.body, *self.stores))
        head = "\n".join(f"  {line}" for line in self.head)
        return (
            f"template <class real>\nSTDANO_LOOP void {self.name}(const Rows<real>& r) {{\n"
            f"  const int64_t n = r.n;\n{head}\n"
            f"  STDANO_VECTORIZE\n  for (int64_t i = 0; i < n; ++i) {{\n{indented}\n  }}\n}}\n"
        )


def _early(plan: Plan, tables: bool, suffix: str) -> list[str]:
    """The early loops of one step, and a function that runs them one after the other."""
    texts, calls, known = [], [], list[Node]()
    for k, nodes in enumerate(plan.early):
        loop = _Loop(f"early{k}{suffix}", plan, tables)
        loop.head.append("const real alpha = r.alpha;")
        loop.constants()
        loop.read(list(plan.step.states.values()), "before")
        if plan.early_x:
            loop.head.append("const real* x = r.x;")
            loop.names[id(plan.step.x)] = "x[i]"
        elements = loop.rows("kept", len(plan.kept), constant=False)
        loop.names |= {id(node): element for node, element in zip(known, elements, strict=False)}
        values = loop.compute(nodes)
        loop.stores += [f"{e} = {v};" for e, v in zip(elements[len(known) :], values, strict=False)]
        known += nodes
        texts.append(loop.text())
        calls.append(f"early{k}{suffix}(r);")
    texts.append(f"template <class real>\nvoid early{suffix}(const Rows<real>& r) {{ {' '.join(calls)} }}\n")
    return texts


class _Steps(_Loop):
    """A loop over the neurons of a block that takes some steps of each.

    Args:
        stem: forward or backward.
        unit: how many steps.
        closed: behind the last of them nothing is wanted.
        same: x is the same at all of them.
    """

    def __init__(self, stem: str, plan: Plan, unit: int, tables: bool, closed: bool, same: bool) -> None:
        suffixes = {"_closed": closed, "_same": same, "_tables": tables}
        super().__init__(f"{stem}{unit}" + "".join(s for s, there in suffixes.items() if there), plan, tables)
        self.unit, self.closed, self.same = unit, closed, same
        self.head += ["const real* x = r.x;", "real* out = r.out;", "const real alpha = r.alpha;"]
        self.head += ["const int64_t xs = r.x_stride;"] if unit > 1 and not same else []
        self.head += ["const int64_t os = r.out_stride;"] if unit > 1 else []
        self.constants()
        if same:
            self.loads.append("const real x_0 = x[i];")
            self.names[id(plan.step.x)] = "x_0"
            self.compute(plan.of_x)
        self.read(list(plan.step.states.values()), "before")
        self.states = [self.names[id(a)] for a in plan.step.states.values()]

    def at(self, array: str, stride: str, t: int) -> str:
        return f"{array}[{f'{t}*{stride} + ' if t else ''}i]"

    def begin(self, t: int) -> dict[int, str]:
        """The names that step t starts with."""
        plan = self.plan
        names = dict(self.names) | {id(a): s for a, s in zip(plan.step.states.values(), self.states, strict=True)}
        if self.same:
            return names
        self.loads.append(f"const real x_{t} = {self.at('x', 'xs', t)};")
        names[id(plan.step.x)] = f"x_{t}"
        if not self.closed or t < self.unit - 1 or plan.last_needs_early:
            for k, node in enumerate(plan.kept):
                row = f"kept{t * len(plan.kept) + k}"
                self.head.append(f"const real* {row} = r.kept[{t * len(plan.kept) + k}];")
                self.loads.append(f"const real {row}_ = {row}[i];")
                names[id(node)] = f"{row}_"
        return names


def _forward(plan: Plan, *kind: Any) -> str:
    loop = _Steps("forward", plan, *kind)
    unit, closed = loop.unit, loop.closed
    outputs = plan.step.outputs
    for t in range(unit):
        names = loop.begin(t)
        wanted = outputs[:1] if closed and t == unit - 1 else outputs
        spike, *loop.states = loop.compute(wanted, names)
        loop.stores.append(f"{loop.at('out', 'os', t)} = {_spike_value(plan.step.spike, spike)};")
    if not closed:
        loop.write("after", loop.states)
    return loop.text()


def _backward(plan: Plan, *kind: Any) -> str:
    loop = _Steps("backward", plan, *kind)
    unit, closed, tables = loop.unit, loop.closed, loop.tables
    step = plan.step
    loop.head.append("const real* gs = r.gs;")
    loop.head += ["const int64_t ss = r.gs_stride;"] if unit > 1 else []
    walked: list[dict[int, str]] = []
    for t in range(unit):
        walked.append(loop.begin(t))
        if t < unit - 1:
            loop.states = loop.compute(step.outputs[1:], walked[t])
    seeds = [plan.seeds[name] for name in step.states]
    gradients: list[str] = []
    if not closed:
        loop.read(seeds, "grad_after")
        gradients = [loop.names[id(seed)] for seed in seeds]
    sums: list[list[str]] = []
    behind = plan.gradients.shortened()
    for t in reversed(range(unit)):
        names, adjoint = walked[t], behind
        loop.loads.append(f"const real gs_{t} = {loop.at('gs', 'ss', t)};")
        names[id(plan.seeds["gs"])] = f"gs_{t}"
        if closed and t == unit - 1:
            adjoint = plan.last.shortened()
        else:
            names |= {id(seed): g for seed, g in zip(seeds, gradients, strict=True)}
        gx, *others = loop.compute(adjoint.all if tables else [adjoint.x, *adjoint.states], names)
        loop.stores.append(f"{loop.at('out', 'os', t)} = {gx};")
        gradients = others[: len(seeds)]
        sums.append(others[len(seeds) :])
    loop.write("grad_before", gradients)
    if tables:
        loop.write("sums", [" + ".join(parts) for parts in zip(*sums, strict=True)], add=True)
    return loop.text()


def _once(
    name: str, plan: Plan, inputs: Sequence[tuple[str, Sequence[Node]]], member: str, roots: Sequence[Node]
) -> str:
    """A loop over what is computed once a neuron."""
    loop = _Loop(name, plan, True)
    for source, nodes in inputs:
        loop.read(nodes, source)
    loop.write(member, loop.compute(roots))
    return loop.text()


def rows_source(plan: Plan, several: bool = True) -> str:
    """The neuron's loops over rows, templates of ``real``; ``several``: also those that take several steps at once."""
    step = plan.step
    constants = list(step.constants.values())
    texts = [
        _once("derive", plan, [("constants", constants)], "derived", step.makers),
        _once("finish", plan, [("constants", constants), ("sums", plan.sums)], "grad_constants", plan.grad_constants),
    ]
    unit = 1 if plan.early_state or not several else UNIT
    same = unit > 1 and bool(plan.of_x)
    for tables in (False, True):
        if plan.early:
            texts += _early(plan, tables, "_tables" if tables else "")
        kinds = [(1, tables, False, False)]
        if not tables:
            kinds += [(unit, False, False, False)] if unit > 1 else []
            kinds.append((unit, False, True, False))
            kinds += [(unit, False, closed, True) for closed in (False, True) if same]
        for kind in kinds:
            texts += [_forward(plan, *kind), _backward(plan, *kind)]

    def table(stem: str) -> str:
        several = f"{stem}{unit}<real>" if unit > 1 else "nullptr"
        of_same = [f"{stem}{unit}{closed}_same<real>" if same else "nullptr" for closed in ("", "_closed")]
        return f"{{{stem}1<real>, {several}, {stem}{unit}_closed<real>, {', '.join(of_same)}}}"

    early = "early<real>, early_tables<real>" if plan.early else "nullptr, nullptr"
    flags = ", ".join(str(flag).lower() for flag in (plan.early_x, plan.last_needs_early))
    texts.append(
        f"template <class real>\nconstexpr Loops<real> loops{{derive<real>, finish<real>, {early}, {flags}, "
        f"forward1_tables<real>, backward1_tables<real>, {table('forward')}, {table('backward')}}};\n"
    )
    return "\n".join(texts)


def rest_source(plan: Plan) -> str:
    """Where each state begins, for NeuronKernels."""
    names = list(plan.step.constants)
    rests = plan.step.rest_names()
    return "{" + ", ".join(f"{{{names.index(r)}, 0}}" if isinstance(r, str) else f"{{-1, {r!r}}}" for r in rests) + "}"


def kernel_name(plan: Plan) -> str:
    """The neuron's name with a hash of what is compiled, so that nothing older is ever taken for it."""
    digest = hashlib.sha256((rows_source(plan) + rest_source(plan)).encode()).hexdigest()[:16]
    return f"{plan.step.neuron.__name__}-{digest}"


def namespace_source(plan: Plan, number: int | str, floats: bool, doubles: bool) -> tuple[str, str]:
    """A neuron in a namespace of its own, and its entry in a table of NeuronKernels."""
    step = plan.step
    source = rows_source(plan, floats and not step.variant.soft)
    space = f"n{number}"
    text = f"namespace {space} {{\n{source}}}  // namespace {space}\n"
    of_float = f"&{space}::loops<float>" if floats else "nullptr"
    of_double = f"&{space}::loops<double>" if doubles else "nullptr"
    entry = (
        f'{{"{kernel_name(plan)}", {len(step.states)}, {len(step.constants)}, {len(step.derived)}, {len(plan.kept)}, '
        f"{rest_source(plan)}, {of_float}, {of_double}}}"
    )
    return text, entry

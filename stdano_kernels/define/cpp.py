"""The printer to C++: a neuron as loops over rows (see include/rows.h) for CPUs, and as inline functions for devices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .graph import Node
from .plan import Plan
from .printing import Statements

UNIT = 4  # kUnit of rows.h

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


def _statements() -> Statements:
    return Statements(
        {op: text.format for op, text in SYNTAX.items()},
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
        self.body: list[str] = []
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
            self.body.append(f"const real {name} = {element};")
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
        self.flush()
        self.body += [f"{t} {'+=' if add else '='} {v};" for t, v in zip(targets, values, strict=True)]

    def compute(self, roots: Sequence[Node], names: dict[int, str] | None = None) -> list[str]:
        out = self.statements.add(roots, self.names if names is None else names)
        self.flush()
        return out

    def flush(self) -> None:
        self.body += self.statements.lines
        self.statements.lines = []

    def text(self) -> str:
        indented = "\n".join(f"    {line}" for line in self.body)
        head = "\n".join(f"  {line}" for line in self.head)
        return (
            f"template <class real>\nSTDANO_LOOP void {self.name}(const Rows<real>& r) {{\n  const int64_t n = r.n;\n{head}\n"
            f"  STDANO_VECTORIZE\n  for (int64_t i = 0; i < n; ++i) {{\n{indented}\n  }}\n}}\n"
        )


def _early(plan: Plan, tables: bool, suffix: str) -> list[str]:
    """The early loops, and a function that runs them one after the other."""
    texts, calls, known = [], [], list[Node]()
    for k, nodes in enumerate(plan.early):
        loop = _Loop(f"early{k}{suffix}", plan, tables)
        loop.constants()
        loop.read(list(plan.step.states.values()), "before")
        first = len(known)
        names = loop.rows("kept", len(plan.kept), constant=False)
        for node, element in zip(known, names, strict=False):
            loop.names[id(node)] = element
        values = loop.compute(nodes)
        loop.body += [f"{names[first + j]} = {v};" for j, v in enumerate(values)]
        known += nodes
        texts.append(loop.text())
        calls.append(f"early{k}{suffix}(r);")
    texts.append(f"template <class real>\nvoid early{suffix}(const Rows<real>& r) {{ {' '.join(calls)} }}\n")
    return texts


def _forward(plan: Plan, unit: int, tables: bool, suffix: str) -> str:
    step = plan.step
    loop = _Loop(f"forward{unit}{suffix}", plan, tables)
    loop.head += ["const real* x = r.x;", "real* out = r.out;"]
    loop.head += ["const int64_t xs = r.x_stride, os = r.out_stride;"] if unit > 1 else []
    loop.head.append("const real alpha = r.alpha;")
    loop.constants()
    loop.read(list(step.states.values()), "before")
    loop.read(plan.kept, "kept")
    fixed = dict(loop.names)
    states = [loop.names[id(a)] for a in step.states.values()]
    for t in range(unit):
        loop.body.append(f"const real x_{t} = x[{f'{t}*xs + ' if t else ''}i];")
        names = fixed | {id(step.x): f"x_{t}"} | {id(a): s for a, s in zip(step.states.values(), states, strict=True)}
        spike, *states = loop.compute(step.outputs, names)
        loop.body.append(f"out[{f'{t}*os + ' if t else ''}i] = {_spike_value(step.spike, spike)};")
    loop.write("after", states)
    return loop.text()


def _backward(plan: Plan, unit: int, tables: bool, suffix: str) -> str:
    step = plan.step
    loop = _Loop(f"backward{unit}{suffix}", plan, tables)
    loop.head += ["const real *x = r.x, *gs = r.gs;", "real* out = r.out;"]
    loop.head += ["const int64_t xs = r.x_stride, ss = r.gs_stride, os = r.out_stride;"] if unit > 1 else []
    loop.head.append("const real alpha = r.alpha;")
    loop.constants()
    loop.read(list(step.states.values()), "before")
    loop.read(plan.kept, "kept")
    fixed = dict(loop.names)
    states = [loop.names[id(a)] for a in step.states.values()]
    walked: list[dict[int, str]] = []
    for t in range(unit):
        loop.body.append(f"const real x_{t} = x[{f'{t}*xs + ' if t else ''}i];")
        names = fixed | {id(step.x): f"x_{t}"} | {id(a): s for a, s in zip(step.states.values(), states, strict=True)}
        if t < unit - 1:
            states = loop.compute(step.outputs[1:], names)
        walked.append(names)
    loop.read([plan.seeds[name] for name in step.states], "grad_after")
    gradients = [loop.names[id(plan.seeds[name])] for name in step.states]
    sums: list[list[str]] = []
    for t in reversed(range(unit)):
        names = walked[t]
        loop.body.append(f"const real gs_{t} = gs[{f'{t}*ss + ' if t else ''}i];")
        names[id(plan.seeds["gs"])] = f"gs_{t}"
        names |= {id(plan.seeds[s]): g for s, g in zip(step.states, gradients, strict=True)}
        wanted = [plan.grad_x, *plan.grad_states, *(plan.grad_derived if tables else [])]
        gx, *others = loop.compute(wanted, names)
        loop.body.append(f"out[{f'{t}*os + ' if t else ''}i] = {gx};")
        gradients = others[: len(step.states)]
        sums.append(others[len(step.states) :])
    loop.write("grad_before", gradients)
    if tables:
        loop.write("sums", [" + ".join(parts) for parts in zip(*sums, strict=True)], add=True)
    return loop.text()


def _once(name: str, plan: Plan, inputs: Sequence[tuple[str, Sequence[Node]]], member: str, roots: Sequence[Node]) -> str:
    """A loop over what is computed once a neuron."""
    loop = _Loop(name, plan, True)
    for source, nodes in inputs:
        loop.read(nodes, source)
    loop.write(member, loop.compute(roots))
    return loop.text()


def rows_source(plan: Plan) -> str:
    """The neuron's loops over rows, templates of ``real``."""
    step = plan.step
    constants = list(step.constants.values())
    texts = [
        _once("derive", plan, [("constants", constants)], "derived", step.makers),
        _once("finish", plan, [("constants", constants), ("sums", plan.sums)], "grad_constants", plan.grad_constants),
    ]
    units = (1,) if plan.early else (1, UNIT)
    for tables in (False, True):
        suffix = "_tables" if tables else ""
        if plan.early:
            texts += _early(plan, tables, suffix)
        for unit in units if not tables else (1,):
            texts += [_forward(plan, unit, tables, suffix), _backward(plan, unit, tables, suffix)]

    def table(stem: str, suffix: str) -> str:
        second = f"{stem}{UNIT}{suffix}<real>" if not plan.early and not suffix else "nullptr"
        return f"{{{stem}1{suffix}<real>, {second}}}"

    early = "early<real>, early_tables<real>" if plan.early else "nullptr, nullptr"
    texts.append(
        "template <class real>\nconstexpr Loops<real> loops{derive<real>, finish<real>, "
        f"{early}, {table('forward', '')}, {table('forward', '_tables')}, {table('backward', '')}, {table('backward', '_tables')}}};\n"
    )
    return "\n".join(texts)


def rest_source(plan: Plan) -> str:
    """Where each state begins, for NeuronKernels."""
    names = list(plan.step.constants)
    rests = plan.step.rest_names()
    return "{" + ", ".join(f"{{{names.index(r)}, 0}}" if isinstance(r, str) else f"{{-1, {r!r}}}" for r in rests) + "}"


def kernel_name(plan: Plan, source: str) -> str:
    """The neuron's name with a hash of what is compiled, so that nothing older is ever taken for it."""
    digest = hashlib.sha256((source + rest_source(plan)).encode()).hexdigest()[:16]
    return f"{plan.step.neuron.__name__}-{digest}"


def namespace_source(plan: Plan, number: int | str, floats: bool, doubles: bool) -> tuple[str, str]:
    """A neuron in a namespace of its own, and its entry in a table of NeuronKernels."""
    source = rows_source(plan)
    step = plan.step
    space = f"n{number}"
    text = f"namespace {space} {{\n{source}}}  // namespace {space}\n"
    of_float = f"&{space}::loops<float>" if floats else "nullptr"
    of_double = f"&{space}::loops<double>" if doubles else "nullptr"
    entry = (
        f'{{"{kernel_name(plan, source)}", {len(step.states)}, {len(step.constants)}, {len(step.derived)}, {len(plan.kept)}, '
        f"{rest_source(plan)}, {of_float}, {of_double}}}"
    )
    return text, entry

"""The printer to CUDA C++: a neuron as inline functions on a few numbers, in structs that csrc/cuda/neuron.h takes
as template arguments. The statements are those that the CPU gets."""

from __future__ import annotations

from collections.abc import Sequence

from .cpp import _spike_value, _statements, kernel_name
from .graph import Node, in_order, rebuilt, symbol
from .plan import Gradients, Plan
from .surrogates import SHAPES

# A step and its adjoint compute with what csrc/cuda/device_math.h has.
_MATH = {"spike": "M::fires({}, fired)", "tanh": "M::tanh({})", "reciprocal": "M::reciprocal({})"}


class _Function:
    """One printed function. Arrays are read at its beginning, so that what it writes may be what it has read."""

    def __init__(self, head: str, own: dict[str, str]) -> None:
        self.head, self.names = head, dict[int, str]()
        self.body: list[str] = []
        self.statements = _statements(**own)

    def read(self, nodes: Sequence[Node], array: str) -> None:
        for k, node in enumerate(nodes):
            self.body.append(f"const real {array}_{k} = {array}[{k}];")
            self.names[id(node)] = f"{array}_{k}"

    def compute(self, roots: Sequence[Node]) -> list[str]:
        values = self.statements.add(roots, self.names)
        self.body += self.statements.lines
        self.statements.lines = []
        return values

    def write(self, array: str, values: Sequence[str], operator: str = "=") -> None:
        self.body += [f"{array}[{k}] {operator} {value};" for k, value in enumerate(values)]

    def text(self) -> str:
        body = "".join(f"    {line}\n" for line in self.body)
        return f"  {self.head} {{\n{body}  }}\n"


def _of(result: str, name: str, *arguments: str, template: str = "", math: bool = False) -> _Function:
    """``math``: by what the caller says, which may also give the spike."""
    template += "class M = Exact, class real" if math else "class real"
    arguments += ("bool fired = false",) if math else ()
    head = f"template <{template}>\n  static STDANO_INLINE {result} {name}({', '.join(arguments)})"
    return _Function(head, _MATH if math else {})


_BEFORE = ("const real* before", "const real* derived", "real alpha")


def _step(plan: Plan) -> str:
    """The values of a step, from those that constants make."""
    step = plan.step
    f = _of("real", "step", "real x", *_BEFORE, "real* after", "real* u", math=True)
    f.names[id(step.x)] = "x"
    f.read(list(step.states.values()), "before")
    f.read(step.derived, "derived")
    spike, *states = f.compute(step.outputs)
    f.write("after", states)
    f.write("u", [f.names[id(a.args[0])] for a in _spikes(plan)])
    f.body.append(f"return {_spike_value(step.spike, spike)};")
    return (
        f"  using slopes = {step.neuron.__name__}_slopes;\n"
        f"  static constexpr int states = {len(step.states)}, spikes = {len(_spikes(plan))};\n"
        f"  static constexpr int derived = {len(step.derived)};\n"
        f"  static constexpr bool is_long = {str(plan.early_state).lower()};\n{f.text()}"
    )


def _adjoint(plan: Plan) -> str:
    """The gradient of a step's input; ``gradient``, of the states behind it, becomes that of those in front of it. And
    that of a step behind which nothing is wanted, so that ``gradient`` is only written."""
    f, others = _begin_adjoint(plan, "adjoint", "bool with_sums, ", plan.gradients)
    count = len(plan.step.states)
    gx, *gradients = f.compute(others[: 1 + count])
    f.body.append("if constexpr (with_sums) {")
    f.write("sums", f.compute(others[1 + count :]), "+=")
    f.body.append("}")
    f.write("gradient", gradients)
    f.body.append(f"return {gx};")
    last, others = _begin_adjoint(plan, "last_adjoint", "", plan.last)
    gx, *gradients = last.compute(others[: 1 + count])
    last.write("gradient", gradients)
    last.body.append(f"return {gx};")
    return f.text() + last.text()


def _begin_adjoint(plan: Plan, name: str, template: str, gradients: Gradients) -> tuple[_Function, list[Node]]:
    """A function that has read all its arguments, and the gradients that it may give, with the slopes among them."""
    step = plan.step
    arguments: tuple[str, ...] = ("const real* slopes", "real x", "real gs", *_BEFORE, "real* gradient")
    arguments += ("real* sums",) if gradients is plan.gradients else ()
    f = _of("real", name, *arguments, template=template, math=True)
    f.names[id(step.x)], f.names[id(plan.seeds["gs"])] = "x", "gs"
    f.read(list(step.states.values()), "before")
    f.read(step.derived, "derived")
    if gradients is plan.gradients:
        f.read([plan.seeds[name] for name in step.states], "gradient")
    slopes = {id(a.args[1]): symbol(f"slope{k}") for k, a in enumerate(_spikes(plan))}
    f.read(list(slopes.values()), "slopes")
    return f, rebuilt(gradients.all, slopes)


def _spikes(plan: Plan) -> list[Node]:
    """The hard spikes, whose slope is a choice at run time: so a neuron's surrogates share their kernels."""
    return [a for a in in_order(plan.step.outputs) if a.op == "spike"] if plan.step.variant.surrogate in SHAPES else []


def _slope(plan: Plan) -> str:
    """The surrogate's slope, from u and alpha; empty where it is a part of the adjoint."""
    spikes = _spikes(plan)
    if not spikes:
        return ""
    f, u = _of("real", "of", "real u", "real alpha"), symbol("u")
    (slope,) = rebuilt([spikes[0].args[1]], {id(spikes[0].args[0]): u})
    f.names[id(u)] = "u"
    f.body.append(f"return {f.compute([slope])[0]};")
    return f.text()


def _constants(plan: Plan) -> str:
    """What constants make, where states begin, and the gradients of both."""
    step = plan.step
    constants, rests = list(step.constants.values()), step.rest_names()
    derive = _of("void", "derive", "const real* constants", "real* derived", "real* rest")
    derive.read(constants, "constants")
    derive.write("derived", derive.compute(step.makers))
    names = list(step.constants)
    derive.write("rest", [f"constants_{names.index(r)}" if isinstance(r, str) else f"real({r!r})" for r in rests])
    finish = _of("void", "finish", "const real* constants", "const real* sums", "real* gradients")
    finish.read(constants, "constants")
    finish.read(plan.sums, "sums")
    finish.write("gradients", finish.compute(plan.grad_constants))
    at_rest = _of("void", "add_rest", "const real* of_states", "real* gradients")
    of_constants = [(names.index(r), j) for j, r in enumerate(rests) if isinstance(r, str)]
    at_rest.body = [f"gradients[{constant}] += of_states[{j}];" for constant, j in of_constants]
    return f"  static constexpr int constants = {len(constants)};\n{derive.text()}{finish.text()}{at_rest.text()}"


class DeviceSource:
    """A neuron in several settings; what two of them have in common is printed, and compiled, once."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.neuron = plans[0].step.neuron.__name__
        self.names = [kernel_name(plan) for plan in plans]
        self._structs: dict[str, str] = {}
        self.types = [[self._struct(kind, text(plan)) for kind, text in _PARTS.items()] for plan in plans]
        self._slopes = list(dict.fromkeys(map(_slope, plans)))
        self.surrogates = [self._slopes.index(_slope(plan)) for plan in plans]

    def _struct(self, kind: str, body: str) -> str:
        return self._structs.setdefault(body, f"{self.neuron}_{kind}{len(self._structs)}")

    def structs(self) -> str:
        slopes = [f"{self.neuron}_slope{k}" for k in range(len(self._slopes))]
        tests = [f"    if (which == {k}) return f({name}());\n" for k, name in enumerate(slopes[:-1])]
        choose = (
            f"  static STDANO_INLINE void choose(int which, F f) {{\n{''.join(tests)}    f({slopes[-1]}());\n  }}\n"
        )
        structs = dict(zip(slopes, self._slopes, strict=True))
        structs[f"{self.neuron}_slopes"] = f"  template <class F>\n{choose}"
        structs |= {name: body for body, name in self._structs.items()}
        return "\n".join(f"struct {name} {{\n{body}}};\n" for name, body in structs.items())

    def part(self, k: int) -> str:
        """What the kernels of the k-th setting are made of."""
        return f"Part<{', '.join(self.types[k])}>"

    def kernels(self, doubles: bool) -> str:
        """The kernels of all settings, where the structs are known."""
        entries = [
            f'make_neuron<{self.part(k)}, {str(doubles).lower()}>("{name}", {self.surrogates[k]})'
            for k, name in enumerate(self.names)
        ]
        return _registered(f"{self.neuron}_kernels", entries)


def _registered(name: str, entries: Sequence[str]) -> str:
    listed = ",\n    ".join(entries)
    return f"const Registered {name}{{{{\n    {listed}}}}};\n"


def super_neuron_kernels(neurons: Sequence[DeviceSource]) -> str:
    """The kernels of neurons together, in each of their settings, which are as many for all and have the surrogate in
    common; where their structs are known."""
    entries = []
    for k, surrogate in enumerate(neurons[0].surrogates):
        parts, name = ", ".join(n.part(k) for n in neurons), "".join(f"+{n.names[k]}" for n in neurons)
        entries.append(f'make_together<{parts}>("{name}", {surrogate})')
    return _registered("super_neurons", entries)


_PARTS = {"step": _step, "adjoint": _adjoint, "constants": _constants}


def sizes(plans: Sequence[Plan], together: Sequence[Plan]) -> str:
    """What the kernels' arguments have room for: each neuron, and some together."""
    most = {"States": "states", "Constants": "constants", "Derived": "derived"}
    counts = {name: [len(getattr(p.step, of)) for p in (*plans, *together)] for name, of in most.items()}
    numbers = [f"kDevice{name} = {max(1, sum(c[len(plans) :]), *c)}" for name, c in counts.items()]
    return f"constexpr int {', '.join(numbers)};\n"

"""The proof of a declared neuron: what the library's own neurons are tested for, on the backends at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import compiler
from .backends import backends
from .define.graph import Node, in_order
from .define.neuron import Neuron
from .define.trace import Step
from .functional import function
from .spec import spec_of, traced

_TOLERANCE = 2e-4  # of float32 against float64, as a share of the largest value


@dataclass
class CheckReport:
    """What :func:`check` found; true where everything holds, and printable.

    Attributes:
        neuron: the declaration's name.
        rows: (what was checked, what was found, whether it holds), where None: could not be checked here.
    """

    neuron: str
    rows: list[tuple[str, str, bool | None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return all(holds is not False for _, _, holds in self.rows)

    def __str__(self) -> str:
        words = {True: "holds", False: "FAILS", None: "not checked"}
        width = max(len(what) for what, _, _ in self.rows)
        lines = [f"{what:{width}}  {words[holds]:11}  {found}".rstrip() for what, found, holds in self.rows]
        return "\n".join([f"{self.neuron}:", *lines])


def check(neuron: type[Neuron], **settings: Any) -> CheckReport:
    """Checks a declared neuron: its gradients by finite differences (soft spikes, float64), its kernels against plain
    PyTorch, against each other in all bits, in chunks against whole sequences, in every dtype, and at extreme inputs.

    Args:
        neuron: the declaration.
        settings: of its function, where they differ from the defaults.

    Returns:
        A report, which is true where everything holds; ``print(check(MyNeuron))`` shows it.

    Raises:
        DeclarationError, TypeError, ValueError: the declaration or a setting is wrong.
    """
    run = function(neuron)
    run(torch.zeros(1, 1), backend="reference", **settings)  # what is wrong with a declaration or a setting, at once
    report = CheckReport(neuron.__name__)
    compiled = [name for name, status in backends().items() if name != "reference" and status.available]
    checks: list[tuple[str, Callable[[], tuple[str, bool | None]]]] = [
        ("gradients, plain PyTorch", lambda: _gradcheck(run, neuron, settings, "reference"))
    ]
    for name in compiled:
        device = "cpu" if name == "cpu" else "cuda"
        on = _On(run, neuron, settings, name, device)
        if name != "triton":
            checks.append((f"gradients, {name}", partial(_gradcheck, run, neuron, settings, name)))
        checks += [
            (f"spikes and gradients of float64's, {name}", on.against_reference),
            (f"two calls equal one, {name}", on.in_chunks),
            (f"half precision is float32 rounded, {name}", on.half_precision),
            (f"NaN and infinity, {name}", on.extremes),
        ]
        if name == "cpu":
            checks.append(("the same bits for every processor", on.instruction_sets))
        elif "cpu" in compiled:
            checks.append((f"the same bits as cpu, {name}", on.as_on_the_cpu))
    for what, test in checks:
        try:
            found, holds = test()
        except Exception as error:  # whatever a kernel's compiler, or a device, says
            lines = str(error).splitlines()
            found, holds = f"{type(error).__name__}: {next((k for k in lines if 'error:' in k), lines[0])}", False
        report.rows.append((what, found, holds))
    return report


def _gradcheck(
    run: Callable[..., Any], neuron: type[Neuron], settings: dict[str, Any], backend: str
) -> tuple[str, bool | None]:
    device = "cuda" if backend == "cuda" else "cpu"
    spec, x = spec_of(neuron), _input((4, 1, 3), torch.float64, device)
    values = spec.settings(settings)
    reached = _reached(traced(neuron, spec.settle({**values, "spike": "soft"}).variant))
    names = [c for c in spec.constants if c in reached and isinstance(values[c], (int, float))]
    constants = [torch.tensor(float(values[c]), dtype=x.dtype, device=device) for c in names]
    smooth = {} if not spec.has_surrogate or "surrogate" in settings else {"surrogate": "sigmoid", "alpha": 2.0}
    leaves = [t.requires_grad_() for t in (x, *constants)]

    def call(x: Tensor, *constants: Tensor) -> tuple[Tensor, ...]:
        own = {**settings, **smooth, **dict(zip(names, constants, strict=True)), "spike": "soft", "backend": backend}
        spikes, final = run(x, return_state=True, **own)
        return spikes, *final

    holds = torch.autograd.gradcheck(call, leaves, raise_exception=True)
    return f"of x and {', '.join(names) or 'no constants'}", holds


def _reached(step: Step) -> set[str]:
    """The constants that gradients reach: not those that a surrogate alone reads."""
    seen: set[str] = set()

    def visit(a: Node) -> None:
        if a.op == "input":
            seen.add(a.value)
        for b in a.args[1:2] if a.op == "soft" else a.args:
            visit(b)

    for output in step.outputs:
        visit(output)
    of_derived = {a.value: maker for a, maker in zip(step.derived, step.makers, strict=True) if a.value in seen}
    found = {a.value for a in in_order(of_derived.values()) if a.op == "input"}
    return found | {rest for rest in step.rest_names() if isinstance(rest, str)}


def _input(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Both signs, and spikes in about every third step of most neurons."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator) * 0.9 + 0.3).to(device, dtype)


class _On:
    """The checks of one backend."""

    def __init__(
        self, run: Callable[..., Any], neuron: type[Neuron], settings: dict[str, Any], backend: str, device: str
    ) -> None:
        self.run, self.neuron, self.settings, self.backend, self.device = run, neuron, settings, backend, device

    def results(self, x: Tensor, backend: str | None = None, **settings: Any) -> list[Tensor]:
        """Spikes, final states, every state after every step, and the gradient of x from all of them."""
        x = x.detach().requires_grad_()
        own = {**self.settings, "backend": backend or self.backend, **settings}
        spikes, final, sequences = self.run(x, return_state=True, return_sequences=tuple(self.neuron.states), **own)
        loss = (
            spikes.double() * torch.arange(1, x.shape[0] + 1, device=x.device).reshape(-1, *[1] * (x.dim() - 1))
        ).sum()
        loss = loss + sum(t.double().sum() for t in (*final, *sequences))
        (grad,) = torch.autograd.grad(loss, x)
        return [t.detach() for t in (spikes, *final, *sequences, grad)]

    def against_reference(self) -> tuple[str, bool | None]:
        x = _input((21, 4, 6, 11), device=self.device)
        ours, wide = self.results(x), self.results(x.double(), "reference")
        equal = (ours[0] == wide[0].float()).all(0)
        share = equal.float().mean().item()
        worst = max(((a.double() - b).abs() * equal).max().item() for a, b in zip(ours[1:], wide[1:], strict=True))
        scale = max(1.0, *(t.abs().max().item() for t in wide))
        return (
            f"{share:.1%} of neurons agree in every spike; off by {worst:.1e}",
            share > 0.99 and worst < _TOLERANCE * scale,
        )

    def in_chunks(self) -> tuple[str, bool | None]:
        x = _input((23, 3, 5), device=self.device)
        whole, state = self.run(x, return_state=True, backend=self.backend, **self.settings)
        parts, carried = [], None
        for part in x.split((4, 17, 2)):
            spikes, carried = self.run(part, state=carried, return_state=True, backend=self.backend, **self.settings)
            parts.append(spikes)
        same = torch.equal(torch.cat(parts), whole) and all(map(torch.equal, carried or (), state))
        return "T = 4 + 17 + 2", same

    def half_precision(self) -> tuple[str, bool | None]:
        for dtype in (torch.float16, torch.bfloat16):
            x = _input((9, 3, 50), dtype, self.device)
            half = self.run(x, backend=self.backend, **self.settings)
            if half.dtype != dtype or not torch.equal(
                half.float(), self.run(x.float(), backend=self.backend, **self.settings)
            ):
                return f"{dtype} differs", False
        return "float16, bfloat16", True

    def extremes(self) -> tuple[str, bool | None]:
        x = _input((8, 40), device=self.device)
        x[2, 3], x[2, 7], x[2, 11], x[2, 13] = float("nan"), float("inf"), -float("inf"), 3e38
        clean = self.run(_input((8, 40), device=self.device), backend=self.backend, **self.settings)
        spikes = self.run(x, backend=self.backend, **self.settings)
        others = torch.ones(40, dtype=torch.bool, device=self.device)
        others[[3, 7, 11, 13]] = False
        if spikes.isnan().any():
            return "a spike is NaN", False
        return "stay in their neurons", torch.equal(spikes[:, others], clean[:, others])

    def instruction_sets(self) -> tuple[str, bool | None]:
        best = torch.ops.stdano.cpu_capability()
        if best == "generic":
            return "there is one on this machine", None
        ours = self.results(_input((9, 3, 91)))
        try:
            compiler.use_level("generic")
            generic = self.results(_input((9, 3, 91)))
        finally:
            compiler.use_level(best)
        return f"{best} and generic", all(map(torch.equal, ours, generic))

    def as_on_the_cpu(self) -> tuple[str, bool | None]:
        x = _input((9, 3, 91))
        ours, theirs = self.results(x.to(self.device)), self.results(x, "cpu")
        return "spikes and states", all(torch.equal(a.cpu(), b) for a, b in zip(ours[:-1], theirs[:-1], strict=True))

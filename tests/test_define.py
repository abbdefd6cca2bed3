"""Declarations: what becomes a kernel, and what is refused, with the place and what is allowed."""

import math
import pickle
import re

import numpy as np
import pytest
import torch
from kernels_common import DECLARED, every_neuron

import stdano_kernels
from stdano_kernels import Constant, DeclarationError, Neuron, Option, State, compiler, function
from stdano_kernels.define import abs, exp, log, maximum, minimum, relu, sigmoid, spike, sqrt, tanh, where
from stdano_kernels.define.cpp import rows_source
from stdano_kernels.define.plan import plan
from stdano_kernels.define.trace import Variant, trace
from stdano_kernels.neurons import NEURONS


class Resonator(Neuron):
    """Two states that rotate into each other; fires by the imaginary one."""

    v = State()
    w = State(0.0)
    omega = Constant(0.5, doc="angle a step")
    damping = Constant(10.0, above=0.0, doc="in time steps")

    def step(n, x, v, w):
        a = n.decay(n.damping)
        real = a * (v - n.omega * w) + x
        imaginary = a * (w + n.omega * v)
        s = spike(real - n.v_threshold)
        return s, n.reset(real, s, n.v_threshold), where(s, 0.0, imaginary)


class Everything(Neuron):
    """Each allowed operation once."""

    v = State(0.25)
    u = State("scale")
    scale = Constant(0.5, above=0.0)
    power = Constant(1.5)
    mode = Option("a", "b")
    turned = Option(False)

    def step(n, x, v, u):
        a = exp(-abs(x)) + log(1.0 + x * x) - sqrt(x**2 + n.scale)
        b = tanh(a) * sigmoid(v) / (1.0 + relu(u))
        c = maximum(minimum(a, n.power), -2.0)
        if n.mode == "b":
            c = c + 0.5 * b
        h = n.charge(x, v) + 0.1 * where((x > 0.2) & ~(v >= 1) | (u < -1), c, -b)
        s = spike(h - n.v_threshold * (1.0 if n.turned else 0.9))
        return s, n.reset(h, s, n.v_threshold), 0.9 * u + 0.1 * (1 - s) * c


@pytest.mark.parametrize("neuron", (Resonator, Everything))
def test_an_own_neuron_is_proved(neuron):
    report = stdano_kernels.check(neuron)
    assert report, str(report)
    assert "FAILS" not in str(report) and len(report.rows) >= 7


@pytest.mark.parametrize("settings", ({"mode": "b"}, {"turned": True, "v_reset": None}), ids=str)
def test_options(settings):
    report = stdano_kernels.check(Everything, **settings)
    assert report, str(report)


def test_a_report_says_what_fails(monkeypatch):
    """A wrong rule of the adjoint."""
    from stdano_kernels import spec
    from stdano_kernels.define import adjoint

    class Wrong(Resonator):
        pass

    right = adjoint._propagate

    def wrong(a, g, add, times):
        right(a, g + g if a.op == "fma" else g, add, times)

    monkeypatch.setattr(adjoint, "_propagate", wrong)
    report = stdano_kernels.check(Wrong)
    assert not report and "FAILS" in str(report)
    failed = [what for what, _, holds in report.rows if holds is False]
    assert "gradients, cpu" in failed and "gradients, plain PyTorch" not in failed
    assert spec.planned.__wrapped__ if hasattr(spec.planned, "__wrapped__") else True


# --- the function ---


def test_signature_and_docstring():
    f = function(Resonator)
    names = list(f.__signature__.parameters)
    assert names[:4] == ["x", "v_threshold", "v_reset", "decay"] and "tau" not in names and "decay_input" not in names
    assert f.__name__ == "Resonator" and "angle a step" in f.__doc__ and "rotate" in f.__doc__
    with pytest.raises(TypeError, match="unexpected keyword argument 'tau'; allowed are v_threshold, v_reset"):
        f(torch.zeros(2, 3), tau=2.0)
    assert function(Resonator) is f


def test_states_are_named_and_rest_where_they_say():
    _, state = function(Everything)(torch.zeros(0, 3), scale=0.75, return_state=True)
    assert state._fields == ("v", "u")
    assert state.v.tolist() == [0.25] * 3 and state.u.tolist() == [0.75] * 3
    assert pickle.loads(pickle.dumps(state)).u.equal(state.u)


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_sequences_of_any_state(backend):
    x = torch.randn(7, 3, 5)
    f = function(Resonator)
    _, state, v_seq, (w, v) = f(x, return_state=True, return_v_seq=True, return_sequences=("w", "v"), backend=backend)
    assert torch.equal(v, v_seq) and torch.equal(w[-1], state.w) and w.shape == x.shape
    x.requires_grad_()
    _, (w,) = f(x, return_sequences=("w",), backend=backend)
    (grad,) = torch.autograd.grad(w.square().sum(), x)
    _, (w,) = f(x.double(), return_sequences=("w",), backend="reference")
    (expected,) = torch.autograd.grad(w.square().sum(), x)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-4)
    for bad in (("q",), "w", 3):
        with pytest.raises(ValueError, match="return_sequences must be a sequence of names from v, w, got"):
            f(x, return_sequences=bad)


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_every_constant_is_a_number_or_a_tensor(backend):
    """Shapes [], [C] and one a neuron, each learned: as a number in every neuron of its own."""
    x = torch.randn(5, 2, 3, 4, dtype=torch.float64)
    f = function(Resonator)
    for shape in ((), (3,), (3, 4), (3, 1), (2, 3, 4)):
        omega = (torch.rand(shape, dtype=torch.float64) * 0.5 + 0.2).requires_grad_()
        damping = (torch.rand(shape, dtype=torch.float64) * 5 + 2).requires_grad_()
        s, (w,) = f(x, omega=omega, damping=damping, return_sequences=("w",), backend=backend)
        grads = torch.autograd.grad((s * w).sum() + w.sum(), (omega, damping))
        assert [g.shape for g in grads] == [shape, shape]
        wide = [c.reshape(3, 1) if c.dim() == 1 else c for c in (omega, damping)]
        wide = [c.detach().expand(2, 3, 4).clone().requires_grad_() for c in wide]
        s2, (w2,) = f(x, omega=wide[0], damping=wide[1], return_sequences=("w",), backend="reference")
        assert torch.equal(s, s2)
        for grad, of_each in zip(grads, torch.autograd.grad((s2 * w2).sum() + w2.sum(), wide), strict=True):
            expected = of_each.sum((0, 2)) if shape == (3,) else of_each.sum_to_size(shape)
            torch.testing.assert_close(grad, expected)


def test_a_step_runs_on_tensors():
    """Without tracing: for looking inside."""
    n = Resonator.symbolic(
        {"v_threshold": 1.0, "v_reset": 0.0, "omega": 0.5, "damping": 10.0, "decay_mode": "exp"} | OFF
    )
    s, v, w = n.step(torch.tensor([0.5, 2.0]), torch.zeros(2), torch.zeros(2))
    assert s.tolist() == [0, 1] and v.tolist() == [0.5, 0.0] and w.tolist() == [0, 0]


OFF = {"decay_input": False, "detach_reset": False}


# --- what is shipped ---


@every_neuron
def test_a_declaration_is_short(neuron):
    import inspect

    source = inspect.getsource(inspect.getmodule(DECLARED[neuron]))
    assert len(source.splitlines()) <= 40


def test_zeros_are_removed_in_the_graph():
    """No product with a literal 0 or 1, no sum with 0, in anything that is printed."""
    for neuron in NEURONS.values():
        for reset in ("zero", "soft", "hard"):
            text = rows_source(plan(trace(neuron, Variant(reset))))
            assert not re.search(r"[*+-] real\(-?0\.0\)|real\(-?0\.0\) [*+-]|\* real\(1\.0\)|real\(1\.0\) \*", text)


def test_the_name_of_a_kernel_changes_with_what_is_compiled():
    class Other(Resonator):
        def step(n, x, v, w):
            s = spike(x - n.v_threshold)
            return s, v, 0.5 * w

    assert len({compiler.name_of(k, Variant()).split("-")[1] for k in (Resonator, Other, *NEURONS.values())}) == 9


# --- refusals: file, line, what is allowed ---


def declared(body, states=("v",), attributes=None, name="Bad"):
    """A neuron whose step is ``body(n, x, *states)``."""
    arguments = ", ".join(("n", "x", *states))
    space = {"body": body}
    exec(f"def step({arguments}): return body({arguments})", space)
    members = {s: State() for s in states} | {"step": space["step"]} | (attributes or {})
    return type(name, (Neuron,), members)


def branches(n, x, v):
    if x > 0:
        v = v + 1
    s = spike(v - 1)
    return s, v


def of_torch(n, x, v):
    s = spike(torch.exp(x) - 1)
    return s, v


def of_math(n, x, v):
    s = spike(math.exp(x) - 1)
    return s, v


def of_numpy(n, x, v):
    s = spike(np.exp(x) - 1)
    return s, v


def a_power(n, x, v):
    s = spike(x**3)
    return s, v


def a_method(n, x, v):
    s = spike(x.clamp(0, 1))
    return s, v


def too_early(n, x, v):
    v = where(s, 0.0, v)  # noqa: F821
    s = spike(v)
    return s, v


def two_spikes(n, x, v):
    return spike(x) * spike(v), v


def no_spike(n, x, v):
    return x, v


def a_state_is_missing(n, x, v):
    return (spike(x),)


def no_tuple(n, x, v):
    return spike(x)


def an_unknown_constant(n, x, v):
    return spike(x - n.kappa), v


def an_assignment(n, x, v):
    n.tau = 3.0
    return spike(x), v


def a_list(n, x, v):
    return spike(x + [1.0]), v


def a_loop(n, x, v):
    for part in x:
        v = v + part
    return spike(v), v


def an_element(n, x, v):
    return spike(x[0]), v


BAD = {
    branches: "cannot branch on a symbol.*use where",
    of_torch: "torch's exp is not an operation of a step; allowed are .*where and detach",
    of_math: "functions of math and numpy cannot take it; use those of stdano_kernels.define",
    of_numpy: "stdano_kernels.define|ufunc",
    a_power: r"\*\* is allowed with 2 alone, got 3",
    a_method: "no method or attribute 'clamp'; allowed are",
    too_early: "name 's'|local variable 's'|cannot access",
    two_spikes: "one spike; this is the second",
    no_spike: "must return what spike",
    a_state_is_missing: r"must return a tuple of the spike and the states after the step \(v\), got 1 values",
    no_tuple: "must return a tuple of the spike and the states",
    an_unknown_constant: "n has no 'kappa'; it has tau, v_threshold, .*charge, reset, decay",
    an_assignment: "cannot set n.tau: what changes from step to step is a State",
    a_list: r"an operand must be a symbol or a number, got \[1.0\]",
    a_loop: "it has no elements",
    an_element: "it has no elements",
}


@pytest.mark.parametrize("body", BAD, ids=lambda body: body.__name__)
def test_what_a_step_cannot_do(body):
    with pytest.raises(DeclarationError, match=BAD[body]) as caught:
        function(declared(body))
    assert re.match(r"\S*(test_define\.py|<string>):\d+: ", str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    "states, attributes, message",
    (
        (("v",), {"x": Constant(1.0)}, "'x' is a name that .* for something else"),
        (("charge",), {}, "'charge' is a name that .* for something else"),
        (("v",), {"state": Constant(1.0)}, "'state' is a name"),
        (("v", "w"), {"w": State("kappa")}, "state 'w' rests at 'kappa', which must be one of the constants tau"),
    ),
)
def test_what_a_class_cannot_declare(states, attributes, message):
    with pytest.raises(DeclarationError, match=message):
        declared(no_spike, states, attributes)


def test_the_states_of_a_step_are_those_declared():
    with pytest.raises(DeclarationError, match=r"step must take \(n, x, v, w\).*it takes \(n, x, w, v\)"):

        class Swapped(Neuron):
            v = State()
            w = State()

            def step(n, x, w, v):
                return spike(x), v, w

    with pytest.raises(DeclarationError, match="at least one State"):

        class Stateless(Neuron):
            def step(n, x):
                return (spike(x),)


def test_what_is_no_declaration():
    for bad in (3, "lif", object, Resonator()):
        with pytest.raises(TypeError, match="neuron must be a subclass of stdano_kernels.Neuron"):
            function(bad)

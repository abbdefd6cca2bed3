"""A mistake in a declaration, in the graph, the adjoint or the printer, or in the way through the time steps must fail
a test."""

import mutations
import pytest
from selection import sample

pytestmark = mutations.marks
trees, cache = mutations.trees, mutations.cache

ADJOINT, GRAPH, PRINTER = (f"stdano_kernels/define/{name}.py" for name in ("adjoint", "graph", "cpp"))
NEURON, SURROGATES, TRACE = (f"stdano_kernels/define/{name}.py" for name in ("neuron", "surrogates", "trace"))
PLAN, REFERENCE = "stdano_kernels/define/plan.py", "stdano_kernels/reference.py"
WALK, SCAN = "csrc/cpu/walk.h", "csrc/cpu/scan.h"


MANY = "test_kernels.test_float64_many_blocks('lif')"
FLOAT32 = "test_kernels.test_float32_against_float64('slif', 'triangle', 0.0, 'numbers', 4)"
CHUNKS = "test_kernels.test_float64_equals_reference('llif', {'v_reset': None})"
OF_EVERY_OPERATION = "test_define.test_an_own_neuron_is_proved(test_define.Everything)"


def floats(neuron, v_reset=0.0, **settings):
    """Every number of a neuron against plain floats."""
    options = {"v_reset": v_reset, **settings}
    return f"test_reference.test_every_option_against_plain_floats({neuron!r}, 'cpu', {options})"


def four_steps(neuron, steps=4):
    """Loops over four steps at once against single ones."""
    arguments = f"{neuron!r}, test_kernels.torch.float32, False, {steps}"
    return f"test_kernels.test_the_loops_for_four_steps_agree_with_single_steps({arguments})"


def at_the_threshold(backend):
    return f"test_reference.test_at_the_threshold_it_fires('lif', {backend!r}, test_reference.torch.float64)"


# name: (file, text, replacement, the tests that are run); each text stands in its file exactly once.
OF_DECLARATIONS = {
    "fires > instead of >=, in the printer": (
        PRINTER,
        '"spike": "{} >= 0"',
        '"spike": "{} > 0"',
        at_the_threshold("cpu"),
    ),
    "fires > instead of >=, in the reference": (REFERENCE, "(u >= 0)", "(u > 0)", at_the_threshold("reference")),
    "soft reset: sign": (NEURON, "h - s * threshold if", "h + s * threshold if", floats("lif", None)),
    "charge: from 0, not from the reset potential": (NEURON, "(v - rest) +", "v +", floats("lif", -0.1)),
    "detach_reset is ignored": (
        NEURON,
        "detach(s) if self.detach_reset else s",
        "s",
        floats("lif", None, detach_reset=True),
    ),
    "LLIF: x >= 0 instead of x > 0": (
        "stdano_kernels/neurons/llif.py",
        "where(x > 0, 0.0, -x)",
        "where(x >= 0, 0.0, -x)",
        floats("llif"),
    ),
    "LLIF: detach_adapt is ignored": (
        "stdano_kernels/neurons/llif.py",
        "theta, rise = detach(theta), detach(rise)",
        "pass",
        floats("llif", detach_adapt=True),
    ),
    "SLIF: the residual potential without a spike": (
        "stdano_kernels/neurons/slif.py",
        "p = s * u",
        "p = u",
        floats("slif"),
    ),
    "ALIF: a spike lowers the threshold": (
        "stdano_kernels/neurons/alif.py",
        "theta = n.v_threshold + n.kappa * b",
        "theta = n.v_threshold - n.kappa * b",
        "test_equations.test_values(*test_equations.CASES[1], 0.0, 'cpu')",
    ),
    "ALIF: the rise decays at once": (
        "stdano_kernels/neurons/alif.py",
        "n.decay(n.tau_adapt) * b + s",
        "n.decay(n.tau_adapt) * (b + s)",
        "test_equations.test_values(*test_equations.CASES[1], 0.0, 'cpu')",
    ),
    "CubaLIF: the input decays at once": (
        "stdano_kernels/neurons/cuba_lif.py",
        "n.decay(n.tau_syn) * i + x",
        "n.decay(n.tau_syn) * (i + x)",
        "test_equations.test_values(*test_equations.CASES[3], 0.0, 'cpu')",
    ),
    "IntegerLIF: the distance is not in thresholds": (
        "stdano_kernels/neurons/integer_lif.py",
        "/ n.v_threshold, levels",
        ", levels",
        "test_equations.test_values(*test_equations.CASES[5], None, 'cpu')",
    ),
    "IF: a leak": (
        "stdano_kernels/neurons/integrate_and_fire.py",
        "h = v + x",
        "h = n.charge(x, v)",
        "test_equations.test_values(*test_equations.CASES[0], 0.0, 'cpu')",
    ),
    "a state rests at 0, not at the reset potential": (
        TRACE,
        'of_v = "v_reset" if',
        "of_v = 0.0 if",
        floats("lif", -0.1),
    ),
    "fma: a - b*c is a + b*c": (GRAPH, 'p = make("neg", p)', "pass", floats("llif")),
    "the adjoint of a difference": (ADJOINT, "add(x[1], -g)", "add(x[1], g)", floats("lif")),
    "the adjoint of a product": (ADJOINT, "add(x[0], times(g, x[1]))", "pass", floats("lif")),
    "hard reset: no gradient through the spike": (
        ADJOINT,
        "add(condition, g * (one - other))",
        "pass",
        floats("lif", -0.1),
    ),
    "hard reset: sign of its gradient": (ADJOINT, "g * (one - other)", "g * (other - one)", floats("lif", -0.1)),
    "a choice: the gradient of what was not chosen": (
        ADJOINT,
        'add(one, make("where", condition, g, 0.0))',
        "add(one, g)",
        OF_EVERY_OPERATION,
    ),
    "SLIF: tau_min is ignored in the gradient": (
        ADJOINT,
        'add(other, make("where", condition, 0.0, g))',
        "add(other, g)",
        "test_reference.test_adaptation_against_plain_floats('slif', 'cpu', 0.8, 1.5)",
    ),
    "the surrogate is left out": (ADJOINT, "add(x[0], weighted(x[1], g))", "add(x[0], g)", floats("lif")),
    "the adjoint of tanh": (ADJOINT, "weighted(1 - a * a, g)", "weighted(1 - a, g)", floats("llif")),
    "the adjoint of 1/tau": (ADJOINT, "add(x[0], -(g * (a * a)))", "add(x[0], g * (a * a))", floats("lif")),
    "the adjoint of exp(-1/tau)": (ADJOINT, "0.0, times(g, a)", "0.0, g", floats("lif")),
    "the adjoint of a quotient": (ADJOINT, "add(x[1], -times(g / x[1], a))", "pass", OF_EVERY_OPERATION),
    "no gradient of a limited constant": (ADJOINT, '("limit", "levels")', '("levels",)', floats("lif")),
    "0*inf in the adjoint": (
        ADJOINT,
        'make("where", weight != 0, weight * a, 0.0)',
        "weight * a",
        "test_super_layouts.test_infinite_input_is_a_value_like_others(steps=5, value=float('inf'))",
    ),
    "triangle: negative slopes": (
        SURROGATES,
        "_where(d < 0, 0.0, d)",
        "d",
        "test_reference.test_every_surrogate_against_plain_floats('cpu', 'triangle', 'hard')",
    ),
    "sigmoid: a factor": (
        SURROGATES,
        "alpha * d * inverse * inverse",
        "alpha * d * inverse",
        "test_reference.test_every_surrogate_against_plain_floats('cpu', 'sigmoid', 'hard')",
    ),
    "several steps: the first's gradient of the spikes": (
        PRINTER,
        "{loop.at('gs', 'ss', t)}",
        "{loop.at('gs', 'ss', 0)}",
        four_steps("lif"),
    ),
    "several steps: each is taken for the last": (
        PRINTER,
        "if closed and t == unit - 1:\n            adj",
        "if closed:\n            adj",
        four_steps("lif"),
    ),
    "several steps: the early part of the first": (
        PRINTER,
        "r.kept[{t * len(plan.kept) + k}]",
        "r.kept[{k}]",
        four_steps("llif"),
    ),
    "sums: of one step alone": (
        PRINTER,
        "zip(*sums, strict=True)], add=True)",
        "zip(*sums, strict=True)])",
        floats("lif"),
    ),
}
# The walk through the steps of a block, and what the passes do around it.
OF_LOOPS = {
    "LLIF: v_threshold's gradient through the state at rest": (
        WALK,
        "add_to(grad_constants_[k_.rest[j].constant], after_[j], r_.n);",
        ";",
        floats("llif"),
    ),
    "backward from the first step": (
        WALK,
        "for (int64_t index = count_ - 1; index >= 0; --index)",
        "for (int64_t index = 0; index < count_; ++index)",
        floats("lif"),
    ),
    "the first unit of steps is taken for the last": (
        WALK,
        "ends = last && closed_end",
        "ends = closed_end",
        four_steps("lif", 7),
    ),
    "the last of several steps lacks its early part": (
        WALK,
        "(ends && !loops_.last_needs_early)",
        "ends",
        four_steps("slif"),
    ),
    "the early part of the first step for all": (WALK, "(keep ? t * k_.kept : 0)", "0", floats("slif")),
    "every step is the first, at rest": (WALK, "resting_ = false;\n      r_.kept", "r_.kept", FLOAT32),
    "constants one a neuron: those of the first block": (
        WALK,
        "values + b.begin",
        "values",
        "test_kernels.test_constants_of_each_neuron_in_many_blocks('lif', 'contiguous')",
    ),
    "a constant's sums from its first use in a block": (
        WALK,
        "for (real* row : sums_) fill(row, real(0), b.size);",
        "",
        MANY,
    ),
    "a checkpoint too far": (
        SCAN,
        "real* row = at<real>(call_.checkpoints, ((first / kCheckpointSteps - 1)",
        "real* row = at<real>(call_.checkpoints, ((first / kCheckpointSteps > 1 ? 0 : 0)",
        CHUNKS,
    ),
    "every chunk starts at rest": (SCAN, "if (first == 0 && call_.state0.empty())", "if (call_.state0.empty())", MANY),
    "no gradient from the chunk behind": (
        SCAN,
        "call_.grad_state.empty() && first + count == g.T",
        "call_.grad_state.empty()",
        "test_affine.test_float32('lif', 17, 'spikes alone')",
    ),
    "the gradient of another state's sequence": (
        SCAN,
        "add_to(gradient[call_.which[q]], more, n);",
        "add_to(gradient[0], more, n);",
        "test_define.test_sequences_of_any_state('cpu')",
    ),
    "the sum of another constant": (SCAN, "gradients[j], sums + j * g.channels", "gradients[j], sums", CHUNKS),
    "the gradient of another state": (SCAN, "walk_.gradient()[j]", "walk_.gradient()[0]", CHUNKS),
}


@pytest.mark.slow
def test_unchanged_declarations_pass(trees):
    trees.assert_passes(trees.as_installed(), "\n".join({tests for *_, tests in OF_DECLARATIONS.values()}))


@pytest.mark.parametrize("mutation", sample(OF_DECLARATIONS))
def test_a_wrong_declaration_is_caught(mutation, trees, cache):
    *change, tests = OF_DECLARATIONS[mutation]
    trees.assert_caught(trees.as_installed(change), tests, **cache)


@pytest.mark.slow
def test_unchanged_loops_pass(trees):
    trees.assert_passes(trees.with_library(), "\n".join({tests for *_, tests in OF_LOOPS.values()}))


@pytest.mark.parametrize("mutation", sample(OF_LOOPS))
def test_a_wrong_loop_is_caught(mutation, trees):
    *change, tests = OF_LOOPS[mutation]
    trees.assert_caught(trees.with_library(change), tests)

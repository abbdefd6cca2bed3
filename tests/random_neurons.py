"""Declarations drawn at random: graphs of every allowed operation, kept from overflowing."""

from hypothesis import strategies as st

from stdano_kernels import Constant, Neuron, State
from stdano_kernels.define import abs as magnitude
from stdano_kernels.define import detach, exp, log, maximum, minimum, relu, sigmoid, spike, sqrt, tanh, where

# Each gives a value of moderate size from values of moderate size, with derivatives that are finite.
UNARY = {
    "neg": lambda a: -a,
    "square": lambda a: 0.25 * a**2,
    "abs": magnitude,
    "relu": relu,
    "exp": lambda a: exp(minimum(a, 1.0)),
    "log": lambda a: log(1.0 + magnitude(a)),
    "sqrt": lambda a: sqrt(1.0 + a * a),
    "tanh": tanh,
    "sigmoid": sigmoid,
    "detach": detach,
    "half": lambda a: 0.5 * a - 0.125,
}
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: tanh(a) * b,
    "div": lambda a, b: a / (1.5 + magnitude(b)),
    "minimum": minimum,
    "maximum": maximum,
    "where": lambda a, b: where((a > 0.25) | ~(b >= -0.5), a, 0.5 * b),
    "both": lambda a, b: where((a < b) & (b != 1.0), b - a, a),
}
OPERATIONS = (*UNARY, *BINARY)
SURROGATES = ("triangle", "sigmoid", "atan")


@st.composite
def declarations(draw):
    """A neuron of one to three states and up to two constants of its own, and settings for its function."""
    chance = draw(st.randoms(use_true_random=True))  # hypothesis's own draws prefer what is short
    states, constants = chance.randint(1, 3), chance.randint(0, 2)
    own = [chance.choice((-0.375, 0.3, 0.8)) for _ in range(constants)]
    program = [(chance.choice(OPERATIONS), chance.randrange(99)) for _ in range(chance.randint(3, 8))]
    levels = chance.choice((1, 1, 1, 3))
    chosen = [chance.randrange(99) for _ in range(states)]
    detached = chance.random() < 0.3

    def step(n, x, *values):
        known = [n.charge(x, values[0]), *values, *[getattr(n, f"c{k}") for k in range(constants)]]
        for op, other in program:  # each takes what the one before it gave
            apart = known[other % len(known)]
            known.append(UNARY[op](known[-1]) if op in UNARY else BINARY[op](known[-1], apart))
        s = spike(known[0] + 0.5 * tanh(known[-1]) - n.v_threshold, levels=levels)
        fed_back = detach(s) if detached else s
        after = [0.5 * tanh(known[k % len(known)]) + 0.25 * fed_back * known[k % 7 % len(known)] for k in chosen[1:]]
        return s, n.reset(known[0], s, n.v_threshold), *after

    names = ", ".join(f"s{k}" for k in range(states))
    attributes = {f"s{k}": State(chance.choice((0.0, 0.25))) for k in range(states)}
    attributes |= {f"c{k}": Constant(value) for k, value in enumerate(own)}
    space = {"step": step}
    exec(f"def named(n, x, {names}):\n    return step(n, x, {names})", space)
    neuron = type("Drawn", (Neuron,), {**attributes, "step": space["named"], "__doc__": f"{program} {levels}"})
    settings = {
        "tau": chance.choice((1.5, 2.0, 4.0)),
        "v_reset": chance.choice((None, 0.0, -0.125)),
        "surrogate": chance.choice(SURROGATES),
    }
    return neuron, settings

"""Which function executes which opcode."""

from .launches import PTXError

OPS = {}


def operation(*names):
    def register(fn):
        for name in names:
            OPS[name] = fn
        return fn

    return register


def unsupported(run, ins):
    raise PTXError("opcode not modelled")

"""Leaky integrate-and-fire."""

from ..define import Neuron, State, spike


class LIF(Neuron):
    """Leaky integrate-and-fire (eqs. 1 to 3 of the paper). With ``r = v_reset`` (0 for the soft reset)::

    h[t] = a*(v[t-1] - r) + r + c*x[t];   s[t] = 1 if h[t] >= v_threshold else 0
    v[t] = r where s[t] else h[t]         (hard)    or    h[t] - s[t]*v_threshold    (soft)
    """

    v = State()

    def step(n, x, v):
        h = n.charge(x, v)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)

"""Integrate-and-fire, without a leak."""

from ..define import Neuron, State, spike


class IF(Neuron):
    """Integrate-and-fire: nothing leaks::

    h[t] = v[t-1] + x[t];   s[t] = 1 if h[t] >= v_threshold else 0
    """

    v = State()

    def step(n, x, v):
        h = v + x
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)

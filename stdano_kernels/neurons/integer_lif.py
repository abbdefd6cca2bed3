"""LIF that fires up to four times in a step."""

from ..define import Constant, Neuron, State, spike


class IntegerLIF(Neuron):
    """Integer LIF: a step gives 0 to 4 spikes, one for each threshold that the potential has reached, and the
    potential loses as many thresholds::

        h[t] = a*v[t-1] + c*x[t];   s[t] = number of k in 1..4 with h[t] >= k*v_threshold
        v[t] = h[t] - s[t]*v_threshold
    """

    v = State()
    v_reset = Constant(None, or_none=True, doc="potential after a spike, or None: as many thresholds less as spikes")

    def step(n, x, v):
        h = n.charge(x, v)
        s = spike((h - n.v_threshold) / n.v_threshold, levels=4)
        return s, n.reset(h, s, n.v_threshold)

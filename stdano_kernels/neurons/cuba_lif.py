"""LIF driven by a synaptic current."""

from ..define import Constant, Neuron, State, spike


class CubaLIF(Neuron):
    """Current-based LIF: the input charges a synaptic current, which charges the potential::

    i[t] = exp(-1/tau_syn)*i[t-1] + x[t];   h[t] = a*(v[t-1] - r) + r + c*i[t]
    """

    v = State()
    i = State(0.0)
    tau_syn = Constant(5.0, above=0.0, doc="of the synaptic current, in time steps")

    def step(n, x, v, i):
        i = n.decay(n.tau_syn) * i + x
        h = n.charge(i, v)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold), i

"""Adaptive LIF: each spike raises the threshold."""

from ..define import Constant, Neuron, State, spike


class ALIF(Neuron):
    """Adaptive LIF: each spike raises the threshold, which decays back::

    theta[t] = v_threshold + kappa*b[t-1];   b[t] = exp(-1/tau_adapt)*b[t-1] + s[t]
    """

    v = State()
    b = State(0.0)
    tau_adapt = Constant(20.0, above=0.0, doc="of the threshold, in time steps")
    kappa = Constant(0.1, doc="rise of the threshold at a spike")

    def step(n, x, v, b):
        h = n.charge(x, v)
        theta = n.v_threshold + n.kappa * b
        s = spike(h - theta)
        return s, n.reset(h, s, theta), n.decay(n.tau_adapt) * b + s

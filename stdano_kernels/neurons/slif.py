"""Short-LIF: a spike's residual potential shortens the next time constant."""

from ..define import Constant, Neuron, Option, State, detach, maximum, minimum, spike, tanh


class SLIF(Neuron):
    """Short-LIF (eqs. 8 and 9 of the paper): LIF, by default with the soft reset, whose time constant shrinks::

    p[t] = s[t]*(h[t] - v_threshold);   tau[t+1] = max(tau_min, tau - beta*tanh(p[t]))
    """

    v = State()
    p = State(0.0)
    v_reset = Constant(None, or_none=True, doc="potential after a spike (hard reset), or None for the soft reset")
    beta = Constant(0.1, doc="how much the residual potential shortens the time constant")
    tau_min = Constant(1.05, above=0.0, doc="lower bound of the time constant, in time steps")
    detach_adapt = Option(False, doc="p counts as a constant in the backward pass")
    squash = Option("tanh", "hardtanh", doc="``hardtanh`` limits p to 1 instead, for hardware without tanh")

    def step(n, x, v, p):
        p = detach(p) if n.detach_adapt else p
        residual = tanh(p) if n.squash == "tanh" else maximum(minimum(p, 1.0), -1.0)
        h = n.charge(x, v, maximum(n.tau - n.beta * residual, n.tau_min))
        u = h - n.v_threshold
        s = spike(u)
        p = s * u
        return s, n.reset(h, s, n.v_threshold), detach(p) if n.detach_adapt else p

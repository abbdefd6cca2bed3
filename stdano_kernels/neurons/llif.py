"""Long-LIF: inhibitory input accumulates in the threshold."""

from ..define import Constant, Neuron, Option, State, detach, maximum, minimum, spike, tanh, where


class LLIF(Neuron):
    """Long-LIF (eqs. 6 and 7 of the paper): LIF whose threshold rises with inhibitory input::

    theta[t+1] = theta[t] + gamma*tanh(I[t]),   I = max(x, 0) - x,   theta[0] = v_threshold
    """

    v = State()
    theta = State("v_threshold")
    gamma = Constant(0.1, doc="how much inhibitory input raises the threshold")
    detach_adapt = Option(
        False, doc="theta counts as a constant in the backward pass; then v_threshold gets no gradient either"
    )
    squash = Option("tanh", "hardtanh", doc="``hardtanh`` limits I to 1 instead, for hardware without tanh")

    def step(n, x, v, theta):
        inhibition = where(x > 0, 0.0, -x)  # not max(x, 0) - x: that is NaN at infinity
        rise = tanh(inhibition) if n.squash == "tanh" else maximum(minimum(inhibition, 1.0), -1.0)
        if n.detach_adapt:
            theta, rise = detach(theta), detach(rise)
        h = n.charge(x, v)
        s = spike(h - theta)
        return s, n.reset(h, s, theta), theta + n.gamma * rise

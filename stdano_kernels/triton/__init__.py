"""Triton kernels: every neuron's whole time loop in one launch, forward and backward, for GPUs without a compiler.

One neuron a file (``lif.py``, ``llif.py``, ``slif.py``): forward kernel, then backward kernel. ``super_neuron.py`` and
``super_backward.py`` run the three together, ``channels.py`` has BatchNorm's passes. ``ops.py`` and ``channel_ops.py``
turn tensors into launches, with what they share in ``launch.py``; ``ops.py`` defines the operators
``torch.ops.stdano_triton``. Spikes and states agree with the compiled backends in all bits; ``math.py`` and
``surrogates.py`` are the twins of ``csrc/neuron_math.h`` and ``csrc/surrogates.h``.
"""

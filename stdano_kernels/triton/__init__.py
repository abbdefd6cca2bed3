"""Triton kernels: every neuron's whole time loop in one launch, forward and backward, for GPUs without a compiler, and
for neurons and settings that were not compiled at the install.

``printed.py`` makes a declared neuron functions of one step; ``scan.py`` runs these over time, ``channels.py`` runs the
super neuron's together and has BatchNorm's passes. ``ops.py`` and ``channel_ops.py``, the operators
``torch.ops.stdano_triton``, turn tensors into launches (``launch.py``). Spikes and states agree with the compiled
backends in all bits; ``math.py`` is the twin of ``include/neuron_math.h``.
"""

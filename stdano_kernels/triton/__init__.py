"""Triton kernels: every neuron's whole time loop in one launch, forward and backward, for GPUs without a compiler, and
for neurons and settings that were not compiled at the install.

``printed.py`` makes a declared neuron functions of one step; ``scan.py`` runs these over time, ``super_neuron.py`` runs
several neurons together, ``channels.py`` has BatchNorm's passes. ``ops.py`` and ``channel_ops.py`` turn tensors into
launches, with what they share in ``launch.py``; ``ops.py`` defines the operators ``torch.ops.stdano_triton``. Spikes
and states agree with the compiled backends in all bits; ``math.py`` is the twin of ``include/neuron_math.h``.
"""

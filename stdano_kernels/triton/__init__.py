"""Triton kernels: every neuron's whole time loop in one launch, forward and backward, for GPUs without a compiler.

One neuron a file (``lif.py``, ``llif.py``, ``slif.py``): forward kernel, then backward kernel. ``ops.py`` turns tensors
into launches and defines the operators ``torch.ops.stdano_triton``. Spikes and states agree with the compiled
backends in all bits; ``math.py`` and ``surrogates.py`` are the twins of ``csrc/neuron_math.h`` and
``csrc/surrogates.h``.
"""

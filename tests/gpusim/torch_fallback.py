"""Run torch's own operators for simulated CUDA tensors with their CPU kernels.

torch's CUDA kernels cannot be simulated (its libraries carry no PTX), but device memory is host
memory here, so each aten operator that has a CUDA and a CPU kernel is redirected: its CUDA
arguments become CPU tensors over the same memory. Operators outside aten, such as those of an
extension, are left alone. Redirected operators are no launches: they do not appear in LOG.
"""

import ctypes
import warnings

import torch
from torch.utils._pytree import tree_map

_library = None

# operators that only handle metadata or allocate, and must keep making CUDA tensors
KEEP = {
    "_cudnn_init_dropout_state",
    "_local_scalar_dense",
    "_pin_memory",
    "_reshape_alias",
    "alias",
    "as_strided",
    "empty",
    "empty_strided",
    "is_pinned",
    "is_set_to",
    "record_stream",
    "resize_",
    "set_",
    "unfold",
    "view",
    "view_as_complex",
    "view_as_real",
}
# composite operators that would choose a CUDA library, or copy with a CUDA kernel
EXTRA = ["aten::copy_", "aten::convolution", "aten::convolution_backward"]


def _alias(tensor):
    storage = tensor.untyped_storage()
    size = storage.nbytes()
    if size == 0:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_uint8 * size).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    out = torch.empty(0, dtype=tensor.dtype)
    return out.set_(flat, tensor.storage_offset(), tensor.size(), tensor.stride())


def _redirect(op):
    def kernel(*args, **kwargs):
        originals, device = {}, [torch.device("cuda", 0)]

        def to_cpu(x):
            if isinstance(x, torch.Tensor) and x.is_cuda:
                cpu = _alias(x)
                originals[id(cpu)] = cpu, x
                return cpu
            if isinstance(x, torch.device) and x.type == "cuda":
                return torch.device("cpu")
            if isinstance(x, torch.Generator) and x.device.type == "cuda":
                return None
            return x

        def to_cuda(x):
            if not isinstance(x, torch.Tensor):
                return x
            if id(x) in originals:
                cpu, cuda = originals[id(x)]
                if cpu.shape != cuda.shape:  # an out= argument that the operator resized
                    cuda.resize_(cpu.shape)
                    _alias(cuda).copy_(cpu)
                return cuda
            if x.device.type != "cpu" or not originals:
                return x
            cuda = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=device[0])
            _alias(cuda).copy_(x)
            return cuda

        cpu_args, cpu_kwargs = tree_map(to_cpu, args), tree_map(to_cpu, kwargs)
        return tree_map(to_cuda, op(*cpu_args, **cpu_kwargs))

    return kernel


def install():
    """Redirect, once."""
    global _library
    if _library is not None:
        return
    torch.backends.cudnn.enabled = False
    _library = torch.library.Library("aten", "IMPL")
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    names = set(torch._C._dispatch_get_registrations_for_dispatch_key("CUDA"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(names | set(EXTRA)):
            namespace, _, rest = name.partition("::")
            base, _, overload = rest.partition(".")
            if namespace != "aten" or base in KEEP or base.startswith(("_cudnn", "cudnn", "miopen")):
                continue
            if name not in EXTRA and not has(name, "CPU"):
                continue
            op = getattr(getattr(torch.ops.aten, base), overload or "default")
            _library.impl(rest, _redirect(op), "CUDA", allow_override=True)

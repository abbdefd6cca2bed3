// A CUDA extension in torch's stable ABI, for the simulator's own tests.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <cuda_runtime.h>

using torch::stable::Tensor;

template <int V, bool GUARD>
__global__ void __launch_bounds__(256) lif(const float* __restrict__ x, float* __restrict__ s,
                                           int64_t n, int64_t steps, float decay, float th) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  if (GUARD && i >= n) return;
  struct alignas(4 * V) Vec { float v[V]; };
  float v[V] = {};
  for (int64_t t = 0; t < steps; ++t) {
    const Vec in = *reinterpret_cast<const Vec*>(x + t * n + i);
    Vec out;
    for (int k = 0; k < V; ++k) {
      v[k] = __fadd_rn(__fmul_rn(v[k], decay), in.v[k]);
      const bool f = v[k] >= th;
      out.v[k] = f ? 1.f : 0.f;
      v[k] = f ? 0.f : v[k];
    }
    *reinterpret_cast<Vec*>(s + t * n + i) = out;
  }
}

// mode 0: correct; 1: no bounds check; 2: vector loads although the address may be unaligned
Tensor lif_cuda(const Tensor& x_, double decay, double th, int64_t mode) {
  torch::stable::accelerator::DeviceGuard guard(x_.get_device_index());
  Tensor x = torch::stable::contiguous(x_), s = torch::stable::empty_like(x);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x_.get_device_index(), &stream));
  const int64_t steps = x.size(0), n = x.numel() / steps;
  auto xp = static_cast<const float*>(x.const_data_ptr());
  auto sp = static_cast<float*>(s.mutable_data_ptr());
  auto st = static_cast<cudaStream_t>(stream);
  const bool aligned = mode == 2 || reinterpret_cast<uintptr_t>(xp) % 16 == 0;
  const unsigned grid = (n + 255) / 256, grid4 = (n / 4 + 255) / 256;
  if (mode == 1) {
    lif<1, false><<<grid, 256, 0, st>>>(xp, sp, n, steps, decay, th);
  } else if (n % 4 == 0 && aligned) {
    lif<4, true><<<grid4, 256, 0, st>>>(xp, sp, n, steps, decay, th);
  } else {
    lif<1, true><<<grid, 256, 0, st>>>(xp, sp, n, steps, decay, th);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return s;
}

STABLE_TORCH_LIBRARY(gpusim, m) {
  m.def("lif(Tensor x, float decay, float th, int mode) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(gpusim, CUDA, m) { m.impl("lif", TORCH_BOX(&lif_cuda)); }

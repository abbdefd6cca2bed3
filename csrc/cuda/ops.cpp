// The operators on CUDA tensors: the device and the stream that torch has chosen, and a check of each launch.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/macros/Macros.h>

#include <string>

#include "../operators.h"
#include "device.h"

namespace stdano {
namespace {

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "stdano: a CUDA kernel could not be started: ", cudaGetErrorString(error));
}

cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

template <class Call>
void launch(const Call& call, cudaStream_t stream) {
  STD_TORCH_CHECK(call.g.T < (int64_t(1) << 30), "stdano: at most 2^30 time steps on a CUDA device, got ", call.g.T);
  STD_TORCH_CHECK(call.g.N <= (int64_t(1) << 37), "stdano: at most 2^37 neurons on a CUDA device, got ", call.g.N);
  switch (call.o.neuron) {
    case Neuron::lif: cuda::launch_lif(call, stream); break;
    case Neuron::llif: cuda::launch_llif(call, stream); break;
    case Neuron::slif: cuda::launch_slif(call, stream); break;
  }
  check_launch();
}

// How Operators<...> runs on CUDA tensors.
struct Cuda {
  struct Guard {
    explicit Guard(const Tensor& x) : device((check(x), x.get_device_index())) {}
    static void check(const Tensor& x) { STD_TORCH_CHECK(x.is_cuda(), "stdano: x must be a CUDA tensor"); }
    torch::stable::accelerator::DeviceGuard device;
  };

  static int64_t checkpoint_steps(Dtype dtype) {
    return dtype == Dtype::float64 ? kDeviceCheckpointStepsDouble : kDeviceCheckpointSteps;
  }

  static void forward(const ForwardCall& call, const Tensor& x) { launch(call, current_stream(x)); }

  static void backward(BackwardCall& call, const Tensor& x, Tensor& grad_tau, Tensor& grad_threshold) {
    const cudaStream_t stream = current_stream(x);
    const bool sums = call.tau || call.threshold;
    const int64_t size = sums ? cuda::partial_size(call.g) : 0;
    Tensor partial = torch::stable::new_empty(x, {size}, ScalarType::Double);
    call.grad_constants = sums ? partial.mutable_data_ptr<double>() : nullptr;
    launch(call, stream);
    if (!sums) return;
    if (call.g.N == 0) {
      torch::stable::zero_(grad_tau);
      torch::stable::zero_(grad_threshold);
      return;
    }
    cuda::launch_sums({call.g, call.o.dtype, call.grad_constants,
                       call.tau ? grad_tau.mutable_data_ptr() : nullptr,
                       call.threshold ? grad_threshold.mutable_data_ptr() : nullptr, grad_tau.numel() == 1,
                       grad_threshold.numel() == 1},
                      stream);
    check_launch();
  }
};

// The toolkit and the architectures of this build: "13.0; 800,860".
std::string cuda_build() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10) + "; " +
         cuda::architectures();
}

}  // namespace
}  // namespace stdano

STABLE_TORCH_LIBRARY_FRAGMENT(stdano, m) { m.def("cuda_build() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(stdano, CUDA, m) { STDANO_IMPLEMENT(m, stdano::Cuda); }

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cuda_build", TORCH_BOX(&stdano::cuda_build));
}

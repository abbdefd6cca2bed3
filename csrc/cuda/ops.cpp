// The operators on CUDA tensors: the device and the stream that torch has chosen, and a check of each launch.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/macros/Macros.h>

#include <string>

#include "../channel_operators.h"
#include "device.h"

namespace stdano {
namespace {

// In torch's words: what the runtime reports here may be the failure of another kernel, earlier.
void check_launch() { STD_CUDA_KERNEL_LAUNCH_CHECK(); }

cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_size(const Geometry& g) {
  STD_TORCH_CHECK(g.T < (int64_t(1) << 30), "stdano: at most 2^30 time steps on a CUDA device, got ", g.T);
  STD_TORCH_CHECK(g.N <= (int64_t(1) << 37), "stdano: at most 2^37 neurons on a CUDA device, got ", g.N);
}

template <class Call>
void launch_neuron(const Call& call, cudaStream_t stream) {
  check_size(call.g);
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

  static void forward(const ForwardCall& call, const Tensor& x) { launch_neuron(call, current_stream(x)); }

  static void backward(BackwardCall& call, const Tensor& x, Tensor& grad_tau, Tensor& grad_threshold,
                       Tensor& affine_sums) {
    const cudaStream_t stream = current_stream(x);
    cuda::SumsCall sums{call.g, nullptr, 0, {}};
    const auto add = [&](bool wanted, ConstantSum which, Tensor& out, int64_t row) {
      if (!wanted) return;
      const bool is_double = out.scalar_type() == ScalarType::Double;
      char* to = static_cast<char*>(out.mutable_data_ptr()) + row * call.g.channels * (is_double ? 8 : 4);
      sums.sums[sums.count++] = {which, to, is_double, out.numel() == 1};
    };
    add(call.tau, sum_tau, grad_tau, 0);
    add(call.threshold, sum_threshold, grad_threshold, 0);
    add(call.affine, sum_shift, affine_sums, 0);
    add(call.affine, sum_scale, affine_sums, 1);
    const int64_t size = sums.count > 0 ? cuda::partial_size(call.g) * (call.affine ? constant_sums : sum_shift) : 0;
    Tensor partial = torch::stable::new_empty(x, {size}, ScalarType::Double);
    call.grad_constants = sums.count > 0 ? partial.mutable_data_ptr<double>() : nullptr;
    launch_neuron(call, stream);
    if (sums.count == 0) return;
    if (call.g.N == 0) {
      for (Tensor* out : {&grad_tau, &grad_threshold, &affine_sums}) torch::stable::zero_(*out);
      return;
    }
    sums.partial = call.grad_constants;
    cuda::launch_sums(sums, stream);
    check_launch();
  }

  static void encode(EncodeCall& call, Tensor& counts) { with_sums(call, kSuperNeurons, counts); }
  static void decode(const DecodeCall& call, const Tensor& codes) { without_sums(call, codes); }
  static void super_sums(SuperSumsCall& call, Tensor& sums) { with_sums(call, kSuperSums, sums); }
  static void super_backward(const SuperBackwardCall& call, const Tensor& x) { without_sums(call, x); }
  static void channel_sums(ChannelSumsCall& call, Tensor& sums) { with_sums(call, kChannelSums, sums); }
  static void channel_affine(const ChannelAffineCall& call, const Tensor& x) { without_sums(call, x); }

 private:
  template <class Call>
  static void without_sums(const Call& call, const Tensor& x) {
    if (call.g.N == 0 || call.g.T == 0) return;
    check_size(call.g);
    cuda::launch(call, current_stream(x));
    check_launch();
  }

  // Runs a pass that takes `count` sums of each channel, and adds its threads' up into out [count][channels].
  template <class Call>
  static void with_sums(Call& call, int count, Tensor& out) {
    if (call.g.N == 0 || call.g.T == 0) {
      torch::stable::zero_(out);
      return;
    }
    Tensor partial = torch::stable::new_empty(out, {count * cuda::partial_size(call.g)}, ScalarType::Double);
    call.sums = partial.mutable_data_ptr<double>();
    without_sums(call, out);
    cuda::SumsCall sums{call.g, call.sums, count, {}};
    for (int k = 0; k < count; ++k) {
      sums.sums[k] = {k, out.mutable_data_ptr<double>() + k * call.g.channels, true, false};
    }
    cuda::launch_sums(sums, current_stream(out));
    check_launch();
  }
};

// The toolkit and the architectures of this build: "13.0; 800,860".
std::string cuda_build() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10) + "; " +
         cuda::architectures();
}

// Why the driver takes no kernel of this build for a device; "" where it does.
std::string cuda_code_error(int64_t device) {
  const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
  return cuda::code_error();
}

}  // namespace
}  // namespace stdano

STABLE_TORCH_LIBRARY_FRAGMENT(stdano, m) {
  m.def("cuda_build() -> str");
  m.def("cuda_code_error(int device) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CUDA, m) {
  STDANO_IMPLEMENT(m, stdano::Cuda);
  STDANO_IMPLEMENT_CHANNELS(m, stdano::Cuda);
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cuda_build", TORCH_BOX(&stdano::cuda_build));
  m.impl("cuda_code_error", TORCH_BOX(&stdano::cuda_code_error));
}

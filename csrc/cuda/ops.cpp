// The operators on CUDA tensors: the device and the stream that torch has chosen, and a check of each launch.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/macros/Macros.h>

#include <algorithm>
#include <string>

#include "../bits.h"
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

template <class Call, class... Scratch>
void launch(const Call& call, cudaStream_t stream, Scratch... scratch) {
  check_size(call.g);
  cuda::launch(call, scratch..., stream);
  check_launch();
}

// How Operators<...> runs on CUDA tensors.
struct Cuda {
  struct Guard {
    explicit Guard(const Tensor& x) : device((check(x), x.get_device_index())) {}
    static void check(const Tensor& x) { STD_TORCH_CHECK(x.is_cuda(), "stdano: x must be a CUDA tensor"); }
    torch::stable::accelerator::DeviceGuard device;
  };

  using Kernels = NeuronInfo;
  static const NeuronInfo* find(const std::string& name, const Tensor& x) {
    const NeuronInfo* found = cuda::find(name.c_str(), x.scalar_type() == ScalarType::Double);
    STD_TORCH_CHECK(found, "stdano: the CUDA kernels have none for ", name);
    return found;
  }

  static int64_t checkpoint_steps(Dtype dtype) {
    return dtype == Dtype::float64 ? kDeviceCheckpointStepsDouble : kDeviceCheckpointSteps;
  }

  static void forward(const ForwardCall<NeuronInfo>& call, const Tensor& x) {
    if (call.g.N > 0) launch(call, current_stream(x));
  }

  static void backward(BackwardCall<NeuronInfo>& call, const Tensor& x, const std::vector<int64_t>& which,
                       std::vector<Tensor>& grad_constants, Tensor& affine_sums) {
    if (call.g.N == 0) {
      for (Tensor& out : grad_constants) torch::stable::zero_(out);
      torch::stable::zero_(affine_sums);
      return;
    }
    std::vector<cuda::Sum> sums = sums_for_constants(call, which, grad_constants);
    if (call.affine) sums.insert(sums.end(), {row_of(affine_sums, 0), row_of(affine_sums, 1)});
    launch_with_sums(call, x, sums);
  }

  static void norm_forward(const NormForwardCall& norm, const ForwardCall<NeuronInfo>& call, const Tensor& x) {
    if (norm.training) {
      ChannelSumsCall sums{call.of_x(), call.dtype, call.x};
      launch_with_sums(sums, x, {}, kChannelSums, norm);
    } else if (norm.channels > 0) {
      without_partial_sums(call, x, norm);
    }
    forward(call, x);
  }

  static void norm_backward(const NormBackwardCall& norm, BackwardCall<NeuronInfo>& call, const Tensor& x,
                            const std::vector<int64_t>& which, std::vector<Tensor>& grad_constants) {
    launch_with_sums(call, x, sums_for_constants(call, which, grad_constants), 2, norm);
    launch(ChannelAffineCall{call.of_x(), call.dtype, call.grad_x, call.x, norm.table, call.grad_x}, current_stream(x));
  }

  static void mixture_forward(const MixtureForwardCall& mixture, EncodeCall<NeuronInfo>& call, const DecodeCall& to_y,
                              const Tensor& x) {
    if (call.g.N == 0 || call.g.T == 0) return;
    if (mixture.training) {
      launch_with_sums(call, x, {}, mixture.members, mixture);
    } else {
      launch(call, current_stream(x));
      without_partial_sums(call, x, mixture);
    }
    launch(to_y, current_stream(x));
  }

  static void mixture_backward(const MixtureBackwardCall& mixture, SuperSumsCall& call,
                               const SuperBackwardCall<NeuronInfo>& to_x, const Tensor& x) {
    const Tensor ticket = torch::stable::new_empty(x, {1}, ScalarType::Int);
    call.ticket = static_cast<unsigned*>(ticket.mutable_data_ptr());
    launch_with_sums(call, x, {}, 1 + mixture.members, mixture, call.ticket);
    super_backward(to_x, x);
  }

  static void encode(EncodeCall<NeuronInfo>& call, Tensor& counts) { with_sums(call, counts); }
  static void decode(const DecodeCall& call, const Tensor& codes) { without_sums(call, codes); }
  static void super_sums(SuperSumsCall& call, Tensor& sums) { with_sums(call, sums); }
  static void super_backward(const SuperBackwardCall<NeuronInfo>& call, const Tensor& x) {
    if (call.g.N == 0 || call.g.T == 0) return;
    const Tensor scratch = torch::stable::new_empty(x, {cuda::scratch_size(call)}, ScalarType::Byte);
    launch(call, current_stream(x), scratch.mutable_data_ptr());
  }
  static void channel_sums(ChannelSumsCall& call, Tensor& sums) { with_sums(call, sums); }
  static void channel_affine(const ChannelAffineCall& call, const Tensor& x) { without_sums(call, x); }

  static constexpr bool kMarksWrong = true;
  static bool pack(const BitsCall& call, const Tensor& x) {
    cuda::launch_pack(call, current_stream(x));
    check_launch();
    return true;
  }
  static void unpack(const BitsCall& call, const Tensor& like) {
    cuda::launch_unpack(call, current_stream(like));
    check_launch();
  }

 private:
  static cuda::Sum row_of(Tensor& sums, int64_t row) {
    return {sums.mutable_data_ptr<double>() + row * sums.size(1), true, false};
  }

  // The sums of a call for constants, in the order in which it takes them.
  static std::vector<cuda::Sum> sums_for_constants(const BackwardCall<NeuronInfo>& call,
                                                   const std::vector<int64_t>& which,
                                                   std::vector<Tensor>& grad_constants) {
    std::vector<cuda::Sum> sums;
    for (const int number : cuda::wanted_sums(call)) {
      if (number >= call.neuron.kernels->constants) break;
      Tensor& out = grad_constants[std::find(which.begin(), which.end(), number) - which.begin()];
      sums.push_back({out.mutable_data_ptr(), out.scalar_type() == ScalarType::Double, out.numel() == 1});
    }
    return sums;
  }

  // Gives a call partial sums and adds them up; `more` are behind these, for a call of norm.h.
  template <class Call, class... Finish>
  static void launch_with_sums(Call& call, const Tensor& like, const std::vector<cuda::Sum>& sums, int64_t more = 0,
                               const Finish&... finish) {
    const int64_t count = static_cast<int64_t>(sums.size()) + more;
    const Tensor partial =
        torch::stable::new_empty(like, {count * cuda::partial_size(call.g)}, ScalarType::Double);
    call.sums = count > 0 ? partial.mutable_data_ptr<double>() : nullptr;
    launch(call, current_stream(like));
    if (count == 0) return;
    add_up(call, sums, current_stream(like), finish...);
    check_launch();
  }
  // What becomes of running statistics.
  template <class Call, class Finish>
  static void without_partial_sums(const Call& call, const Tensor& like, const Finish& finish) {
    cuda::launch_sums(call.g, call.dtype, nullptr, nullptr, {}, finish, current_stream(like));
    check_launch();
  }
  template <class Call>
  static void add_up(const Call& call, const std::vector<cuda::Sum>& sums, cudaStream_t stream) {
    cuda::launch_sums(call.g, call.sums, sums, stream);
  }
  template <class Call, class Finish>
  static void add_up(const Call& call, const std::vector<cuda::Sum>& sums, cudaStream_t stream, const Finish& finish,
                     unsigned* ticket = nullptr) {
    cuda::launch_sums(call.g, call.dtype, call.sums, ticket, sums, finish, stream);
  }

  template <class Call>
  static void without_sums(const Call& call, const Tensor& x) {
    if (call.g.N > 0 && call.g.T > 0) launch(call, current_stream(x));
  }

  // Runs a pass whose sums of each channel are the rows of `out`.
  template <class Call>
  static void with_sums(Call& call, Tensor& out) {
    if (call.g.N == 0 || call.g.T == 0) {
      torch::stable::zero_(out);
      return;
    }
    std::vector<cuda::Sum> sums;
    for (int64_t row = 0; row < out.size(0); ++row) sums.push_back(row_of(out, row));
    launch_with_sums(call, out, sums);
  }
};

bool has_cuda_kernel(std::string name, bool is_double) { return cuda::find(name.c_str(), is_double) != nullptr; }

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
  m.def("has_cuda_kernel(str name, bool double) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CUDA, m) {
  STDANO_IMPLEMENT(m, stdano::Cuda);
  STDANO_IMPLEMENT_CHANNELS(m, stdano::Cuda);
  STDANO_IMPLEMENT_BITS(m, stdano::Cuda);
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cuda_build", TORCH_BOX(&stdano::cuda_build));
  m.impl("cuda_code_error", TORCH_BOX(&stdano::cuda_code_error));
  m.impl("has_cuda_kernel", TORCH_BOX(&stdano::has_cuda_kernel));
}

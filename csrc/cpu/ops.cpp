// The operators on CPU tensors: parallel_for around the kernels of this processor's instruction set.
#include <string>

#include "../operators.h"
#include "kernels.h"

namespace stdano {
namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
};

std::vector<Level> supported_levels() {
  std::vector<Level> levels;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  levels.push_back({"x86-64-v2", &x86_64_v2::kernels});
  if (v3) levels.push_back({"x86-64-v3", &x86_64_v3::kernels});
  if (v4) levels.push_back({"x86-64-v4", &x86_64_v4::kernels});
#else
  levels.push_back({"generic", &generic::kernels});
#endif
  return levels;
}

Level& current_level() {
  static Level level = supported_levels().back();
  return level;
}

std::string cpu_capability(std::optional<std::string> wanted) {
  if (!wanted.has_value()) return current_level().name;
  std::string names;
  for (const Level& level : supported_levels()) {
    if (*wanted == level.name) {
      current_level() = level;
      return level.name;
    }
    names += std::string(names.empty() ? "" : ", ") + level.name;
  }
  STD_TORCH_CHECK(false, "stdano: cpu_capability must be one of ", names, " on this processor, got ", *wanted);
  return "";
}

// Work for a thread below which starting another one costs more than it saves.
int64_t grain(const Geometry& g, int64_t units) {
  const int64_t total = g.N * g.T;
  return total > 0 ? std::max<int64_t>(1, 32768 * units / total) : 1;
}

// How Operators<...> runs on CPU tensors.
struct Cpu {
  struct Guard {
    explicit Guard(const Tensor& x) { STD_TORCH_CHECK(x.is_cpu(), "stdano: x must be a CPU tensor"); }
  };

  static int64_t checkpoint_steps(Dtype) { return kCheckpointSteps; }

  static void forward(const ForwardCall& call, const Tensor&) {
    const Kernels& kernels = *current_level().kernels;
    const int64_t blocks = kernels.blocks(call.g);
    torch::stable::parallel_for(0, blocks, grain(call.g, blocks),
                                [&](int64_t begin, int64_t end) { kernels.forward(call, begin, end); });
  }

  static void backward(BackwardCall& call, const Tensor& x, Tensor& grad_tau, Tensor& grad_threshold) {
    const Kernels& kernels = *current_level().kernels;
    const bool by_channel = call.tau || call.threshold || call.o.soft_spike || call.o.dtype == Dtype::float64;
    const int64_t slabs = kernels.slabs(call.g, by_channel);
    std::vector<double> partial(by_channel ? slabs * 2 * call.g.channels : 0, 0.0);  // [slabs][2][channels]
    call.grad_constants = partial.data();
    torch::stable::parallel_for(0, slabs, grain(call.g, slabs),
                                [&](int64_t begin, int64_t end) { kernels.backward(call, begin, end); });
    if (call.tau) sum_constants(partial, slabs, call.g.channels, 0, x, grad_tau);
    if (call.threshold) sum_constants(partial, slabs, call.g.channels, 1, x, grad_threshold);
  }

 private:
  // The sums over slabs, for a tensor of one element also over channels, in a fixed order.
  static void sum_constants(const std::vector<double>& partial, int64_t slabs, int64_t channels, int64_t which,
                            const Tensor& x, Tensor& out) {
    std::vector<double> sums(channels, 0.0);
    for (int64_t s = 0; s < slabs; ++s) {
      for (int64_t c = 0; c < channels; ++c) sums[c] += partial[(s * 2 + which) * channels + c];
    }
    if (out.numel() == 1) {
      for (int64_t c = 1; c < channels; ++c) sums[0] += sums[c];
    }
    for (int64_t c = 0; c < out.numel(); ++c) {
      if (compute_dtype(x) == ScalarType::Double) {
        out.mutable_data_ptr<double>()[c] = sums[c];
      } else {
        out.mutable_data_ptr<float>()[c] = static_cast<float>(sums[c]);
      }
    }
  }
};

}  // namespace
}  // namespace stdano

STABLE_TORCH_LIBRARY_IMPL(stdano, CPU, m) { STDANO_IMPLEMENT(m, stdano::Cpu); }

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&stdano::cpu_capability));
}

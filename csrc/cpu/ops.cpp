// The operators on CPU tensors: parallel_for around the kernels of this processor's instruction set.
#include <numeric>
#include <string>

#include "../channel_operators.h"
#include "kernels.h"

namespace stdano {
namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
};

std::vector<Level> supported_levels() {
  std::vector<Level> levels{{"generic", &generic::kernels}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v3) levels.push_back({"x86-64-v3", &x86_64_v3::kernels});
  if (v4) levels.push_back({"x86-64-v4", &x86_64_v4::kernels});
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

  static void backward(BackwardCall& call, const Tensor& x, Tensor& grad_tau, Tensor& grad_threshold,
                       Tensor& affine_sums) {
    const Kernels& kernels = *current_level().kernels;
    const bool by_channel =
        call.tau || call.threshold || call.affine || call.o.soft_spike || call.o.dtype == Dtype::float64;
    const int64_t slabs = kernels.slabs(call.g, by_channel);
    std::vector<double> partial(by_channel ? slabs * constant_sums * call.g.channels : 0, 0.0);
    call.grad_constants = partial.data();
    torch::stable::parallel_for(0, slabs, grain(call.g, slabs),
                                [&](int64_t begin, int64_t end) { kernels.backward(call, begin, end); });
    // A tensor of one element beside one for each channel gets the sum over all channels.
    const auto sum = [&](ConstantSum which, Tensor& out) {
      std::vector<double> sums = sum_slabs(partial, slabs, constant_sums, which, call.g.channels);
      if (out.numel() == 1) sums = {std::accumulate(sums.begin(), sums.end(), 0.0)};
      for (int64_t c = 0; c < out.numel(); ++c) {
        if (out.scalar_type() == ScalarType::Double) {
          out.mutable_data_ptr<double>()[c] = sums[c];
        } else {
          out.mutable_data_ptr<float>()[c] = static_cast<float>(sums[c]);
        }
      }
    };
    if (call.tau) sum(sum_tau, grad_tau);
    if (call.threshold) sum(sum_threshold, grad_threshold);
    if (call.affine) write_sums(partial, slabs, constant_sums, sum_shift, call.g.channels, affine_sums);
  }

  static void encode(EncodeCall& call, Tensor& counts) { with_sums(call, kSuperNeurons, counts, &Kernels::encode); }

  static void decode(const DecodeCall& call, const Tensor&) {
    in_parallel(call, current_level().kernels->blocks(call.g), &Kernels::decode);
  }

  static void super_sums(SuperSumsCall& call, Tensor& sums) {
    with_sums(call, kSuperSums, sums, &Kernels::super_sums);
  }

  static void super_backward(const SuperBackwardCall& call, const Tensor&) {
    in_parallel(call, current_level().kernels->super_blocks(call.g), &Kernels::super_backward);
  }

  static void channel_sums(ChannelSumsCall& call, Tensor& sums) {
    with_sums(call, kChannelSums, sums, &Kernels::channel_sums);
  }

  static void channel_affine(const ChannelAffineCall& call, const Tensor&) {
    in_parallel(call, current_level().kernels->blocks(call.g), &Kernels::channel_affine);
  }

 private:
  template <class Call>
  using Pass = void (*Kernels::*)(const Call&, int64_t begin, int64_t end);

  template <class Call>
  static void in_parallel(const Call& call, int64_t units, Pass<Call> pass) {
    const Kernels& kernels = *current_level().kernels;
    torch::stable::parallel_for(0, units, grain(call.g, units),
                                [&](int64_t begin, int64_t end) { (kernels.*pass)(call, begin, end); });
  }

  // Runs a pass that takes `count` sums of each channel, and adds its slabs' up into out [count][channels].
  template <class Call>
  static void with_sums(Call& call, int64_t count, Tensor& out, Pass<Call> pass) {
    const int64_t slabs = current_level().kernels->channel_slabs(call.g);
    std::vector<double> partial(slabs * count * call.g.channels, 0.0);
    call.sums = partial.data();
    in_parallel(call, slabs, pass);
    write_sums(partial, slabs, count, 0, call.g.channels, out);
  }

  // Partial sums are [slabs][count][channels]; they are added up in the order of the slabs.
  static std::vector<double> sum_slabs(const std::vector<double>& partial, int64_t slabs, int64_t count,
                                       int64_t which, int64_t channels) {
    std::vector<double> sums(channels, 0.0);
    for (int64_t s = 0; s < slabs; ++s) {
      for (int64_t c = 0; c < channels; ++c) sums[c] += partial[(s * count + which) * channels + c];
    }
    return sums;
  }

  // The sums from number `first` on, as many as out has rows.
  static void write_sums(const std::vector<double>& partial, int64_t slabs, int64_t count, int64_t first,
                         int64_t channels, Tensor& out) {
    for (int64_t row = 0; out.numel() > 0 && row < out.size(0); ++row) {
      const std::vector<double> sums = sum_slabs(partial, slabs, count, first + row, channels);
      std::copy(sums.begin(), sums.end(), out.mutable_data_ptr<double>() + row * channels);
    }
  }
};

}  // namespace
}  // namespace stdano

STABLE_TORCH_LIBRARY_IMPL(stdano, CPU, m) {
  STDANO_IMPLEMENT(m, stdano::Cpu);
  STDANO_IMPLEMENT_CHANNELS(m, stdano::Cpu);
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&stdano::cpu_capability));
}

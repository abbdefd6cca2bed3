// The operators on CPU tensors: parallel_for around the kernels of this processor's instruction set.
#include <atomic>
#include <map>
#include <mutex>
#include <numeric>
#include <string>

#include "../bits.h"
#include "../channel_operators.h"
#include "../norm.h"
#include "kernels.h"

namespace stdano {
namespace {

struct Level {
  const char* name;
  const CpuKernels* kernels;
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

// Neurons by name, of a level: those of this library, and what was compiled at its first use.
std::map<std::string, const NeuronKernels*>& neurons_of(const std::string& level) {
  static std::map<std::string, std::map<std::string, const NeuronKernels*>> all = [] {
    std::map<std::string, std::map<std::string, const NeuronKernels*>> found;
    for (const Level& l : supported_levels()) {
      for (int i = 0; i < l.kernels->neuron_count; ++i) {
        const NeuronKernels& neuron = l.kernels->neurons[i];
        if (neuron.of_float) found[l.name][neuron.name] = &neuron;
        if (neuron.of_double) found[l.name][std::string(neuron.name) + " double"] = &neuron;
      }
    }
    return found;
  }();
  return all[level];
}

std::mutex neurons_lock;

const NeuronKernels* look_up(const std::string& name, bool is_double) {
  const std::lock_guard<std::mutex> lock(neurons_lock);
  const auto& neurons = neurons_of(current_level().name);
  const auto found = neurons.find(is_double ? name + " double" : name);
  return found == neurons.end() ? nullptr : found->second;
}

bool has_kernel(std::string name, bool is_double) { return look_up(name, is_double) != nullptr; }

// `table`: the address of a NeuronKernels that was compiled for the current level and stays in memory.
void add_kernels(int64_t table) {
  const NeuronKernels* neuron = reinterpret_cast<const NeuronKernels*>(table);
  const std::lock_guard<std::mutex> lock(neurons_lock);
  auto& neurons = neurons_of(current_level().name);
  if (neuron->of_float) neurons[neuron->name] = neuron;
  if (neuron->of_double) neurons[std::string(neuron->name) + " double"] = neuron;
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

  using Kernels = NeuronKernels;
  static const NeuronKernels* find(const std::string& name, const Tensor& x) {
    const NeuronKernels* found = look_up(name, x.scalar_type() == ScalarType::Double);
    STD_TORCH_CHECK(found, "stdano: no CPU kernel ", name, " has been compiled or loaded in this process");
    return found;
  }

  static int64_t checkpoint_steps(Dtype) { return kCheckpointSteps; }

  static void forward(const ForwardCall<NeuronKernels>& call, const Tensor&) {
    in_parallel(call.g, call, current_level().kernels->blocks(call.g), &CpuKernels::forward);
  }

  static void backward(BackwardCall<NeuronKernels>& call, const Tensor& x, const std::vector<int64_t>& which,
                       std::vector<Tensor>& grad_constants, Tensor& affine_sums) {
    const std::vector<double> sums = backward_sums(call, which, grad_constants);
    if (call.affine) std::copy(sums.end() - affine_sums.numel(), sums.end(), affine_sums.mutable_data_ptr<double>());
  }

  static void norm_forward(const NormForwardCall& norm, const ForwardCall<NeuronKernels>& call, const Tensor& x) {
    const int64_t groups = norm.training ? current_level().kernels->groups(call.g) : 0;
    std::vector<double> sums(kChannelSums * call.g.channels, 0.0);
    if (groups > 0) return in_parallel(call.g, NormScan{norm, call, sums.data()}, groups, &CpuKernels::norm_forward);
    if (norm.training) {
      sums = channel_sums_of(ChannelSumsCall{call.of_x(), call.dtype, call.x, nullptr}, kChannelSums,
                             &CpuKernels::channel_sums);
    }
    finish<NormForward>(norm, call.dtype, sums.data());
    forward(call, x);
  }

  static void norm_backward(const NormBackwardCall& norm, BackwardCall<NeuronKernels>& call, const Tensor& x,
                            const std::vector<int64_t>& which, std::vector<Tensor>& grad_constants) {
    const Geometry& g = call.g;
    const ChannelAffineCall affine{call.of_x(), call.dtype, call.grad_x, call.x, norm.table, call.grad_x};
    const int64_t groups = current_level().kernels->groups(g), count = call.neuron.kernels->constants;
    if (groups > 0) {
      std::vector<double> sums((count + 2) * g.channels, 0.0);
      call.sums = sums.data();
      in_parallel(g, NormScanBackward{norm, call, affine}, groups, &CpuKernels::norm_backward);
      return write_constants(call, sums, which, grad_constants);
    }
    const std::vector<double> sums = backward_sums(call, which, grad_constants);
    finish<NormBackward>(norm, call.dtype, sums.data() + count * g.channels);
    channel_affine(affine, x);
  }

  static void mixture_forward(const MixtureForwardCall& mixture, EncodeCall<NeuronKernels>& call,
                              const DecodeCall& to_y, const Tensor& x) {
    const std::vector<double> counts = channel_sums_of(call, mixture.members, &CpuKernels::encode);
    finish<MixtureForward>(mixture, call.dtype, counts.data());
    decode(to_y, x);
  }

  static void mixture_backward(const MixtureBackwardCall& mixture, SuperSumsCall& call,
                               const SuperBackwardCall<NeuronKernels>& to_x, const Tensor& x) {
    const std::vector<double> sums = channel_sums_of(call, 1 + mixture.members, &CpuKernels::super_sums);
    finish<MixtureBackward>(mixture, call.dtype, sums.data());
    for (int64_t k = 0; k < mixture.members; ++k) {
      const double* row = mixture.of_weights + k * call.g.channels;
      write_number(mixture.grad_weights, call.dtype, k, std::accumulate(row, row + call.g.channels, 0.0));
    }
    super_backward(to_x, x);
  }

  static void encode(EncodeCall<NeuronKernels>& call, Tensor& counts) {
    write_sums(channel_sums_of(call, static_cast<int64_t>(call.members.size()), &CpuKernels::encode), counts);
  }

  static void decode(const DecodeCall& call, const Tensor&) {
    in_parallel(call.g, call, current_level().kernels->blocks(call.g), &CpuKernels::decode);
  }

  static void super_sums(SuperSumsCall& call, Tensor& sums) {
    write_sums(channel_sums_of(call, 1 + call.members, &CpuKernels::super_sums), sums);
  }

  static void super_backward(const SuperBackwardCall<NeuronKernels>& call, const Tensor&) {
    in_parallel(call.g, call, current_level().kernels->super_blocks(call.g), &CpuKernels::super_backward);
  }

  static void channel_sums(ChannelSumsCall& call, Tensor& sums) {
    write_sums(channel_sums_of(call, kChannelSums, &CpuKernels::channel_sums), sums);
  }

  static void channel_affine(const ChannelAffineCall& call, const Tensor&) {
    in_parallel(call.g, call, current_level().kernels->blocks(call.g), &CpuKernels::channel_affine);
  }

  static constexpr bool kMarksWrong = false;
  static bool pack(const BitsCall& call, const Tensor&) {
    if (!packing::pack(call, 0, 1)) return false;  // most tensors that are no spikes; not worth waking other threads
    std::atomic<bool> exact{true};
    parts_in_parallel(call, 1, [&](int64_t begin, int64_t end) {
      if (exact && !packing::pack(call, begin, end)) exact = false;
    });
    return exact;
  }

  static void unpack(const BitsCall& call, const Tensor&) {
    parts_in_parallel(call, 0, [&](int64_t begin, int64_t end) { packing::unpack(call, begin, end); });
  }

 private:
  template <class F>
  static void parts_in_parallel(const BitsCall& call, int64_t first, F f) {
    torch::stable::parallel_for(first, packing::count_parts(call), 32, f);
  }

  template <class Call>
  using Pass = void (*CpuKernels::*)(const Call&, int64_t begin, int64_t end);

  template <class Call>
  static void in_parallel(const Geometry& g, const Call& call, int64_t units, Pass<Call> pass) {
    const CpuKernels& kernels = *current_level().kernels;
    torch::stable::parallel_for(0, units, grain(g, units),
                                [&](int64_t begin, int64_t end) { (kernels.*pass)(call, begin, end); });
  }

  // Runs a pass that takes `count` sums of each channel: [count][channels], the slabs' added up.
  template <class Call>
  static std::vector<double> channel_sums_of(Call call, int64_t count, Pass<Call> pass) {
    const int64_t slabs = current_level().kernels->channel_slabs(call.g), size = count * call.g.channels;
    std::vector<double> partial(slabs * size, 0.0);
    call.sums = partial.data();
    in_parallel(call.g, call, slabs, pass);
    return sum_slabs(partial, slabs, size);
  }

  // Runs a neuron backward: all its sums [constants + 2][channels], of which those for constants have been written.
  static std::vector<double> backward_sums(BackwardCall<NeuronKernels>& call, const std::vector<int64_t>& which,
                                           std::vector<Tensor>& grad_constants) {
    const bool wanted = !which.empty() || call.affine;
    const int64_t slabs = current_level().kernels->slabs(call.g, wanted);
    const int64_t size = (call.neuron.kernels->constants + 2) * call.g.channels;
    std::vector<double> partial(wanted ? slabs * size : 0, 0.0);
    call.sums = partial.data();
    in_parallel(call.g, call, slabs, &CpuKernels::backward);
    const std::vector<double> sums = sum_slabs(partial, wanted ? slabs : 0, size);
    write_constants(call, sums, which, grad_constants);
    return sums;
  }

  // Partial sums are [slabs][size]; they are added up in the order of the slabs.
  static std::vector<double> sum_slabs(const std::vector<double>& partial, int64_t slabs, int64_t size) {
    std::vector<double> sums(size, 0.0);
    for (int64_t s = 0; s < slabs; ++s) {
      for (int64_t i = 0; i < size; ++i) sums[i] += partial[s * size + i];
    }
    return sums;
  }

  static void write_constants(const BackwardCall<NeuronKernels>& call, const std::vector<double>& sums,
                              const std::vector<int64_t>& which, std::vector<Tensor>& grad_constants) {
    for (size_t i = 0; i < which.size(); ++i) {
      if (call.neuron.constants[which[i]].per_neuron) continue;
      // A tensor of one element beside one for each channel gets the sum over all channels.
      Tensor& out = grad_constants[i];
      const double* own = sums.data() + which[i] * call.g.channels;
      const bool one = out.numel() == 1;
      for (int64_t c = 0; c < out.numel(); ++c) {
        const double sum = one ? std::accumulate(own, own + call.g.channels, 0.0) : own[c];
        write_number(out.mutable_data_ptr(), call.dtype, c, sum);
      }
    }
  }

  static void write_number(void* to, Dtype dtype, int64_t at, double value) {
    if (dtype == Dtype::float64) {
      static_cast<double*>(to)[at] = value;
    } else {
      static_cast<float*>(to)[at] = static_cast<float>(value);
    }
  }

  static void write_sums(const std::vector<double>& sums, Tensor& out) {
    if (out.numel() > 0) std::copy(sums.begin(), sums.end(), out.mutable_data_ptr<double>());
  }

  template <template <class> class Finish, class Call>
  static void finish(const Call& call, Dtype dtype, const double* sums) {
    if (dtype == Dtype::float64) {
      finish_channels(Finish<double>{call}, sums, 0, call.channels);
    } else {
      finish_channels(Finish<float>{call}, sums, 0, call.channels);
    }
  }
};

}  // namespace
}  // namespace stdano

STABLE_TORCH_LIBRARY_IMPL(stdano, CPU, m) {
  STDANO_IMPLEMENT(m, stdano::Cpu);
  STDANO_IMPLEMENT_CHANNELS(m, stdano::Cpu);
  STDANO_IMPLEMENT_BITS(m, stdano::Cpu);
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&stdano::cpu_capability));
  m.impl("has_kernel", TORCH_BOX(&stdano::has_kernel));
  m.impl("add_kernels", TORCH_BOX(&stdano::add_kernels));
}

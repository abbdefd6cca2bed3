// The operators on CPU tensors: parallel_for around the kernels of this processor's instruction set.
#include <map>
#include <mutex>
#include <numeric>
#include <string>

#include "../channel_operators.h"
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
    in_parallel(call, current_level().kernels->blocks(call.g), &CpuKernels::forward);
  }

  static void backward(BackwardCall<NeuronKernels>& call, const Tensor& x, const std::vector<int64_t>& which,
                       std::vector<Tensor>& grad_constants, Tensor& affine_sums) {
    const CpuKernels& kernels = *current_level().kernels;
    const bool sums = !which.empty() || call.affine;
    const int64_t slabs = kernels.slabs(call.g, sums), count = call.neuron.kernels->constants + 2;
    std::vector<double> partial(sums ? slabs * count * call.g.channels : 0, 0.0);
    call.sums = partial.data();
    in_parallel(call, slabs, &CpuKernels::backward);
    for (size_t i = 0; i < which.size(); ++i) {
      if (call.neuron.constants[which[i]].per_neuron) continue;
      // A tensor of one element beside one for each channel gets the sum over all channels.
      Tensor& out = grad_constants[i];
      std::vector<double> own = sum_slabs(partial, slabs, count, which[i], call.g.channels);
      if (out.numel() == 1) own = {std::accumulate(own.begin(), own.end(), 0.0)};
      for (int64_t c = 0; c < out.numel(); ++c) {
        if (out.scalar_type() == ScalarType::Double) {
          out.mutable_data_ptr<double>()[c] = own[c];
        } else {
          out.mutable_data_ptr<float>()[c] = static_cast<float>(own[c]);
        }
      }
    }
    if (call.affine) write_sums(partial, slabs, count, count - 2, call.g.channels, affine_sums);
  }

  static void encode(EncodeCall<NeuronKernels>& call, Tensor& counts) {
    with_sums(call, static_cast<int64_t>(call.members.size()), counts, &CpuKernels::encode);
  }

  static void decode(const DecodeCall& call, const Tensor&) {
    in_parallel(call, current_level().kernels->blocks(call.g), &CpuKernels::decode);
  }

  static void super_sums(SuperSumsCall& call, Tensor& sums) {
    with_sums(call, 1 + call.members, sums, &CpuKernels::super_sums);
  }

  static void super_backward(const SuperBackwardCall<NeuronKernels>& call, const Tensor&) {
    in_parallel(call, current_level().kernels->super_blocks(call.g), &CpuKernels::super_backward);
  }

  static void channel_sums(ChannelSumsCall& call, Tensor& sums) {
    with_sums(call, kChannelSums, sums, &CpuKernels::channel_sums);
  }

  static void channel_affine(const ChannelAffineCall& call, const Tensor&) {
    in_parallel(call, current_level().kernels->blocks(call.g), &CpuKernels::channel_affine);
  }

 private:
  template <class Call>
  using Pass = void (*CpuKernels::*)(const Call&, int64_t begin, int64_t end);

  template <class Call>
  static void in_parallel(const Call& call, int64_t units, Pass<Call> pass) {
    const CpuKernels& kernels = *current_level().kernels;
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
  m.impl("has_kernel", TORCH_BOX(&stdano::has_kernel));
  m.impl("add_kernels", TORCH_BOX(&stdano::add_kernels));
}

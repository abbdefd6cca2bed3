// One case of host_shim_main.cpp: a forward and a backward call of a neuron, given to the CUDA kernels on the host and
// to the CPU kernels.
#pragma once

#include "host_shim_arrays.h"

namespace {

// The neurons of a test: `ranges` are what their constants are taken from.
struct Range {
  double low, high;
};
struct TestNeuron {
  const NeuronKernels* cpu;
  std::vector<Range> ranges;
};

enum class Optional { any, all, none, states };
enum class Constants { numbers, channels, neurons, any };
constexpr const char* kConstants[] = {"numbers", "channels", "neurons", "any"};

struct Case {
  int number;
  const TestNeuron* neuron;
  Dtype dtype;
  Constants constants;
  bool affine;
  int64_t T, N, inner, channels, channel_stride;
  int shifted;
  Optional optional;  // states, sequences, checkpoints

  void print() const {
    std::printf("case %d: %s %s constants=%s affine=%d T=%lld N=%lld inner=%lld channels=%lld channel_stride=%lld ", number,
                neuron->cpu->name, kDtypes[static_cast<int>(dtype)], kConstants[static_cast<int>(constants)], affine,
                (long long)T, (long long)N, (long long)inner, (long long)channels, (long long)channel_stride);
    std::printf("shifted=%d optional=%d", shifted, static_cast<int>(optional));
  }
};

class Run : Arrays {
 public:
  explicit Run(const Case& c)
      : Arrays(c.number, c.shifted),
        c_(c),
        k_(*c.neuron->cpu),
        g_{c.T, c.N, c.inner, c.channels, c.channel_stride},
        all_(c.T * c.N),
        real_(compute_dtype(c.dtype)) {}

  bool passes() {
    make_constants();
    ForwardCall<NeuronInfo> on_device{g_, c_.dtype, member(device.find(k_.name, real_ == Dtype::float64))};
    ForwardCall<NeuronKernels> on_cpu{g_, c_.dtype, member(&k_)};
    // The order in which arrays are numbered for Case::shifted.
    on_device.x = on_cpu.x = values(all_, c_.dtype, -1.5, 2.5);
    on_device.affine = on_cpu.affine = c_.affine ? values(3 * c_.channels, real_, 0.25, 1.25) : nullptr;
    output("spikes", true, all_, c_.dtype, on_device.spikes, on_cpu.spikes);
    if (wanted()) on_device.state0 = on_cpu.state0 = states("state0");
    if (wanted()) outputs("state", k_.states, c_.N, real_, on_device.state, on_cpu.state);
    const bool some = wanted() && c_.optional != Optional::states;
    for (int64_t q = some ? 1 + random_.below(3) : 0; q > 0; --q) on_cpu.which.push_back(random_.below(k_.states));
    on_device.which = on_cpu.which;
    outputs("sequence", on_cpu.which.size(), all_, c_.dtype, on_device.sequences, on_cpu.sequences);
    const int64_t saved = checkpoints(real_ == Dtype::float64 ? kDeviceCheckpointStepsDouble : kDeviceCheckpointSteps);
    void* to = saved > 0 ? take(saved, real_) : nullptr;
    on_device.checkpoints = wanted() ? to : nullptr;
    std::vector<double> cpu_checkpoints(checkpoints(kCheckpointSteps));
    on_cpu.checkpoints = cpu_checkpoints.data();

    cpu_.forward(on_cpu, 0, cpu_.blocks(g_));
    device.forward(on_device);
    compare();
    if (to && !on_device.checkpoints) {  // backward needs them
      ForwardCall<NeuronInfo> again = on_device;
      again.state = again.sequences = {};
      again.which = {};
      again.checkpoints = to;
      again.spikes = nullptr;
      device.forward(again);
      compare();
    }
    forget_outputs();

    BackwardCall<NeuronInfo> back{g_, c_.dtype, on_device.neuron, on_device.x, on_device.affine};
    BackwardCall<NeuronKernels> cpu_back{g_, c_.dtype, on_cpu.neuron, on_cpu.x, on_cpu.affine};
    back.checkpoints = to;
    cpu_back.checkpoints = on_cpu.checkpoints;
    back.state0 = cpu_back.state0 = on_device.state0;
    back.grad_spikes = cpu_back.grad_spikes = values(all_, c_.dtype, -1, 1);
    if (wanted()) back.grad_state = cpu_back.grad_state = states("grad_state");
    if (!back.grad_state.empty() && random_.coin()) back.grad_state[0] = cpu_back.grad_state[0] = nullptr;
    if (wanted()) {
      back.which = cpu_back.which = on_cpu.which;
      for (size_t q = 0; q < back.which.size(); ++q) back.grad_sequences.push_back(values(all_, c_.dtype, -1, 1));
      cpu_back.grad_sequences = back.grad_sequences;
    }
    output("grad_x", true, all_, c_.dtype, back.grad_x, cpu_back.grad_x);
    outputs("grad_state0", back.state0.size(), c_.N, real_, back.grad_state0, cpu_back.grad_state0);
    back.grad_constants.resize(k_.constants);
    cpu_back.grad_constants.resize(k_.constants);
    for (int j = 0; j < k_.constants; ++j) {
      output("grad_constant", constants_[j].per_neuron, c_.N, real_, back.grad_constants[j], cpu_back.grad_constants[j]);
    }
    const std::vector<int> sums = device.wanted_sums(back);
    const int64_t partials = c_.N > 0 ? make_slices(g_).partials() : 0, count = k_.constants + 2;
    back.sums = sums.empty() ? nullptr : static_cast<double*>(take(sums.size() * partials, Dtype::float64));
    bool tables = c_.affine;
    for (const ConstantValue& c : constants_) tables = tables || c.data;
    const int64_t cpu_slabs = cpu_.slabs(g_, tables);
    std::vector<double> cpu_sums(cpu_slabs * count * c_.channels);
    cpu_back.sums = cpu_sums.data();

    cpu_.backward(cpu_back, 0, cpu_slabs);
    device.backward(back);
    compare();
    for (size_t index = 0; index < sums.size() && c_.N > 0; ++index) {
      // Within a neuron's sequence those of the map are sums of float, in two orders.
      const bool of_map = sums[index] >= k_.constants;
      const char* name = of_map ? (sums[index] == k_.constants ? "sum_shift" : "sum_scale") : "sum of a constant";
      const bool in_float = of_map && real_ == Dtype::float32;
      compare_sum(name, index, in_float ? 1e-4 : 1e-10, g_, back.sums, sums[index], cpu_sums.data(), cpu_slabs, count,
                  in_float ? 1e-6 * static_cast<double>(c_.T) : 0, !of_map && constants_[sums[index]].one);
    }
    return passes_;
  }

 private:
  void print() const override { c_.print(); }

  void make_constants() {
    alpha_ = random_.coin() ? 2 : 0.75;
    for (const Range& range : c_.neuron->ranges) {
      ConstantValue c{random_.uniform(range.low, range.high)};
      if (range.low < 1 && range.high > 1 && random_.coin()) c.value = 1;  // which x may meet exactly
      const auto kind = c_.constants == Constants::any ? static_cast<Constants>(random_.below(3)) : c_.constants;
      c.per_neuron = kind == Constants::neurons;
      const int64_t count = kind == Constants::channels ? c_.channels : kind == Constants::neurons ? c_.N : 0;
      if (kind != Constants::numbers) {
        void* to = take(count, real_);
        c.one = kind == Constants::channels && random_.below(3) == 0;
        for (int64_t i = 0; i < count; ++i) {
          if (i == 0 || !c.one) c.value = random_.uniform(range.low, range.high);
          put(to, i, real_, c.value);
        }
        c.data = to;
      }
      constants_.push_back(c);
    }
  }

  template <class Kernels>
  Member<Kernels> member(const Kernels* kernels) const {
    return {kernels, constants_, alpha_};
  }

  std::vector<const void*> states(const char*) {
    std::vector<const void*> out;
    for (int j = 0; j < k_.states; ++j) out.push_back(values(c_.N, real_, -1, 1.5));
    return out;
  }

  void outputs(const char* name, int64_t count, int64_t size, Dtype dtype, std::vector<void*>& device,
               std::vector<void*>& cpu) {
    for (int64_t j = 0; j < count; ++j) {
      device.push_back(nullptr);
      cpu.push_back(nullptr);
      output(name, true, size, dtype, device.back(), cpu.back());
    }
  }

  bool wanted() { return c_.optional == Optional::any ? random_.coin() : c_.optional != Optional::none; }
  int64_t checkpoints(int64_t steps) const { return c_.T > 0 ? (c_.T - 1) / steps * k_.states * c_.N : 0; }

  Case c_;
  const NeuronKernels& k_;
  Geometry g_;
  int64_t all_;
  Dtype real_;
  std::vector<ConstantValue> constants_;
  double alpha_ = 1;
  const CpuKernels& cpu_ = generic::kernels;
};

}  // namespace

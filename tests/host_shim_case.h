// One case of host_shim_main.cpp: a forward and a backward call with random numbers, given to the CUDA kernels on the
// host and to the CPU kernels. Each array is an allocation of its own, to the byte, so that the address sanitizer sees
// whatever lies outside.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "half.h"
#include "host_shim.h"
#include "surrogates.h"

namespace {

using namespace stdano;
using namespace stdano::host_program;

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  bool coin() { return below(2) != 0; }
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53; }
};

constexpr int64_t kSizes[] = {4, 8, 2, 2};  // in the order of Dtype

void put(void* to, int64_t i, Dtype dtype, double value) {
  const float rounded = static_cast<float>(value);
  switch (dtype) {
    case Dtype::float32: static_cast<float*>(to)[i] = rounded; break;
    case Dtype::float64: static_cast<double*>(to)[i] = value; break;
    case Dtype::bfloat16: static_cast<bfloat16*>(to)[i] = convert(rounded, bfloat16()); break;
    case Dtype::float16: static_cast<float16*>(to)[i] = convert(rounded, float16()); break;
  }
}

// Which arrays begin one element behind a multiple of 16 bytes.
constexpr int kNone = -1, kAny = -2, kAll = -3;  // or the number of a single one, in the order of Run

enum class Optional { any, all, none };

struct Case {
  int number;
  Neuron neuron;
  Dtype dtype;
  bool soft_reset, soft_spike, tau, threshold;
  int64_t T, N, inner, channels, channel_stride;
  int shifted;
  Optional optional;  // states, v_seq, checkpoints

  void print() const {
    static const char* neurons[] = {"LIF", "LLIF", "SLIF"};
    static const char* dtypes[] = {"float32", "float64", "bfloat16", "float16"};
    std::printf("case %d: %s %s %s%s%s%s T=%lld N=%lld inner=%lld channels=%lld channel_stride=%lld shifted=%d", number,
                neurons[static_cast<int>(neuron)], dtypes[static_cast<int>(dtype)],
                soft_reset ? "soft reset" : "hard reset", soft_spike ? " soft spikes" : "", tau ? " tau" : "",
                threshold ? " threshold" : "", (long long)T, (long long)N, (long long)inner, (long long)channels,
                (long long)channel_stride, shifted);
  }
};

class Run {
 public:
  explicit Run(const Case& c)
      : c_(c),
        random_{static_cast<uint64_t>(c.number)},
        real_(c.dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32),
        state_rows_(c.neuron == Neuron::lif ? 1 : 2) {}

  bool passes() {
    const Device& device = devices[static_cast<int>(c_.neuron)];
    const Kernels& cpu = x86_64_v2::kernels;
    const bool adapt = state_rows_ == 2;
    const int64_t all = c_.T * c_.N;
    const int64_t steps = real_ == Dtype::float64 ? kDeviceCheckpointStepsDouble : kDeviceCheckpointSteps;

    ForwardCall on_device{};
    on_device.g = {c_.T, c_.N, c_.inner, c_.channels, c_.channel_stride};
    on_device.o = options();
    // The order in which arrays are numbered for Case::shifted.
    on_device.x = values(all, c_.dtype, -1.5, 2.5);
    ForwardCall on_cpu = on_device;
    output("spikes", true, all, c_.dtype, on_device.spikes, on_cpu.spikes);
    output("v_seq", wanted(), all, c_.dtype, on_device.v_seq, on_cpu.v_seq);
    on_device.v0 = wanted() ? values(c_.N, real_, -1, 1) : nullptr;
    on_device.adapt0 = adapt && wanted() ? values(c_.N, real_, -0.5, 1.5) : nullptr;
    output("v", wanted(), c_.N, real_, on_device.v, on_cpu.v);
    output("adapt", adapt && wanted(), c_.N, real_, on_device.adapt, on_cpu.adapt);
    const int64_t saved = checkpoints(steps);
    void* to = saved > 0 ? take(saved, real_) : nullptr;
    on_device.checkpoints = wanted() ? to : nullptr;
    on_device.tau = c_.tau ? values(c_.channels, real_, 0.6, 4) : nullptr;
    on_device.threshold = c_.threshold ? values(c_.channels, real_, 0.25, 1.25) : nullptr;
    on_cpu.v0 = on_device.v0;
    on_cpu.adapt0 = on_device.adapt0;
    on_cpu.tau = on_device.tau;
    on_cpu.threshold = on_device.threshold;
    std::vector<double> cpu_checkpoints(checkpoints(kCheckpointSteps));
    on_cpu.checkpoints = cpu_checkpoints.data();

    cpu.forward(on_cpu, 0, cpu.blocks(on_cpu.g));
    device.forward(on_device);
    compare();
    if (to && !on_device.checkpoints) {  // backward needs them
      ForwardCall again = on_device;
      again.v = again.adapt = again.v_seq = nullptr;
      again.checkpoints = to;
      device.forward(again);
      compare();
    }
    outputs_.clear();

    BackwardCall back{};
    back.g = on_device.g;
    back.o = on_device.o;
    back.x = on_device.x;
    back.v0 = on_device.v0;
    back.adapt0 = on_device.adapt0;
    back.tau = on_device.tau;
    back.threshold = on_device.threshold;
    back.checkpoints = to;
    back.grad_spikes = values(all, c_.dtype, -1, 1);
    back.grad_v = wanted() ? values(c_.N, real_, -1, 1) : nullptr;
    back.grad_adapt = adapt && wanted() ? values(c_.N, real_, -1, 1) : nullptr;
    back.grad_v_seq = wanted() ? values(all, c_.dtype, -1, 1) : nullptr;
    BackwardCall cpu_back = back;
    cpu_back.checkpoints = on_cpu.checkpoints;
    output("grad_x", true, all, c_.dtype, back.grad_x, cpu_back.grad_x);
    output("grad_v0", wanted(), c_.N, real_, back.grad_v0, cpu_back.grad_v0);
    output("grad_adapt0", adapt && wanted(), c_.N, real_, back.grad_adapt0, cpu_back.grad_adapt0);
    int64_t columns = 1, slabs = 0;
    if (c_.tau || c_.threshold) {
      if (c_.N > 0) device.slices(back.g, &columns, &slabs);
      back.grad_constants = static_cast<double*>(take(2 * slabs * columns, Dtype::float64));
    }
    const bool by_channel = c_.tau || c_.threshold || c_.soft_spike || c_.dtype == Dtype::float64;
    const int64_t cpu_slabs = cpu.slabs(back.g, by_channel);
    std::vector<double> cpu_sums(cpu_slabs * 2 * c_.channels);
    cpu_back.grad_constants = cpu_sums.data();

    cpu.backward(cpu_back, 0, cpu_slabs);
    device.backward(back);
    compare();
    if (back.grad_constants) compare_sums(back.grad_constants, slabs, columns, cpu_sums.data(), cpu_slabs);
    return passes_;
  }

 private:
  struct Output {
    const char* name;
    const void *device, *cpu;
    int64_t count, size;
  };

  Options options() {
    Options o{};
    o.neuron = c_.neuron;
    o.dtype = c_.dtype;
    o.soft_reset = c_.soft_reset;
    o.soft_spike = c_.soft_spike;
    o.linear_decay = random_.coin();
    o.decay_input = random_.coin();
    o.detach_reset = random_.below(4) == 0;
    o.detach_adapt = random_.below(4) == 0;
    o.surrogate = random_.below(surrogate_count);
    o.v_reset = c_.soft_reset || random_.coin() ? 0 : -0.25;
    o.rate = 0.4;
    o.tau_min = 1.25;
    o.alpha = random_.coin() ? 2 : 0.75;
    o.tau = 2;
    o.threshold = random_.coin() ? 1 : 0.7;
    return o;
  }

  bool wanted() { return c_.optional == Optional::all || (c_.optional == Optional::any && random_.coin()); }
  int64_t checkpoints(int64_t steps) const { return c_.T > 0 ? (c_.T - 1) / steps * state_rows_ * c_.N : 0; }

  void* take(int64_t count, Dtype dtype) {
    const int64_t size = kSizes[static_cast<int>(dtype)];
    const bool shift = c_.shifted == kAll || c_.shifted == taken_ || (c_.shifted == kAny && random_.coin());
    ++taken_;
    memory_.emplace_back(static_cast<char*>(std::malloc(count * size + (shift ? size : 0))), std::free);
    return memory_.back().get() + (shift ? size : 0);
  }

  // Random numbers, with zeros, and with ones: those meet a threshold of 1 exactly.
  const void* values(int64_t count, Dtype dtype, double low, double high) {
    void* to = take(count, dtype);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t kind = low < 0 ? random_.below(8) : 7;
      put(to, i, dtype, kind == 0 ? 0 : (kind == 1 ? 1 : random_.uniform(low, high)));
    }
    return to;
  }

  // Filled differently on both sides, so that an element that nobody writes is a mismatch.
  void output(const char* name, bool wanted, int64_t count, Dtype dtype, void*& device, void*& cpu) {
    if (!wanted) return;
    const int64_t size = kSizes[static_cast<int>(dtype)];
    device = take(count, dtype);
    memory_.emplace_back(static_cast<char*>(std::malloc(count * size)), std::free);
    cpu = memory_.back().get();
    std::memset(device, 0xAB, count * size);
    std::memset(cpu, 0xCD, count * size);
    outputs_.push_back({name, device, cpu, count, size});
  }

  void fail(const char* name, int64_t at) {
    if (passes_) c_.print();
    std::printf("%s %s at %lld", passes_ ? " MISMATCH:" : ",", name, (long long)at);
    passes_ = false;
  }

  void compare() {
    for (const Output& o : outputs_) {
      const char *device = static_cast<const char*>(o.device), *cpu = static_cast<const char*>(o.cpu);
      for (int64_t i = 0; i < o.count; ++i) {
        if (std::memcmp(device + i * o.size, cpu + i * o.size, o.size) == 0) continue;
        fail(o.name, i);
        break;
      }
    }
  }

  // [2][slabs][columns] here, [slabs][2][channels] there. The terms are the same, their order is not.
  void compare_sums(const double* device, int64_t slabs, int64_t columns, const double* cpu, int64_t cpu_slabs) {
    for (int64_t which = 0; which < 2; ++which) {
      for (int64_t channel = 0; channel < c_.channels; ++channel) {
        double sum = 0, size = 0, expected = 0;
        for (int64_t i = 0; i < slabs * columns; ++i) {
          if (c_.channels > 1 && i % columns / c_.channel_stride != channel) continue;
          sum += device[which * slabs * columns + i];
          size += std::fabs(device[which * slabs * columns + i]);
        }
        for (int64_t s = 0; s < cpu_slabs; ++s) expected += cpu[(s * 2 + which) * c_.channels + channel];
        if (!(std::fabs(sum - expected) <= 1e-10 * size)) fail(which == 0 ? "grad_tau" : "grad_threshold", channel);
      }
    }
  }

  Case c_;
  Random random_;
  Dtype real_;
  int64_t state_rows_;
  int taken_ = 0;
  bool passes_ = true;
  std::vector<std::unique_ptr<char, void (*)(void*)>> memory_;
  std::vector<Output> outputs_;
};

}  // namespace

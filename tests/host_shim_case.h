// One case of host_shim_main.cpp: a forward and a backward call of a neuron, given to the CUDA kernels on the host and
// to the CPU kernels.
#pragma once

#include "host_shim_arrays.h"

namespace {

enum class Optional { any, all, none };

struct Case {
  int number;
  Neuron neuron;
  Dtype dtype;
  bool soft_reset, soft_spike, tau, threshold, affine;
  int64_t T, N, inner, channels, channel_stride;
  int shifted;
  Optional optional;  // states, v_seq, checkpoints

  void print() const {
    static const char* neurons[] = {"LIF", "LLIF", "SLIF"};
    std::printf("case %d: %s %s %s%s%s%s%s ", number, neurons[static_cast<int>(neuron)],
                kDtypes[static_cast<int>(dtype)], soft_reset ? "soft reset" : "hard reset",
                soft_spike ? " soft spikes" : "", tau ? " tau" : "", threshold ? " threshold" : "",
                affine ? " affine" : "");
    std::printf("T=%lld N=%lld inner=%lld channels=%lld channel_stride=%lld shifted=%d", (long long)T, (long long)N,
                (long long)inner, (long long)channels, (long long)channel_stride, shifted);
  }
};

class Run : Arrays {
 public:
  explicit Run(const Case& c)
      : Arrays(c.number, c.shifted),
        c_(c),
        real_(compute_dtype(c.dtype)),
        state_rows_(c.neuron == Neuron::lif ? 1 : 2) {}

  bool passes() {
    const Device& device = devices[static_cast<int>(c_.neuron)];
    const Kernels& cpu = generic::kernels;
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
    on_device.affine = c_.affine ? values(3 * c_.channels, real_, 0.25, 1.25) : nullptr;
    on_cpu.v0 = on_device.v0;
    on_cpu.adapt0 = on_device.adapt0;
    on_cpu.tau = on_device.tau;
    on_cpu.threshold = on_device.threshold;
    on_cpu.affine = on_device.affine;
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
    forget_outputs();

    BackwardCall back{};
    back.g = on_device.g;
    back.o = on_device.o;
    back.x = on_device.x;
    back.v0 = on_device.v0;
    back.adapt0 = on_device.adapt0;
    back.tau = on_device.tau;
    back.threshold = on_device.threshold;
    back.affine = on_device.affine;
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
    if (c_.tau || c_.threshold || c_.affine) {
      if (c_.N > 0) device.slices(back.g, &columns, &slabs);
      const int64_t count = c_.affine ? constant_sums : sum_shift;
      back.grad_constants = static_cast<double*>(take(count * slabs * columns, Dtype::float64));
    }
    const bool by_channel = c_.tau || c_.threshold || c_.affine || c_.soft_spike || c_.dtype == Dtype::float64;
    const int64_t cpu_slabs = cpu.slabs(back.g, by_channel);
    std::vector<double> cpu_sums(cpu_slabs * constant_sums * c_.channels);
    cpu_back.grad_constants = cpu_sums.data();

    cpu.backward(cpu_back, 0, cpu_slabs);
    device.backward(back);
    compare();
    const auto sum = [&](bool wanted, const char* name, ConstantSum which, double tolerance) {
      if (!wanted) return;
      compare_sum(name, which, tolerance, back.g, back.grad_constants, slabs, columns, cpu_sums.data(), cpu_slabs,
                  constant_sums);
    };
    sum(c_.tau || c_.threshold, "grad_tau", sum_tau, 1e-10);
    sum(c_.tau || c_.threshold, "grad_threshold", sum_threshold, 1e-10);
    // Within a neuron's sequence these are sums of float, in two orders.
    sum(c_.affine, "sum_shift", sum_shift, c_.dtype == Dtype::float64 ? 1e-10 : 1e-4);
    sum(c_.affine, "sum_scale", sum_scale, c_.dtype == Dtype::float64 ? 1e-10 : 1e-4);
    return passes_;
  }

 private:
  void print() const override { c_.print(); }

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

  Case c_;
  Dtype real_;
  int64_t state_rows_;
};

}  // namespace

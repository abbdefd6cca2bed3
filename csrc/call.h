// What a kernel is told: plain numbers and pointers, no torch. Every compiled backend takes these.
#pragma once

#include <cstdint>

namespace stdano {

// Time steps between two checkpoints of the state, and so the longest sequence that keeps x alone for backward. A
// device recomputes them in registers, of which a thread has few; stdano_kernels/registration.py knows the numbers.
constexpr int64_t kCheckpointSteps = 16;
constexpr int64_t kDeviceCheckpointSteps = 8, kDeviceCheckpointStepsDouble = 4;

enum class Neuron { lif, llif, slif };
enum class Dtype { float32, float64, bfloat16, float16 };

// A dense tensor [T, ...] in memory order: [outer][T][inner]. Neuron m of N = outer*inner lies at
// (m / inner)*T*inner + t*inner + m % inner; states lie at m. Its channel is (m / channel_stride) % channels.
struct Geometry {
  int64_t T, N, inner, channels, channel_stride;
};

struct Options {
  Neuron neuron;
  Dtype dtype;            // of x, spikes, v_seq and their gradients; everything else is float32, or float64 with it
  bool soft_reset, linear_decay, decay_input, soft_spike, detach_reset, detach_adapt;
  int64_t surrogate;
  double v_reset, rate, tau_min, alpha;
  double tau, threshold;  // where the tensors below are null
};

// Null: not given, not wanted.
struct ForwardCall {
  Geometry g;
  Options o;
  const void *x, *v0, *adapt0, *tau, *threshold;
  void *spikes, *v, *adapt, *v_seq, *checkpoints;  // checkpoints [(T-1)/K][1 or 2][N]
};

struct BackwardCall {
  Geometry g;
  Options o;
  const void *x, *v0, *adapt0, *tau, *threshold, *checkpoints;
  const void *grad_spikes, *grad_v, *grad_adapt, *grad_v_seq;
  void *grad_x, *grad_v0, *grad_adapt0;
  double* grad_constants;  // partial sums for tau and threshold, in an order of the backend's own
};

}  // namespace stdano

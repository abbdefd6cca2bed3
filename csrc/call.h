// What a kernel is told: plain numbers and pointers, no torch. Every compiled backend takes these.
#pragma once

#include <cstdint>

namespace stdano {

// Time steps between two checkpoints of the state, and so the longest sequence that keeps x alone for backward. A
// device recomputes them in registers, of which a thread has few; stdano_kernels/fakes.py knows the numbers.
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

// Null: not given, not wanted. affine [3][channels] holds centre, scale and shift: the neuron's input is then
// scale*(x - centre) + shift.
struct ForwardCall {
  Geometry g;
  Options o;
  const void *x, *v0, *adapt0, *tau, *threshold, *affine;
  void *spikes, *v, *adapt, *v_seq, *checkpoints;  // checkpoints [(T-1)/K][1 or 2][N]
};

struct BackwardCall {
  Geometry g;
  Options o;
  const void *x, *v0, *adapt0, *tau, *threshold, *affine, *checkpoints;
  const void *grad_spikes, *grad_v, *grad_adapt, *grad_v_seq;
  void *grad_x, *grad_v0, *grad_adapt0;
  double* grad_constants;  // partial sums (ConstantSum), in an order of the backend's own
};

// What a backward call sums up for each channel: the gradients of tau, v_threshold and shift, and of scale, which is
// that of the neuron's input times x - centre.
enum ConstantSum { sum_tau, sum_threshold, sum_shift, sum_scale, constant_sums };

// The neurons of a super neuron: bit k of `present`, and of a code, is that of Neuron k; o[k] are its settings.
constexpr int kSuperNeurons = 3;
struct SuperNeurons {
  int64_t present;
  Options o[kSuperNeurons];
};

// Spikes of all neurons as a code each element, and for each neuron and channel their number.
struct EncodeCall {
  Geometry g;
  SuperNeurons neurons;
  const void* x;
  uint8_t* codes;
  double* sums;  // partial sums for kSuperNeurons counts
};

// y = table[0] + (spike of LIF: table[1]) + (of LLIF: table[2]) + (of SLIF: table[3]), added up in this order; table is
// [4][channels].
struct DecodeCall {
  Geometry g;
  Dtype dtype;  // of y
  const uint8_t* codes;
  const void* table;
  void* y;
};
constexpr int kDecodeRows = 1 + kSuperNeurons;

// Sums of a gradient for each channel: all of it, and that of the elements at which neuron k fired.
struct SuperSumsCall {
  Geometry g;
  Dtype dtype;
  const uint8_t* codes;
  const void* grad;
  double* sums;  // partial sums for kSuperSums
};
constexpr int kSuperSums = 1 + kSuperNeurons;

// grad_x = sum over k, from LIF to SLIF, of neuron k's adjoint for gs = fma(a, grad, fired ? fired_k : silent_k), where
// table [9][channels] holds a, silent and fired of LIF, of LLIF, of SLIF.
struct SuperBackwardCall {
  Geometry g;
  SuperNeurons neurons;
  const void *x, *grad, *table;
  const uint8_t* codes;
  void* grad_x;
};
constexpr int kSuperBackwardRows = 3 * kSuperNeurons;

// Sums of x and of x*x for each channel.
struct ChannelSumsCall {
  Geometry g;
  Dtype dtype;
  const void* x;
  double* sums;  // partial sums for kChannelSums
};
constexpr int kChannelSums = 2;

// out = grad + slope*(x - centre) + offset; table [3][channels] holds centre, slope and offset. out may be grad.
struct ChannelAffineCall {
  Geometry g;
  Dtype dtype;
  const void *grad, *x, *table;
  void* out;
};

}  // namespace stdano

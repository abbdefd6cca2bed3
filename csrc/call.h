// What a kernel is told: plain numbers and pointers, no torch. Every compiled backend takes these.
#pragma once

#include <cstdint>
#include <vector>

#include "rows.h"

namespace stdano {

// Time steps between two checkpoints of the state, and so the longest sequence that keeps x alone for backward. A
// device recomputes them in registers, of which a thread has few; stdano_kernels/fakes.py knows the numbers.
constexpr int64_t kCheckpointSteps = 16;
constexpr int64_t kDeviceCheckpointSteps = 8, kDeviceCheckpointStepsDouble = 1;

enum class Dtype { float32, float64, bfloat16, float16 };

// A dense tensor [T, ...] in memory order: [outer][T][inner]. Neuron m of N = outer*inner lies at
// (m / inner)*T*inner + t*inner + m % inner; states lie at m. Its channel is (m / channel_stride) % channels.
struct Geometry {
  int64_t T, N, inner, channels, channel_stride;
};

// Of one time step of what is like constant input.
inline Geometry one_step(const Geometry& g) { return {1, g.N, g.N, g.channels, g.channel_stride}; }

// A constant of a call: a number, or where `data` is given a tensor with an element for each channel, or for each neuron.
// `one`: the elements are the same, and so is what their gradient goes to.
struct ConstantValue {
  double value = 0;
  const void* data = nullptr;
  bool per_neuron = false, one = false;
};

// A neuron and its constants. `kernels` is the compiled one of a backend.
template <class Kernels>
struct Member {
  const Kernels* kernels;
  std::vector<ConstantValue> constants;
  double alpha;
};

// Null and empty: not given, not wanted. dtype is that of x, spikes, sequences and their gradients; everything else is
// float32, or float64 with it. affine [3][channels] holds centre, scale and shift: the neuron's input is then
// scale*(x - centre) + shift. A sequence is a state's values after every step: sequences[k] of state number which[k].
// Of constant input x has one step, which is that of all.
template <class Kernels>
struct ForwardCall {
  Geometry g;
  Dtype dtype;
  Member<Kernels> neuron;
  const void *x, *affine;
  std::vector<const void*> state0;
  void* spikes;
  std::vector<void*> state, sequences;
  std::vector<int64_t> which;
  void* checkpoints;  // [(T-1)/K][states][N]
  bool constant = false;

  Geometry of_x() const { return constant ? one_step(g) : g; }
};

// grad_constants[j] is where the gradient of constant j goes if that is one a neuron; of the others there are partial
// `sums`, in an order of the backend's own, of which there are constants + 2 for each channel: of the constants, of shift,
// and of scale, which is that of the neuron's input times x - centre. Of constant input grad_x has one step too: the steps'
// gradients, each as it is of any input but not yet rounded to x's dtype, added up from the last step to the first.
template <class Kernels>
struct BackwardCall {
  Geometry g;
  Dtype dtype;
  Member<Kernels> neuron;
  const void *x, *affine, *grad_spikes, *checkpoints;
  std::vector<const void*> state0, grad_state, grad_sequences;
  std::vector<int64_t> which;
  void* grad_x;
  std::vector<void*> grad_state0, grad_constants;
  double* sums;
  bool constant = false;

  Geometry of_x() const { return constant ? one_step(g) : g; }
};

// Where such a sum begins: adding to it leaves every number as it is, -0.0 included.
constexpr double kNothing = -0.0;

// The neurons of a super neuron: bit k of a code is the spike of the k-th. They start at rest and have numbers for
// constants.
constexpr int kMostMembers = 8;
template <class Kernels>
using Members = std::vector<Member<Kernels>>;

// Spikes of all neurons as a code each element, and for each neuron and channel their number.
template <class Kernels>
struct EncodeCall {
  Geometry g;
  Dtype dtype;
  Members<Kernels> members;
  const void* x;
  uint8_t* codes;
  double* sums;  // partial sums, a count for each neuron
};

// y = table[0] + (spike of the first neuron: table[1]) + ..., added up in this order; table is [1 + neurons][channels].
struct DecodeCall {
  Geometry g;
  Dtype dtype;  // of y
  int members;
  const uint8_t* codes;
  const void* table;
  void* y;
};

// Sums of a gradient for each channel: all of it, and that of the elements at which each neuron fired.
struct SuperSumsCall {
  Geometry g;
  Dtype dtype;
  int members;
  const uint8_t* codes;
  const void* grad;
  double* sums;      // 1 + members
  unsigned* ticket;  // set to 0 for what comes behind, if given
};

// grad_x = sum over the neurons, in their order, of neuron k's adjoint for gs = fma(a, grad, fired ? fired_k : silent_k),
// where table [3*neurons][channels] holds a, silent and fired of each.
template <class Kernels>
struct SuperBackwardCall {
  Geometry g;
  Dtype dtype;
  Members<Kernels> members;
  const void *x, *grad, *table;
  const uint8_t* codes;
  void* grad_x;
};

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

// BatchNorm in front of a neuron. `running_...` are moved in training, where they may be null, and are the statistics
// otherwise; null weight and bias: 1 and 0. affine is that of ForwardCall; moments [4][channels] are kept for backward:
// mean, variance, inverse deviation and scale. `count`: values of a channel, of which there are as many `copies`.
struct NormForwardCall {
  int64_t channels;
  double count, copies, eps, momentum;
  bool training;
  const void *weight, *bias;
  void *running_mean, *running_var, *affine;
  double* moments;
};

// The way back, by the batch's own statistics: table is that of ChannelAffineCall.
struct NormBackwardCall {
  int64_t channels;
  double count;
  const void* affine;
  const double* moments;
  void *table, *grad_weight, *grad_bias;
};

// The same for the neurons of a super neuron, whose running statistics are [neurons][channels], and moments [4] of these.
// table is that of DecodeCall.
struct MixtureForwardCall {
  int64_t channels;
  int members;
  double count, eps, momentum;
  bool training;
  const void* weights;  // [neurons]
  void *running_mean, *running_var, *table;
  double* moments;
};

// table is that of SuperBackwardCall; of_weights [neurons][channels] is what each channel adds to grad_weights [neurons].
struct MixtureBackwardCall {
  int64_t channels;
  int members;
  double count;
  bool training;
  const double* moments;
  void* table;
  double* of_weights;
  void* grad_weights;
};

// Values that are whole numbers from 0 to 2^planes - 1, divided by `scale`, and these numbers as bits: bit i%8 of byte
// i/8 of plane p is bit p of the i-th number. A plane lies `plane` bytes behind the one before it. `wrong`, if given, has a
// byte for each 256 values: 1 if one of them is no such value, and then they come back as NaN.
struct BitsCall {
  Dtype dtype;
  int64_t count, scale;
  int planes;
  void* values;
  uint8_t* bits;
  int64_t plane;
  uint8_t* wrong;
};
constexpr int kMostPlanes = 8, kGroupBytes = 32;

}  // namespace stdano

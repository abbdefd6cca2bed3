// From a call to the kernels that serve it. Free of torch, like the kernels.
#pragma once

#include <string>

#include "arguments.h"

namespace stdano {
namespace STDANO_ISA {

using Neuron = Member<NeuronInfo>;

inline const DeviceNeuron& kernels_of(const Neuron& neuron) { return *static_cast<const DeviceNeuron*>(neuron.kernels); }

inline const FastKernels& fast_kernels(const DeviceNeuron& k, Dtype dtype) {
  return dtype == Dtype::float32 ? k.of_float32 : dtype == Dtype::bfloat16 ? k.of_bfloat16 : k.of_float16;
}

inline bool has_tables(const Neuron& neuron) {
  for (const ConstantValue& c : neuron.constants) {
    if (c.data) return true;
  }
  return false;
}

// Whether the fast kernels may serve a call: see FastKernels.
template <class Call>
bool may_be_fast(const Call& call) {
  return call.dtype != Dtype::float64 && !has_tables(call.neuron) && call.which.empty() &&
         call.g.N * call.g.T < (int64_t(1) << 31);
}

template <class real>
void derive(const DeviceNeuron& k, const real* constants, real* derived, real* rest) {
  if constexpr (sizeof(real) == 8) {
    k.derive_double(constants, derived, rest);
  } else {
    k.derive(constants, derived, rest);
  }
}

template <class Pointer, class From, int size>
void copy(Pointer (&to)[size], const std::vector<From>& from) {
  for (size_t j = 0; j < from.size(); ++j) to[j] = static_cast<Pointer>(from[j]);
}

template <class real, class Call>
void fill(Arguments<real>& a, const Call& call) {
  const DeviceNeuron& k = kernels_of(call.neuron);
  fill_layout(a, call.g);
  a.dtype = call.dtype;
  a.alpha = real(call.neuron.alpha);
  a.surrogate = k.surrogate;
  a.has_tables = has_tables(call.neuron);
  real numbers[kDeviceConstants];
  for (int j = 0; j < k.constants; ++j) {
    const ConstantValue& c = call.neuron.constants[j];
    a.constants[j] = {static_cast<const real*>(c.data), real(c.value), c.per_neuron};
    numbers[j] = real(c.value);
  }
  derive(k, numbers, a.derived, a.rest);
  a.x = call.x;
  a.has_affine = call.affine != nullptr;
  a.affine = static_cast<const real*>(call.affine);
  a.has_state0 = !call.state0.empty();
  copy(a.state0, call.state0);
  a.sequences = static_cast<int>(call.which.size());
  copy(a.which, call.which);
}

template <class real, class Stream>
void forward(const ForwardCall<NeuronInfo>& call, Coded coded, Stream stream) {
  const DeviceNeuron& k = kernels_of(call.neuron);
  ForwardArguments<real> a{};
  fill(a, call);
  a.has_spikes = call.spikes != nullptr;
  a.spikes = call.spikes;
  a.has_state = !call.state.empty();
  copy(a.state, call.state);
  a.has_checkpoints = call.checkpoints != nullptr;
  a.checkpoints = static_cast<real*>(call.checkpoints);
  copy(a.sequence, call.sequences);
  a.has_codes = coded.codes != nullptr;
  a.codes = coded.codes;
  a.bit = coded.bit;
  a.is_first = coded.bit == 0;
  const auto start = [&](auto kernel, int64_t threads) {
    STDANO_LAUNCH(kernel, count_blocks(threads, kForwardThreads), kForwardThreads, stream, a);
  };
  if constexpr (sizeof(real) == 4) {
    const FastKernels& fast = fast_kernels(k, call.dtype);
    bool aligned = call.g.inner % fast.width == 0 && is_aligned(16, a.x, a.spikes, a.codes, a.checkpoints);
    for (int j = 0; j < k.states; ++j) aligned = aligned && is_aligned(16, a.state0[j], a.state[j]);
    if (may_be_fast(call) && aligned) return start(fast.forward, call.g.N / fast.width);
    start(k.general.forward, call.g.N);
  } else {
    start(k.general_double.forward, call.g.N);
  }
}

// The sums that a call wants, by their numbers.
inline std::vector<int> list_sums(const BackwardCall<NeuronInfo>& call) {
  std::vector<int> wanted;
  const int count = call.neuron.kernels->constants;
  for (int j = 0; j < count; ++j) {
    if (call.neuron.constants[j].data && !call.neuron.constants[j].per_neuron) wanted.push_back(j);
  }
  if (call.affine) wanted.insert(wanted.end(), {count, count + 1});
  return wanted;
}

template <class real, class Stream>
void backward(const BackwardCall<NeuronInfo>& call, Coded coded, Stream stream) {
  const DeviceNeuron& k = kernels_of(call.neuron);
  BackwardArguments<real> a{};
  fill(a, call);
  a.grad_spikes = call.grad_spikes;
  a.checkpoints = static_cast<const real*>(call.checkpoints);
  copy(a.grad_state, call.grad_state);
  for (int j = 0; j < k.states; ++j) a.has_grad_state |= a.grad_state[j] ? 1 << j : 0;
  // Where the CPU leaves out what is 0 there, so that the signs of zeros agree.
  a.closes = call.grad_state.empty() && !a.has_tables && a.sequences == 0 && (k.is_long || call.g.T % 4 == 0);
  copy(a.grad_sequence, call.grad_sequences);
  a.grad_x = call.grad_x;
  copy(a.grad_state0, call.grad_state0);
  copy(a.grad_constants, call.grad_constants);
  a.threads = call.sums ? make_slices(call.g).threads() : call.g.N;
  double* partial = call.sums;
  for (int number : list_sums(call)) {
    (number < k.constants ? a.partial[number] : number == k.constants ? a.partial_shift : a.partial_scale) = partial;
    partial += a.threads;
  }
  a.has_codes = coded.codes != nullptr;
  a.codes = coded.codes;
  a.bit = coded.bit;
  a.table = static_cast<const real*>(coded.table);
  a.sum = static_cast<const real*>(coded.sum);
  a.new_sum = static_cast<real*>(coded.new_sum);
  const auto start = [&](auto kernel) {
    STDANO_LAUNCH(kernel, count_blocks(a.threads, kBackwardThreads), kBackwardThreads, stream, a);
  };
  if constexpr (sizeof(real) == 4) {
    const FastKernels& fast = fast_kernels(k, call.dtype);
    if (may_be_fast(call) && call.g.T == 4) return start(fast.four_steps);
    if (may_be_fast(call) && call.g.T > 0 && call.g.T % 8 == 0) return start(fast.eight_steps);
    start(k.general.backward);
  } else {
    start(k.general_double.backward);
  }
}

template <class Stream>
void run(const ForwardCall<NeuronInfo>& call, Coded coded, Stream stream) {
  call.dtype == Dtype::float64 ? forward<double>(call, coded, stream) : forward<float>(call, coded, stream);
}
template <class Stream>
void run(const BackwardCall<NeuronInfo>& call, Coded coded, Stream stream) {
  call.dtype == Dtype::float64 ? backward<double>(call, coded, stream) : backward<float>(call, coded, stream);
}

// The neurons of a super neuron run one after the other, by the kernels that they have anyway.
template <class Stream>
void encode(const EncodeCall<NeuronInfo>& call, Stream stream) {
  for (size_t k = 0; k < call.members.size(); ++k) {
    ForwardCall<NeuronInfo> own{call.g, call.dtype, call.members[k], call.x};
    run(own, {call.codes, static_cast<int>(k), nullptr, nullptr, nullptr}, stream);
  }
}

inline int64_t real_size(Dtype dtype) { return dtype == Dtype::float64 ? 8 : 4; }

// Sums of gradients in half precision are taken in float; states in front of the later chunks are computed anew.
inline int64_t sum_bytes(const SuperBackwardCall<NeuronInfo>& call) {
  const bool half = call.dtype == Dtype::bfloat16 || call.dtype == Dtype::float16;
  return half && call.members.size() > 1 ? call.g.N * call.g.T * real_size(call.dtype) : 0;
}
inline int64_t scratch_bytes(const SuperBackwardCall<NeuronInfo>& call) {
  const int64_t steps = call.dtype == Dtype::float64 ? kDeviceCheckpointStepsDouble : kDeviceCheckpointSteps;
  int64_t states = 0;
  for (const Neuron& member : call.members) states = member.kernels->states > states ? member.kernels->states : states;
  return sum_bytes(call) + (call.g.T - 1) / steps * states * call.g.N * real_size(call.dtype);
}

template <class Stream>
void super_backward(const SuperBackwardCall<NeuronInfo>& call, void* scratch, Stream stream) {
  const size_t count = call.members.size();
  const int64_t size = real_size(call.dtype), sums = sum_bytes(call);
  void *sum = sums > 0 ? scratch : call.grad_x, *checkpoints = static_cast<char*>(scratch) + sums;
  for (size_t k = 0; k < count; ++k) {
    ForwardCall<NeuronInfo> states{call.g, call.dtype, call.members[k], call.x};
    states.checkpoints = checkpoints;
    if (scratch_bytes(call) > sums) run(states, {}, stream);
    BackwardCall<NeuronInfo> own{call.g, call.dtype, call.members[k], call.x};
    own.grad_spikes = call.grad;
    own.checkpoints = checkpoints;
    own.grad_x = call.grad_x;
    const void* table = static_cast<const char*>(call.table) + 3 * k * call.g.channels * size;
    run(own,
        {const_cast<uint8_t*>(call.codes), static_cast<int>(k), table, k > 0 ? sum : nullptr,
         k + 1 < count ? sum : nullptr},
        stream);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano

// From a call to the kernels that serve it. A part of launch.cu, free of torch, so that a host compiler can build it.
#pragma once

#include <cstring>

#include "arguments.h"

namespace stdano {
namespace STDANO_ISA {

using Neuron = Member<NeuronInfo>;

const NeuronInfo* find(const char* name, bool is_double) {
  for (const DeviceNeuron& k : all_neurons()) {
    if (std::strcmp(name, k.name) == 0 && (!is_double || k.GeneralKernels<double>::derive)) return &k;
  }
  return nullptr;
}

const DeviceNeuron& kernels_of(const Neuron& neuron) { return *static_cast<const DeviceNeuron*>(neuron.kernels); }

const FastKernels& fast_kernels(const Neuron& neuron, Dtype dtype) {
  return dtype == Dtype::float32 ? kernels_of(neuron).of_float32 : kernels_of(neuron).of_half;
}

bool has_tables(const Neuron& neuron) {
  for (const ConstantValue& c : neuron.constants) {
    if (c.data) return true;
  }
  return false;
}

// Whether the fast kernels may serve a call: see FastKernels.
bool may_be_fast(const Geometry& g, Dtype dtype) {
  return dtype != Dtype::float64 && g.N * g.T < (int64_t(1) << 31);
}
template <class Call>
bool may_be_fast(const Call& call) {
  return may_be_fast(call.g, call.dtype) && !has_tables(call.neuron) && call.which.empty();
}

template <class Pointer, class From, int size>
void copy(Pointer (&to)[size], const std::vector<From>& from) {
  for (size_t j = 0; j < from.size(); ++j) to[j] = static_cast<Pointer>(from[j]);
}

template <class real, class Call>
void fill(Arguments<real>& a, const Call& call, const Coded& coded) {
  const DeviceNeuron& k = kernels_of(call.neuron);
  static_cast<Layout&>(a) = make_layout(call.g);
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
  k.GeneralKernels<real>::derive(numbers, a.derived, a.rest);
  a.x = call.x;
  a.affine = static_cast<const real*>(call.affine);
  a.has_state0 = !call.state0.empty();
  a.constant = call.constant;
  copy(a.state0, call.state0);
  a.sequences = static_cast<int>(call.which.size());
  copy(a.which, call.which);
  a.coded = coded;
}

// Whether a kernel may take `width` neighbours at once.
bool may_be_wide(const ForwardArguments<float>& a, int width) {
  bool aligned = a.g.inner % width == 0 && is_aligned(16, a.x, a.spikes, a.coded.codes, a.checkpoints);
  for (int j = 0; j < kDeviceStates; ++j) aligned = aligned && is_aligned(16, a.state0[j], a.state[j]);
  return aligned;
}

template <class real>
void run_in(const ForwardCall<NeuronInfo>& call, const Coded& coded, cudaStream_t stream) {
  ForwardArguments<real> a{};
  fill(a, call, coded);
  a.spikes = call.spikes;
  copy(a.state, call.state);
  a.checkpoints = static_cast<real*>(call.checkpoints);
  copy(a.sequence, call.sequences);
  if constexpr (sizeof(real) == 4) {
    const FastKernels& fast = fast_kernels(call.neuron, call.dtype);
    if (may_be_fast(call) && may_be_wide(a, fast.width)) {
      return start(fast.forward, call.g.N / fast.width, kForwardThreads, stream, a);
    }
  }
  start(kernels_of(call.neuron).GeneralKernels<real>::forward, call.g.N, kForwardThreads, stream, a);
}

// The sums that a call wants, by their numbers.
std::vector<int> wanted_sums(const BackwardCall<NeuronInfo>& call) {
  std::vector<int> wanted;
  const int count = call.neuron.kernels->constants;
  for (int j = 0; j < count; ++j) {
    if (call.neuron.constants[j].data && !call.neuron.constants[j].per_neuron) wanted.push_back(j);
  }
  if (call.affine) wanted.insert(wanted.end(), {count, count + 1});
  return wanted;
}

// The kernel for sequences of so many steps, null where only the general one serves them.
BackwardKernel<float> kernel_for_steps(const FastKernels& fast, int64_t T) {
  return T == 4 ? fast.four_steps : T > 0 && T % 8 == 0 ? fast.eight_steps : nullptr;
}

template <class real>
void run_in(const BackwardCall<NeuronInfo>& call, const Coded& coded, cudaStream_t stream) {
  const DeviceNeuron& k = kernels_of(call.neuron);
  BackwardArguments<real> a{};
  fill(a, call, coded);
  a.grad_spikes = call.grad_spikes;
  a.checkpoints = static_cast<const real*>(call.checkpoints);
  copy(a.grad_state, call.grad_state);
  for (int j = 0; j < k.states; ++j) a.has_grad_state |= a.grad_state[j] ? 1 << j : 0;
  // Where the CPU leaves out what is 0 there, so that the signs of zeros agree.
  a.closes = call.grad_state.empty() && !a.has_tables && a.sequences == 0 && (k.is_long || call.g.T % kUnit == 0);
  copy(a.grad_sequence, call.grad_sequences);
  a.grad_x = call.grad_x;
  copy(a.grad_state0, call.grad_state0);
  copy(a.grad_constants, call.grad_constants);
  a.slices = call.sums ? make_slices(call.g) : no_slices(call.g);
  double* partial = call.sums;
  for (int number : wanted_sums(call)) {
    const bool of_constant = number < k.constants;
    const int place = of_constant ? 2 + number : number - k.constants;
    a.partial[place] = partial;
    partial += a.slices.partials();
    const bool by_warp = a.slices.by_warp || (of_constant && call.neuron.constants[number].one);
    a.by_warp |= by_warp ? 1 << place : 0;
  }
  BackwardKernel<real> kernel = k.GeneralKernels<real>::backward;
  if constexpr (sizeof(real) == 4) {
    const auto fast = may_be_fast(call) ? kernel_for_steps(fast_kernels(call.neuron, call.dtype), call.g.T) : nullptr;
    if (fast) kernel = fast;
  }
  start(kernel, a.slices.threads, kBackwardThreads, stream, a);
}

template <class Call>
void run(const Call& call, const Coded& coded, cudaStream_t stream) {
  call.dtype == Dtype::float64 ? run_in<double>(call, coded, stream) : run_in<float>(call, coded, stream);
}

void launch(const ForwardCall<NeuronInfo>& call, cudaStream_t stream) { run(call, {}, stream); }
void launch(const BackwardCall<NeuronInfo>& call, cudaStream_t stream) { run(call, {}, stream); }

// The kernels of neurons together (see make_together of neuron.h); null where there are none.
const DeviceNeuron* find_together(const Members<NeuronInfo>& members) {
  for (const DeviceNeuron& k : all_neurons()) {
    const char* rest = k.name;
    for (const Neuron& member : members) {
      const size_t length = std::strlen(member.kernels->name);
      rest = *rest == '+' && std::strncmp(rest + 1, member.kernels->name, length) == 0 ? rest + 1 + length : "?";
    }
    if (*rest == '\0') return &k;
  }
  return nullptr;
}

// The neurons of a super neuron as they run, back or forward: all as one, or else each by itself. Kernels read one
// alpha, which backward alone needs.
Members<NeuronInfo> gather(const Members<NeuronInfo>& members, const Geometry& g, Dtype dtype, bool back) {
  const DeviceNeuron* k = may_be_fast(g, dtype) ? find_together(members) : nullptr;
  Neuron all{k, {}, members[0].alpha};
  if (!k || (back && !kernel_for_steps(fast_kernels(all, dtype), g.T))) return members;
  for (const Neuron& member : members) {
    if (back && member.alpha != all.alpha) return members;
    all.constants.insert(all.constants.end(), member.constants.begin(), member.constants.end());
  }
  return {all};
}

void encode(const EncodeCall<NeuronInfo>& call, cudaStream_t stream) {
  int bit = 0;
  for (const Neuron& neuron : gather(call.members, call.g, call.dtype, false)) {
    run(ForwardCall<NeuronInfo>{call.g, call.dtype, neuron, call.x}, {call.codes, bit++}, stream);
  }
}

int64_t real_size(Dtype dtype) { return dtype == Dtype::float64 ? 8 : 4; }

// Sums of gradients in half precision are taken in float; states in front of the later chunks are computed anew.
int64_t sum_bytes(const SuperBackwardCall<NeuronInfo>& call) {
  const bool half = call.dtype == Dtype::bfloat16 || call.dtype == Dtype::float16;
  return half && call.members.size() > 1 ? call.g.N * call.g.T * real_size(call.dtype) : 0;
}
int64_t scratch_size(const SuperBackwardCall<NeuronInfo>& call) {
  const int64_t steps = call.dtype == Dtype::float64 ? kDeviceCheckpointStepsDouble : kDeviceCheckpointSteps;
  int64_t states = 0;
  for (const Neuron& member : call.members) states += member.kernels->states;
  return sum_bytes(call) + (call.g.T - 1) / steps * states * call.g.N * real_size(call.dtype);
}

void launch(const SuperBackwardCall<NeuronInfo>& call, void* scratch, cudaStream_t stream) {
  const Members<NeuronInfo> neurons = gather(call.members, call.g, call.dtype, true);
  const int64_t size = real_size(call.dtype), sums = sum_bytes(call);
  void *sum = sums > 0 ? scratch : call.grad_x, *checkpoints = static_cast<char*>(scratch) + sums;
  for (size_t i = 0; i < neurons.size(); ++i) {
    ForwardCall<NeuronInfo> states{call.g, call.dtype, neurons[i], call.x};
    states.checkpoints = checkpoints;
    if (scratch_size(call) > sums) run(states, {}, stream);
    BackwardCall<NeuronInfo> own{call.g, call.dtype, neurons[i], call.x};
    own.grad_spikes = call.grad;
    own.checkpoints = checkpoints;
    own.grad_x = call.grad_x;
    const void* table = static_cast<const char*>(call.table) + 3 * i * call.g.channels * size;
    run(own,
        {const_cast<uint8_t*>(call.codes), static_cast<int>(i), table, i > 0 ? sum : nullptr,
         i + 1 < neurons.size() ? sum : nullptr},
        stream);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano

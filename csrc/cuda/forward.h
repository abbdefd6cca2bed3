// The kernels of a neuron forward: one thread walks a few neighbouring neurons, or one, through all time steps, by the
// functions that stdano_kernels/define/cuda.py has printed: S (a step) and C (what constants make). A thread holds
// nothing but the state, so it takes as many neurons as registers have room for, or one access of 16 bytes. Fast
// kernels have void for C: their constants are numbers, from which the host has made `derived`.
#pragma once

#include "arguments.h"
#include "device_math.h"

namespace stdano {
namespace STDANO_ISA {

template <bool general>
using IndexOf = std::conditional_t<general, int64_t, uint32_t>;

template <int n>
constexpr int at_least_one = n > 0 ? n : 1;  // elements of an array

template <class C>
constexpr int constants_of = C::constants;
template <>
constexpr int constants_of<void> = 0;

// Where state j of so many lies in a checkpoint.
template <int states, class Index>
STDANO_INLINE Index checkpoint(const Layout& a, int number, int j, Index m) {
  return static_cast<Index>(number * states + j) * static_cast<Index>(a.g.N) + m;
}

// What constants make for neuron m, and where its states begin.
template <class C, class real>
struct NeuronConstants {
  real constants[at_least_one<C::constants>], derived[kDeviceDerived], rest[kDeviceStates];

  template <class Index>
  STDANO_INLINE NeuronConstants(const Arguments<real>& a, Index m) {
    const Index channel = a.has_tables ? channel_of(a, m) : 0;
#pragma unroll
    for (int j = 0; j < C::constants; ++j) {
      const ConstantSource<real>& c = a.constants[j];
      constants[j] = c.data ? c.data[c.per_neuron ? m : channel] : c.value;
    }
    C::derive(constants, derived, rest);
  }
};

// The same for all neurons.
template <class real>
struct NeuronConstants<void, real> {
  const real *derived, *rest;
  template <class Index>
  STDANO_INLINE NeuronConstants(const Arguments<real>& a, Index) : derived(a.derived), rest(a.rest) {}
};

// Spikes as bits: that of a neuron, or those of several (see Together of neuron.h).
template <class real>
STDANO_INLINE int code_of(real spike) {
  return spike != 0 ? 1 : 0;
}
STDANO_INLINE int code_of(int codes) { return codes; }

template <class S, class C, class scalar, class real, int width>
__global__ void __launch_bounds__(kForwardThreads, sizeof(real) == 4 ? 4 : 2)
    forward_kernel(const __grid_constant__ ForwardArguments<real> a) {
  constexpr bool general = !std::is_void<C>::value;
  constexpr int K = checkpoint_steps<real>;
  static_assert(width == 1 || !general, "constants of one neuron a thread");
  using Index = IndexOf<general>;
  using Neighbours = Few<scalar, real, width>;
  const Index m = (static_cast<Index>(blockIdx.x) * kForwardThreads + threadIdx.x) * width;
  if (m >= static_cast<Index>(a.g.N)) return;
  const NeuronConstants<C, real> c(a, m);
  real state[width][S::states];
  ChannelMap<real> map[width] = {};
  if (a.affine) {
#pragma unroll
    for (int i = 0; i < width; ++i) map[i].load(a, a.affine, m + i);
  }
#pragma unroll
  for (int j = 0; j < S::states; ++j) {
    Pack<real, width> from;
    if (a.has_state0) from = load<width>(a.state0[j] + m);
#pragma unroll
    for (int i = 0; i < width; ++i) state[i][j] = a.has_state0 ? from.items[i] : c.rest[j];
  }
  const auto save = [&](real* to, int j) {
    Pack<real, width> values;
#pragma unroll
    for (int i = 0; i < width; ++i) values.items[i] = state[i][j];
    store(to, values);
  };

  Index at = offset(a, m);
  typename Neighbours::Raw next{};
  if (a.steps > 0) next = Neighbours::load(a.x, at, a.dtype);
  const int last_read = a.constant ? 0 : a.steps - 1;
  for (int t = 0; t < a.steps; ++t, at += static_cast<Index>(a.g.inner)) {
    const typename Neighbours::Raw in = next;
    if (t < last_read) next = Neighbours::load(a.x, at + static_cast<Index>(a.g.inner), a.dtype);
    if (a.checkpoints && t > 0 && t % K == 0) {
#pragma unroll
      for (int j = 0; j < S::states; ++j) save(a.checkpoints + checkpoint<S::states>(a, t / K - 1, j, m), j);
    }
    using Spike = decltype(S::step(real(), state[0], c.derived, a.alpha, state[0], state[0]));
    constexpr bool all = std::is_same<Spike, int>::value;  // neurons of a super neuron, which have bits 0, 1, ..
    Spike spikes[width];
#pragma unroll
    for (int i = 0; i < width; ++i) {
      real x = Neighbours::get(in, a.dtype, i), u[at_least_one<S::spikes>];
      if (a.affine) x = map[i](x);
      spikes[i] = S::step(x, state[i], c.derived, a.alpha, state[i], u);
    }
    if (a.coded.codes) {
      Pack<uint8_t, width> codes{};
      const int bit = all ? 0 : a.coded.bit;
      if (bit > 0) codes = load<width>(a.coded.codes + at);
#pragma unroll
      for (int i = 0; i < width; ++i) codes.items[i] |= static_cast<uint8_t>(code_of(spikes[i]) << bit);
      store(a.coded.codes + at, codes);
    } else if (!all && a.spikes) {
      typename Neighbours::Raw out;
#pragma unroll
      for (int i = 0; i < width; ++i) Neighbours::set(out, a.dtype, spikes[i], i);
      Neighbours::store(a.spikes, at, a.dtype, out);
    }
    if constexpr (general) {
#pragma unroll 1
      for (int q = 0; q < a.sequences; ++q) {
        real value = state[0][0];
#pragma unroll
        for (int j = 1; j < S::states; ++j) value = a.which[q] == j ? state[0][j] : value;
        typename Neighbours::Raw out;
        Neighbours::set(out, a.dtype, value);
        Neighbours::store(a.sequence[q], at, a.dtype, out);
      }
    }
  }
  if (!a.state[0]) return;
#pragma unroll
  for (int j = 0; j < S::states; ++j) save(a.state[j] + m, j);
}

}  // namespace STDANO_ISA
}  // namespace stdano
